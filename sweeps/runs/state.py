"""A program's state as plain data: what a checkpoint holds of it, without pickle.

    capture   state → tree of mappings, lists, numbers, texts and arrays
    restore   the same tree back into the state, in place
    encode    tree → JSON and named arrays, as a checkpoint keeps them; decode is the way back

State is a mapping (or list) of parts. A part is whatever has ``state_dict`` and ``load_state_dict``, an array (restored
in place), a random generator (Python, NumPy, PyTorch), a pair of functions ``(save, load)``, a plain value in a mapping
(replaced), or again a mapping or list of parts.
"""

import json
import random
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.runs.errors import InputError

Arrays = dict[str, NDArray[Any]]

_GENERATORS = ("python", "numpy", "torch")


def capture(state: Any, path: str = "state") -> Any:
    """The state as a tree.

    Raises:
        InputError: a part cannot be saved without pickle; names it.
    """
    if hasattr(state, "state_dict"):
        return state.state_dict()
    if isinstance(state, np.random.Generator):
        return state.bit_generator.state
    if isinstance(state, random.Random):
        return state.getstate()
    if _is_torch_generator(state):
        return state.get_state()
    if _is_pair(state):
        return state[0]()
    if isinstance(state, Mapping):
        return {key: capture(part, f"{path}.{key}") for key, part in state.items()}
    if isinstance(state, (list, tuple)):
        return [capture(part, f"{path}[{i}]") for i, part in enumerate(state)]
    if _is_leaf(state):
        return state
    raise InputError(path, f"a {type(state).__name__}", "cannot be saved without pickle; give (save, load) functions")


def restore(state: Any, tree: Any, path: str = "state") -> None:
    """Put a captured tree back.

    Raises:
        InputError: a part is of another kind or shape than when it was saved; names it.
    """
    try:
        _restore(state, tree, path)
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise InputError(path, "the checkpoint's", f"cannot be restored: {reason[0]}") from error


def _restore(state: Any, tree: Any, path: str) -> None:
    if hasattr(state, "load_state_dict"):
        state.load_state_dict(tree)
    elif isinstance(state, np.random.Generator):
        state.bit_generator.state = tree
    elif isinstance(state, random.Random):
        state.setstate(_tuples(tree))
    elif _is_torch_generator(state):
        state.set_state(tree)
    elif _is_pair(state):
        state[1](tree)
    elif isinstance(state, np.ndarray):
        _same_array(path, state, tree)
        state[...] = tree
    elif isinstance(state, Mapping):
        _same_keys(path, state.keys(), tree)
        for key, part in state.items():
            _replace_or_restore(state, key, part, tree[key], f"{path}.{key}")
    elif isinstance(state, list):
        if not isinstance(tree, list) or len(tree) != len(state):
            raise InputError(path, f"a list of {len(state)}", "is not what the checkpoint holds")
        for i, part in enumerate(state):
            _replace_or_restore(state, i, part, tree[i], f"{path}[{i}]")
    else:
        raise InputError(path, f"a {type(state).__name__}", "cannot be restored in place; put it into a mapping")


def _replace_or_restore(parent: Any, key: Any, part: Any, tree: Any, path: str) -> None:
    """Arrays of NumPy are filled; what cannot be changed in place (numbers, JAX arrays) is replaced in its mapping."""
    is_plain = _is_leaf(part) and not isinstance(part, np.ndarray)
    if is_plain and isinstance(parent, (MutableMapping, list)):
        if hasattr(part, "shape"):
            _same_array(path, part, tree)
        parent[key] = _like(part, tree)
    else:
        restore(part, tree, path)


def _like(part: Any, value: Any) -> Any:
    """An array of the kind that the part is: NumPy's becomes JAX's again."""
    module = type(part).__module__
    if isinstance(value, np.ndarray) and module.startswith(("jax", "jaxlib")):
        import jax.numpy

        return jax.numpy.asarray(value)
    return value


def _same_array(path: str, array: Any, saved: Any) -> None:
    found = f"{getattr(saved, 'dtype', type(saved).__name__)}{list(getattr(saved, 'shape', ()))}"
    wanted = f"{array.dtype}{list(array.shape)}"
    if found != wanted:
        raise InputError(path, wanted, f"is not what the checkpoint holds, {found}")


def _same_keys(path: str, keys: Any, tree: Any) -> None:
    saved = set(tree) if isinstance(tree, Mapping) else set()
    if saved != set(keys):
        raise InputError(
            path, ", ".join(map(str, keys)), f"is not what the checkpoint holds, {', '.join(map(str, saved))}"
        )


def _is_pair(state: Any) -> bool:
    return isinstance(state, tuple) and len(state) == 2 and all(map(callable, state))


def _is_torch_generator(state: Any) -> bool:
    return type(state).__module__.split(".")[0] in ("torch",) and hasattr(state, "get_state")


def _is_leaf(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, (bool, int, float, str, bytes, np.generic))
        or (hasattr(value, "shape") and hasattr(value, "dtype"))
    )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


