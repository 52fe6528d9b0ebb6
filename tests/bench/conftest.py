"""How many threads the measurements take, whatever the machine has."""

import torch

torch.set_num_threads(2)
