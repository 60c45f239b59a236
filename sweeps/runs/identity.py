"""A run's identity: its configuration in canonical form, and its digest."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"optim": {"lr": 0.1}}`` as ``{"optim.lr": 0.1}``; the data's checksums become one short word."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key == "checksums":
            flat[f"{prefix}{key}"] = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]
        elif isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def digest(identity: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON (sorted keys, shortest floats) of an identity, in hex."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
