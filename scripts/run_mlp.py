"""The report's own command line (report §1): its flags, spellings and defaults, mapped onto ``mlp.train``."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as in the report: run without installing

from mlp.train import main

LOSSES = {"cross_entropy": "ce", "enclidean": "euclidean", "hinge": "hinge"}  # the report's spellings


def overrides(arguments: list[str] | None = None) -> list[str]:
    """The report's flags as the words that ``mlp-train`` takes.

    >>> overrides(["--nlayer", "2", "--loss", "enclidean"])
    ['model=mlp2', 'activ=relu', 'loss=euclidean', 'lr=0.001', 'wd=0.001', 'mo=0.9', 'bsz=200']
    """
    parser = argparse.ArgumentParser(
        description="Train the report's network.",
        epilog="Further KEY=VALUE words go to mlp-train as they are, e.g. epochs=10 seed=1.",
        allow_abbrev=False,
    )
    parser.add_argument("--activ", choices=["relu", "sigmoid", "gelu", "tanh"], default="relu", help="default=relu")
    parser.add_argument("--lr", type=float, default=0.001, help="learning rate, default=0.001")
    parser.add_argument("--loss", choices=LOSSES, default="cross_entropy", help="default=cross_entropy")
    parser.add_argument("--nlayer", type=int, choices=[1, 2], default=1, help="hidden layers, default=1")
    parser.add_argument("--wd", type=float, default=0.001, help="weight decay, default=0.001")
    parser.add_argument("--mo", type=float, default=0.9, help="momentum, default=0.9")
    parser.add_argument("--bsz", type=int, default=200, help="batch size, default=200")
    parser.add_argument("override", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_intermixed_args(arguments)  # KEY=VALUE may stand between flags
    return [
        f"model=mlp{given.nlayer}",
        f"activ={given.activ}",
        f"loss={LOSSES[given.loss]}",
        *(f"{key}={getattr(given, key)}" for key in ("lr", "wd", "mo", "bsz")),
        *given.override,
    ]


if __name__ == "__main__":
    sys.argv[1:] = overrides()
    main()
