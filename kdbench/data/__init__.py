"""Data sets and the pipeline that feeds them: importing this package registers every built-in data set."""

from kdbench.data.augment import UNAUGMENTED as UNAUGMENTED
from kdbench.data.augment import EpochPlan as EpochPlan
from kdbench.data.augment import Resident as Resident
from kdbench.data.augment import epoch_plan as epoch_plan
from kdbench.data.dataset import DATASETS as DATASETS
from kdbench.data.dataset import Contents as Contents
from kdbench.data.dataset import Dataset as Dataset
from kdbench.data.dataset import Samples as Samples
from kdbench.data.dataset import Source as Source
from kdbench.data.dataset import SourceParams as SourceParams
from kdbench.data.dataset import Split as Split
from kdbench.data.dataset import channel_statistics as channel_statistics
from kdbench.data.dataset import hold_out as hold_out
from kdbench.data.dataset import register_dataset as register_dataset
from kdbench.data.dataset import unsuited as unsuited
from kdbench.data.dataset import use_some as use_some
from kdbench.data.digits import Digits as Digits
from kdbench.data.feed import Feed as Feed
from kdbench.data.feed import batch_bounds as batch_bounds
from kdbench.data.files import Files as Files
from kdbench.data.imagefolder import ImageFolder as ImageFolder
from kdbench.data.imagefolder import ImageStream as ImageStream
from kdbench.data.stream import Streamed as Streamed
from kdbench.data.torchvision_sets import CIFAR10 as CIFAR10
from kdbench.data.torchvision_sets import CIFAR100 as CIFAR100
from kdbench.data.torchvision_sets import FashionMNIST as FashionMNIST
