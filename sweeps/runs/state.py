"""A program's state as plain data: what a checkpoint holds of it, without pickle.

    capture   state → tree of mappings, lists, numbers, texts and arrays
    restore   the same tree back into the state, in place
    encode    tree → JSON and named arrays, as a checkpoint keeps them; decode is the way back

State is a mapping (or list) of parts. A part has ``state_dict`` and ``load_state_dict``, or is an array (restored
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


def check(state: Any, path: str = "state") -> None:
    """Check before the first epoch that it can be restored in place.

    Raises:
        InputError: it cannot be changed in place, like numbers, tuples and JAX arrays.
    """
    in_place = (MutableMapping, list, np.random.Generator, random.Random)
    if isinstance(state, np.ndarray):
        if not state.flags.writeable:
            raise InputError(path, "a read-only array", "cannot be restored in place; put it into a mapping")
    elif not (isinstance(state, in_place) or _has_state_dict(state) or _is_of_torch(state) or _is_pair(state)):
        raise InputError(path, f"a {type(state).__name__}", "cannot be restored in place; put it into a mapping")


def capture(state: Any, path: str = "state") -> Any:
    """The state as a tree.

    Raises:
        InputError: a part cannot be saved without pickle; names it.
    """
    if _has_state_dict(state):
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


def restore(state: Any, tree: Any, path: str = "state") -> Any:
    """Put a captured tree back, in place where that can be; returns the state, or what takes its place.

    Raises:
        InputError: a part is of another kind or shape than when it was saved; names it.
    """
    try:
        return _restored(state, tree, path)
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(path, "the checkpoint's", f"cannot be restored: {reason[:500]}") from error


def _restored(state: Any, tree: Any, path: str) -> Any:
    if _has_state_dict(state):
        state.load_state_dict(tree)
    elif isinstance(state, np.random.Generator):
        state.bit_generator.state = tree
    elif isinstance(state, random.Random):
        state.setstate(_tuples(tree))
    elif _is_torch_generator(state):
        state.set_state(tree)
    elif _is_pair(state):
        state[1](tree)
    elif isinstance(state, Mapping):
        return _restored_mapping(state, tree, path)
    elif isinstance(state, (list, tuple)):
        return _restored_sequence(state, tree, path)
    elif hasattr(state, "shape") and hasattr(state, "dtype"):
        return _restored_array(state, tree, path)
    else:  # a number, a text, None
        return tree
    return state


def _restored_mapping(state: Mapping[Any, Any], tree: Any, path: str) -> Any:
    """An empty one takes anything, since it is filled during training."""
    saved = tree if isinstance(tree, Mapping) else {}
    if state and saved.keys() != state.keys():
        odd = ", ".join(str(key) for key in [*state, *saved] if (key in state) != (key in saved))
        raise InputError(
            path,
            f"with {', '.join(map(str, state))}",
            f"is not what the checkpoint holds: {odd or type(tree).__name__}",
        )
    parts = {key: restore(state[key], part, f"{path}.{key}") if state else part for key, part in saved.items()}
    if not isinstance(state, MutableMapping):
        return type(state)(parts)  # type: ignore[call-arg]
    for key, part in parts.items():
        if key not in state or state[key] is not part:
            state[key] = part
    return state


def _restored_sequence(state: Any, tree: Any, path: str) -> Any:
    """A list of plain values may have grown since it began."""
    if not isinstance(tree, list):
        raise InputError(
            path, f"a {type(state).__name__}", f"is not what the checkpoint holds, a {type(tree).__name__}"
        )
    if len(tree) == len(state):
        parts = [restore(part, saved, f"{path}[{i}]") for i, (part, saved) in enumerate(zip(state, tree, strict=True))]
    elif all(_is_leaf(part) and not hasattr(part, "shape") for part in state):
        parts = tree
    else:
        raise InputError(path, f"{len(state)} parts", f"is not what the checkpoint holds, {len(tree)}")
    if isinstance(state, list):
        state[:] = parts
        return state
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def _restored_array(array: Any, saved: Any, path: str) -> Any:
    """NumPy's and PyTorch's are filled; of others, and of NumPy's scalars, there is a new one of the same kind."""
    found = f"{getattr(saved, 'dtype', type(saved).__name__)}{list(getattr(saved, 'shape', ()))}"
    wanted = f"{array.dtype}{list(array.shape)}"
    if found != wanted:
        raise InputError(path, wanted, f"is not what the checkpoint holds, {found}")
    if isinstance(array, np.ndarray) and array.flags.writeable:
        array[...] = saved
        return array
    if _is_of_torch(array):
        array.data.copy_(saved)
        return array
    if isinstance(array, np.generic):
        return saved[()]
    if type(array).__module__.startswith(("jax", "jaxlib")):
        import jax.numpy

        return jax.numpy.asarray(saved)
    return saved


def _has_state_dict(state: Any) -> bool:
    return hasattr(state, "state_dict") and hasattr(state, "load_state_dict")


def _is_pair(state: Any) -> bool:
    return isinstance(state, tuple) and len(state) == 2 and all(map(callable, state))


def _is_of_torch(state: Any) -> bool:
    return type(state).__module__.split(".")[0] == "torch"


def _is_torch_generator(state: Any) -> bool:
    return _is_of_torch(state) and hasattr(state, "get_state")


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
    """JSON that names the arrays, and the arrays. A flat mapping of arrays keeps its own names.

    Raises:
        InputError: something in it has no plain form; names it.
    """
    arrays: Arrays = {}
    spec = _encode(tree, "", arrays)
    return json.dumps(spec, separators=(",", ":")).encode(), arrays


def _encode(value: Any, path: str, arrays: Arrays) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and not isinstance(value, np.generic):
        return {"float": value.hex()}
    if isinstance(value, bytes):
        return {"bytes": _add(arrays, path, np.frombuffer(value, np.uint8))}
    module = type(value).__module__.split(".")[0]
    if module == "torch" and hasattr(value, "detach"):
        return _encode_tensor(value, path, arrays)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return {"array": _add(arrays, path, _array(value, path))}
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


def _array(value: Any, path: str) -> NDArray[Any]:
    """NumPy's own, of JAX's and others."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(path or "state", f"an array of {value.dtype}", f"cannot be saved ({error})") from error
    if array.dtype.kind not in "biufcU":
        raise InputError(path or "state", f"an array of {array.dtype}", "cannot be saved; give (save, load) functions")
    return array


def _encode_tensor(tensor: Any, path: str, arrays: Arrays) -> Any:
    import torch

    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:  # NumPy has no such type
        return {"tensor": _add(arrays, path, plain.view(torch.int16).numpy()), "dtype": "bfloat16"}
    return {"tensor": _add(arrays, path, plain.numpy())}


def _add(arrays: Arrays, path: str, array: NDArray[Any]) -> str:
    """Under its path, or one that no other member of the archive has."""
    name = f"state/{path or 'value'}" if path in RESERVED else path
    while name in arrays:
        name += "_"
    arrays[name] = array
    return name


def _join(path: str, key: object) -> str:
    text = "".join(c if c.isprintable() and c != "/" else "_" for c in str(key)[:100])
    return f"{path}/{text}" if path else text


RESERVED = ("", "history", "columns", "missing", "state.json", "file", "allow_pickle")
"""Names of the checkpoint's own, and of :func:`numpy.savez`'s arguments."""


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
