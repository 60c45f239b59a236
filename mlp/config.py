"""One run's configuration: typed, checked, and the identity that follows from it.

This module reads plain mappings and imports neither Hydra nor OmegaConf: :mod:`mlp.train` composes the mapping
from conf/, a notebook may write it by hand, and a worker gets it frozen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlp.activations import ACTIVATIONS
from mlp.datasets import DATASETS, source
from mlp.losses import LOSSES
from mlp.optim import OPTIMIZERS
from sweeps.runs.identity import digest
from sweeps.runs.schema import Check, Entry, fields, flag, integer, list_of, number, one_of, optional, text
from sweeps.runs.trackers import TRACKERS, require

_WIDTHS = list_of(integer(ge=1, le=100_000), allowed="must be a list of 1 to 100 layer widths", at_most=100)

_REGISTRIES: dict[str, Mapping[str, Entry[Any]]] = {
    "activ": ACTIVATIONS,
    "loss": LOSSES,
    "optim": OPTIMIZERS,
    "data": DATASETS,
    "tracker": TRACKERS,
}

# Decides the trajectory, or what is recorded: part of the run's identity.
_IDENTITY: dict[str, Check] = {
    "lr": number(gt=0),
    "wd": number(ge=0),
    "mo": number(ge=0, lt=1),
    "bsz": integer(ge=1),
    "seed": integer(ge=0, le=2**63 - 1),
    "dtype": one_of("float32", "float64"),
    "eval_train": one_of("running", "full"),
}

# How far to train, where to write and what to watch: not part of it, nor is the tracker.
_CIRCUMSTANCES: dict[str, Check] = {
    "epochs": integer(ge=1, le=10**9),
    "out": text(),
    "checkpoint_every": integer(ge=1),
    "threads": optional(integer(ge=1)),
    "stats": flag(),
}


@dataclass(frozen=True)
class Choice:
    """A group's chosen entry: its name in the registry and its options."""

    name: str
    options: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


@dataclass(frozen=True)
class RunConfig:
    """A checked configuration of one training run; conf/config.yaml explains each field."""

    hidden: tuple[int, ...]
    init_std: float
    activ: Choice
    loss: Choice
    optim: Choice
    data: Choice
    lr: float
    wd: float
    mo: float
    bsz: int
    seed: int
    dtype: str
    eval_train: str
    epochs: int
    out: Path
    checkpoint_every: int
    threads: int | None
    stats: bool
    tracker: Choice

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Check a nested mapping as conf/ composes it.

        Raises:
            InputError: names the field, the value and what is allowed.
        """
        checks: dict[str, Check] = {"model": _check_model}
        checks |= dict.fromkeys(_REGISTRIES, _check_choice)
        checks |= _IDENTITY | _CIRCUMSTANCES
        plain = fields(checks, "", values)
        model = plain.pop("model")
        plain["out"] = Path(plain["out"])
        require(plain["tracker"].name)
        return cls(hidden=tuple(model["hidden"]), init_std=model["init_std"], **plain)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the trajectory, in plain types; ``epochs`` and paths are not part of it.

        Data are represented by their checksums: a moved file is the same run, a changed one is not.

        Raises:
            InputError: the data's files are missing or unreadable.
        """
        data = self.data.as_dict()
        data.pop("path", None)
        if not self.data.options["holdout"]:
            data.pop("holdout_seed")  # decides nothing
        data["checksums"] = source(self.data.name, self.data.options).checksums()
        optim = self.optim.as_dict() | {"lr": self.lr, "wd": self.wd, "mo": self.mo}
        return {
            "model": {"hidden": list(self.hidden), "init_std": self.init_std},
            "activ": self.activ.as_dict(),
            "loss": self.loss.as_dict(),
            "optim": optim,
            "data": data,
            "bsz": self.bsz,
            "seed": self.seed,
            "dtype": self.dtype,
            "eval_train": self.eval_train,
        }

    @cached_property
    def run_id(self) -> str:
        """``relu-ce-360-1a2b3c4d5e``: readable up to the last dash, unique by the SHA-256 after it."""
        widths = "x".join(map(str, self.hidden))
        if len(widths) > 40:
            widths = f"{len(self.hidden)}layers"
        return f"{self.activ.name}-{self.loss.name}-{widths}-{digest(self.identity)[:10]}"


def network_parts(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The checked fields of a network's stored identity: ``model``, ``activ``, ``loss`` and ``dtype``.

    Raises:
        InputError: names the field.
    """
    checks: dict[str, Check] = {
        "model": _check_model,
        "activ": _check_choice,
        "loss": _check_choice,
        "dtype": _IDENTITY["dtype"],
    }
    return fields(checks, "", {key: identity[key] for key in checks if key in identity})


def _check_model(field: str, value: object) -> dict[str, Any]:
    return fields({"hidden": _WIDTHS, "init_std": number(ge=0)}, field + ".", value)


def _check_choice(group: str, value: object) -> Choice:
    """An entry of the group's registry with its own options."""
    registry = _REGISTRIES[group]
    name = value.get("name") if isinstance(value, Mapping) else value
    name = one_of(*registry)(group, name)
    options = fields({"name": text(), **registry[name].options}, group + ".", value)
    options.pop("name")
    return Choice(name, options)
