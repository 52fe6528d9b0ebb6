"""`kdbench new suite` and `kdbench new examples`: files to start from."""

import re
from collections.abc import Mapping
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.suite.shipped import example_names, shipped, suite_names

SUITE = """\
# A suite says what is compared: data set, recipe, networks, methods, seeds. It is one YAML file.
#
# See what it would train:  kdbench plan NAME.yaml
#
# Train it:                 kdbench run NAME.yaml
#
# See every key in full:    kdbench show suite NAME.yaml
title: Which method helps most?

# The images. `kdbench list datasets` names the data sets, and `kdbench show dataset NAME` their keys.
# Your own images lie in train/<class>/ and test/<class>/ below `root`, which begins in the folder of this file:
#   dataset: {name: imagefolder, label: my photographs, root: path/to/images, size: 64}
# `validation: 0.1` holds a tenth of the training images out. An epoch is then selected with them.
dataset: digits

# How networks are trained. `kdbench list recipes` names the recipes, and `kdbench show recipe NAME` their keys.
# Keys beside `base` change it. Without `base`, give the whole recipe.
recipe:
  base: digits-quick
  epochs: 4
  schedule: {milestones: [3]}

# Every method is trained once for each seed. Three seeds or more show how far results scatter.
seeds: [0, 1, 2]

# `kdbench list methods` names the methods, and `kdbench show method NAME` their parameters. `+` combines two.
# `scratch` is the student without a teacher: gains are measured against it.
methods:
  - scratch
  - kd
  - kd: {temperature: 2}  # a parameter that differs from its default
  - at: {beta: 62.5}      # 1000 is meant for images of 32x32; maps of 8x8 images have a sixteenth of the positions
  - rkd+kd

# Every method is tried on every pair. A teacher is trained once, for all of its students.
# `kdbench list models` names the networks. `torchvision/NAME` and `timm/NAME` are networks, too.
# A pair may leave methods out, or change the recipe of its student:
#   - {teacher: wrn_16_1, student: resnet8, without: [rkd+kd], recipe: {optimiser: {lr: 0.02}}}
pairs:
  - {teacher: resnet14, student: resnet8}

# What follows are defaults. Take the sign of comment away to change one.
# plugins: []           # files with methods, networks or data sets of your own, such as [my_method.py]
# teacher: {seed: 0}    # the seed of the teachers; `recipe: {...}` beside it changes how they are trained
# tune: {budget: 2, grid: {kd: {temperature: [2]}, ...}}  # tries settings of each method on held-out images: docs/how-to/tuning.md
# keep_students: false  # true keeps the weights of the students, for kdbench.load_student
# report: {}            # how the report looks, such as {metric: accuracy, baseline: kd}; it changes no trial
# expected_spread: 0.5  # standard deviation over seeds of a difference, in points: `kdbench plan` then says what the seeds can show
# stages: per-seed      # for a method such as ft, which first learns from the teacher alone; per-teacher does so once for all seeds
"""


def new_suite(name: str, directory: Path) -> list[Path]:
    """Write `NAME.yaml`, a suite that runs at once and says what can be changed.

    Returns:
        The files written.

    Raises:
        KdbenchError: the name cannot be used, or the file is there already; nothing was written.
    """
    name = name.removesuffix(".yaml")
    if not re.fullmatch(r"\w[\w-]*", name):
        raise KdbenchError(f"'{name}' cannot name a suite. Use letters, digits, underscores and hyphens, as in my_suite.")
    if name in suite_names():
        raise KdbenchError(f"the suite '{name}' ships with kdbench. Choose another name.")
    return write_new({directory / f"{name}.yaml": SUITE.replace("NAME.yaml", f"{name}.yaml")})


def new_examples(directory: Path) -> list[Path]:
    """Copy every example that ships into the folder, which is made.

    Returns:
        The files written.

    Raises:
        KdbenchError: one of the files is there already; nothing was written.
    """
    return write_new({directory / name: (shipped("examples") / name).read_text(encoding="utf-8") for name in example_names()})


def write_new(files: Mapping[Path, str]) -> list[Path]:
    """Write text files, none where one is there already.

    Returns:
        The files written.

    Raises:
        KdbenchError: one of them is there already.
        OSError: one cannot be written.
    """
    for file in files:
        if file.exists():
            raise KdbenchError(f"{file} exists already. Choose another name, or move it away.")
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return list(files)
