"""Train one of the book's ResNets on CIFAR-10 and record the run.

    python -m runs.train resnet20 --epochs 50 --name mine
    torchrun --nproc-per-node=2 -m runs.train resnet20 --epochs 50 --name mine

Both are typed in book/. Here live the options of the network and of its recipe.
"""

import argparse
from dataclasses import MISSING, fields

from torch import nn

from runs.driver import Experiment, add_options, drive, judge
from runs.recipe import FullRecipe, fit
from taught import resnet

EPOCHS = 50  # unless given
PROTOCOL = "test set used once, after the last epoch, without augmentation"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    drive("train", arguments, make_parser(), prepare)


def make_parser() -> argparse.ArgumentParser:
    """Make the options; each field of FullRecipe is one, `bf16` by --precision."""
    parser = argparse.ArgumentParser(
        prog="runs.train",
        description="Train a ResNet on CIFAR-10 and record the run.",
        allow_abbrev=False,
    )
    network = parser.add_argument_group("network")
    network.add_argument("model", help="resnet20, resnet56, resnet18, preresnet20, …")
    network.add_argument(
        "--shortcut", choices=["A", "B", "none"], help="in place of the family's own"
    )
    network.add_argument("--stem", default="cifar", choices=["cifar", "imagenet"])
    network.add_argument(
        "--no-norm", action="store_true", help="biases in place of normalisation"
    )
    network.add_argument(
        "--classes",
        type=int,
        nargs="+",
        default=[*range(10)],
        help="train on some of the ten, by number",
    )
    network.add_argument(
        "--compile", action="store_true", help="needs a C++ compiler and a minute"
    )
    recipe = parser.add_argument_group("recipe")
    for field in fields(FullRecipe):
        option = field.name.replace("_", "-")
        if field.type is not bool:
            default = EPOCHS if field.default is MISSING else field.default
            recipe.add_argument(
                f"--{option}",
                type=field.type,
                default=default,
                help="%(default)s unless given",
            )
        elif field.name != "bf16":
            recipe.add_argument(
                f"--no-{option}",
                dest=field.name,
                action="store_false",
                help="leave it out",
            )
    add_options(parser)
    return parser


def prepare(options: argparse.Namespace, bf16: bool) -> Experiment:
    """Turn the options into an experiment."""
    chosen = {f.name: getattr(options, f.name, bf16) for f in fields(FullRecipe)}
    own_shortcut = "B" if options.model in resnet.IMAGENET_FAMILY else "A"

    def build() -> nn.Module:
        model = resnet.build_model(
            options.model, options.shortcut, len(options.classes), options.stem
        )
        if options.no_norm:
            resnet.without_normalisation(model)
        if options.compile:
            model.compile()
        return model

    return Experiment(
        recipe=FullRecipe(**chosen),
        build=build,
        fit=fit,
        judge=judge,
        protocol=PROTOCOL,
        about={
            "model": options.model,
            "shortcut": options.shortcut or own_shortcut,
            "stem": options.stem,
            "normalised": not options.no_norm,
            "compiled": options.compile,
            "classes": options.classes,
        },
        classes=options.classes,
    )


if __name__ == "__main__":
    main()
