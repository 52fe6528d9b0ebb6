"""Where jobs run: one interface, and what stands behind it."""

from kdbench.runner.engines.engine import Engine as Engine
from kdbench.runner.engines.engine import Place as Place
