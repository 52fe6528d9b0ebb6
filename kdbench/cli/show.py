"""`kdbench show`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from kdbench.cli import arguments, options
from kdbench.cli.app import app, print_json
from kdbench.errors import KdbenchError


@app.command(
    epilog=options.examples("show method ft", "show suite quick", "show dataset imagefolder", "show model timm/resnet18 --modules")
)
def show(
    what: Annotated[
        options.Shown,
        options.what_argument(options.Shown, help="What to show.", example="The name comes after it: `kdbench show method kd`."),
    ],
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="As `kdbench list` has it. Also a suite's YAML file, or a folder of images as a dataset."
        ),
    ],
    image: options.ImageOption = "",
    classes: options.ClassesOption = None,
    hook: options.HookOption = [],  # noqa: B006  # typer copies it
    modules: options.ModulesOption = False,
    results: options.TrialsFolderOption = None,
    plugin: options.PluginOption = [],  # noqa: B006  # typer copies it
    as_json: options.JsonOption = False,
) -> None:
    """Show one thing in full, with every default.

    A method: formula, paper and parameters. A model: hook points and size. A dataset: keys, images and classes. A suite and a
    recipe: YAML that can be copied. An example: its text. A trial: its record.
    """
    from kdbench.suite.plugins import load_plugins

    load_plugins(plugin)
    if what != "model" and (image or classes or hook or modules):
        raise KdbenchError(f"--input, --classes, --hook and --modules have no effect on a {what}. Leave them out.")
    if what != "trial" and results:
        raise KdbenchError(f"--results has no effect on a {what}. Leave it out.")
    value: object
    if what == "model":
        value, text = _model(name, image, classes, hook, modules)
    elif what == "trial":
        from kdbench.catalogue import trials

        value = described = trials.describe_trial(name, results or Path("results"))
        text = trials.trial_as_text(described)
    else:
        from kdbench.catalogue.show import shown

        value, text = shown(what, name)
    if as_json:
        print_json(value)
    else:
        print(text)


def _model(name: str, image: str, classes: int | None, hook: Sequence[str], modules: bool) -> tuple[object, str]:
    from kdbench.catalogue import model

    shape = arguments.image_shape(image) if image else model.usual_shape(name)
    if not modules:
        described = model.describe_model(name, image_shape=shape, num_classes=classes or 10, hooks=hook)
        return described, model.model_as_text(described)
    if hook:
        raise KdbenchError("--hook has no effect on --modules. Leave one of them out.")
    names = model.modules_of(name, image_shape=shape, num_classes=classes or 10)
    return names, model.modules_as_text(name, names, image_shape=shape)
