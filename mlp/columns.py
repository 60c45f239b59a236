"""The configuration columns of networks' runs, for ``sweeps``: ``optim.lr`` as ``lr``, and so on."""

from collections.abc import Mapping
from typing import Any

from sweeps.runs.identity import flatten
from sweeps.runs.schema import Check, integer, list_of, number, text

# The identity's fields with a shorter column name, in order; all others keep their dotted name.
_COLUMNS: Mapping[str, tuple[str, Check]] = {
    "activ": ("activ.name", text()),
    "loss": ("loss.name", text()),
    "optim": ("optim.name", text()),
    "model": ("model.hidden", list_of(integer(ge=1), allowed="must be a list of layer widths", at_most=1000)),
    "layers": ("model.hidden", lambda field, value: value),
    "data": ("data.name", text()),
    "lr": ("optim.lr", number()),
    "wd": ("optim.wd", number()),
    "mo": ("optim.mo", number()),
    "bsz": ("bsz", integer(ge=1)),
    "seed": ("seed", integer(ge=0, le=2**63 - 1)),
    "dtype": ("dtype", text()),
    "eval_train": ("eval_train", text()),
    "init_std": ("model.init_std", number()),
}
_SHAPE = ("model.hidden", "activ.name", "loss.name", "optim.name", "data.name", "dtype", "eval_train")


def columns(identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Column → value, those with a shorter name first; None if it is not a network's identity.

    Raises:
        InputError: it is one, but a value is not allowed.
    """
    flat = flatten(identity)
    if not all(field in flat for field in _SHAPE):
        return None
    found = {column: check(field, flat.get(field)) for column, (field, check) in _COLUMNS.items()}
    found["model"], found["layers"] = "x".join(map(str, found["model"])), len(found["layers"])
    named = {field for field, _ in _COLUMNS.values()}
    others = {key: value for key, value in flat.items() if key not in named}
    return found | {key if "." in key else f"config.{key}": value for key, value in others.items()}