# ------------------------------------------------------------------------------------------------- global generators


def capture_generators(names: tuple[str, ...]) -> dict[str, Any]:
    """The global generators' states, of those that are asked for."""
    states: dict[str, Any] = {}
    for name in names:
        if name == "python":
            states[name] = random.getstate()
        elif name == "numpy":
            kind, keys, *rest = np.random.get_state()  # noqa: NPY002, the global one is asked for
            states[name] = [kind, keys, *rest]
        elif name == "torch":
            import torch

            states[name] = torch.get_rng_state()
        else:
            raise InputError("rng", name, f"must be of {', '.join(_GENERATORS)}")
    return states


def restore_generators(states: Mapping[str, Any]) -> None:
    if "python" in states:
        random.setstate(_tuples(states["python"]))
    if "numpy" in states:
        np.random.set_state(tuple(states["numpy"]))  # noqa: NPY002
    if "torch" in states:
        import torch

        torch.set_rng_state(states["torch"])


# ------------------------------------------------------------------------------------------------------ JSON and arrays


def encode(tree: Any) -> tuple[bytes, Arrays]:
    """JSON, in which arrays stand by name, and the arrays. A flat mapping of arrays keeps its own names.

    Raises:
        InputError: something in it has no plain form; names it.
    """
    arrays: Arrays = {}
    spec = _encode(tree, "", arrays)
    return json.dumps(spec, separators=(",", ":")).encode(), arrays


def _encode(value: Any, path: str, arrays: Arrays) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind not in "biufcU":
            raise InputError(path or "state", f"an array of {value.dtype}", "cannot be saved")
        return {"array": _add(arrays, path, np.asarray(value))}
    if isinstance(value, bytes):
        return {"bytes": _add(arrays, path, np.frombuffer(value, np.uint8))}
    module = type(value).__module__.split(".")[0]
    if module == "torch" and hasattr(value, "detach"):
        return _encode_tensor(value, path, arrays)
    if hasattr(value, "shape") and hasattr(value, "dtype"):  # JAX's and others'
        return {"array": _add(arrays, path, np.asarray(value))}
    if isinstance(value, Mapping):
        pairs = list(value.items())
        if all(isinstance(key, str) for key, _ in pairs):
            return {"map": {key: _encode(item, _join(path, key), arrays) for key, item in pairs}}
        if all(isinstance(key, int) for key, _ in pairs):
            return {"intmap": [[key, _encode(item, _join(path, key), arrays)] for key, item in pairs]}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        items = [_encode(item, _join(path, i), arrays) for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    raise InputError(path or "state", f"a {type(value).__name__}", "cannot be saved without pickle; give (save, load)")


def _encode_tensor(tensor: Any, path: str, arrays: Arrays) -> Any:
    import torch

    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:  # NumPy has no such type
        return {"tensor": _add(arrays, path, plain.view(torch.int16).numpy()), "dtype": "bfloat16"}
    return {"tensor": _add(arrays, path, plain.numpy())}


def _add(arrays: Arrays, path: str, array: NDArray[Any]) -> str:
    name = path or "value"
    if name in arrays or name.split("/")[0] in RESERVED:
        raise InputError("state", name, "is a name that the checkpoint uses itself")
    arrays[name] = array
    return name


def _join(path: str, key: object) -> str:
    text = str(key).replace("/", "_")
    return f"{path}/{text}" if path else text


RESERVED = ("history", "columns", "state.json")


def decode(spec: bytes, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The way back from :func:`encode`.

    Raises:
        ValueError, LookupError, TypeError: it is none of its.
    """
    return _decode(json.loads(spec), arrays)


def _decode(spec: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(spec, list):
        return [_decode(item, arrays) for item in spec]
    if not isinstance(spec, dict):
        return spec
    kind, value = next(iter(spec.items()))
    match kind:
        case "map":
            return {key: _decode(item, arrays) for key, item in value.items()}
        case "intmap":
            return {key: _decode(item, arrays) for key, item in value}
        case "tuple":
            return tuple(_decode(item, arrays) for item in value)
        case "float":
            return float.fromhex(value)
        case "array":
            return arrays[value]
        case "bytes":
            return arrays[value].tobytes()
        case "tensor":
            import torch

            tensor = torch.from_numpy(np.array(arrays[value]))
            return tensor.view(torch.bfloat16) if spec.get("dtype") == "bfloat16" else tensor
    raise ValueError(f"unknown kind {kind}")


def names(spec: bytes) -> Iterator[str]:
    """The arrays that a spec refers to."""

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            kind, inner = next(iter(value.items()), ("", {}))
            if kind in ("array", "bytes", "tensor"):
                yield str(inner)
            elif kind == "map":
                for item in inner.values():
                    yield from walk(item)
            elif kind == "intmap":
                for _, item in inner:
                    yield from walk(item)
            elif kind == "tuple":
                yield from walk(inner)
        elif isinstance(value, list):
            for item in value:
                yield from walk(item)

    yield from walk(json.loads(spec))
