"""The shared losses under the name by which some methods import them: an import is part of a method's code, which records hold."""

from kdbench.method.losses import *  # noqa: F403  # every name, as there
