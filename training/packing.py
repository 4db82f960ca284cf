"""A nested state as something `torch.load(weights_only=True)` gives back, and its big arrays apart.

Allowed in a state: dict (keys str or int), list, tuple, None, bool, int of any size, float, str,
torch tensors, numpy arrays and numbers of any plain dtype, `BlockArray`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from memory.blocks import BlockArray

_NDARRAY, _BLOCKS = "__ndarray__", "__blocks__"
_PLAIN = (type(None), bool, int, float, str)


def pack(state: Any) -> tuple[Any, dict[str, BlockArray]]:
    """The state with numpy arrays as tensors and `BlockArray`s as stubs, and these by name.

    A name is `<first key>/<other keys joined by dots>`: state["replay"]["frames"] becomes
    "replay/frames". Raises TypeError, naming the place, for anything that is not allowed.
    """
    arrays: dict[str, BlockArray] = {}
    return _pack(state, (), arrays), arrays


def unpack(packed: Any, arrays: dict[str, BlockArray]) -> Any:
    """The inverse of `pack`."""
    if isinstance(packed, dict):
        if _NDARRAY in packed:
            return _to_numpy(packed)
        if _BLOCKS in packed:
            return arrays[packed[_BLOCKS]]
        return {k: unpack(v, arrays) for k, v in packed.items()}
    if isinstance(packed, (list, tuple)):
        return type(packed)(unpack(v, arrays) for v in packed)
    return packed


def empty_arrays(packed: Any) -> dict[str, BlockArray]:
    """The block arrays that a packed state speaks of, by name, all zero, versions as saved."""
    found: dict[str, BlockArray] = {}
    if isinstance(packed, dict) and _BLOCKS in packed:
        zeros = np.zeros(packed["shape"], packed["dtype"])
        array = BlockArray(zeros, packed["block_rows"], unclaimed=True)
        array.versions[:] = packed["versions"]
        found[packed[_BLOCKS]] = array
    elif isinstance(packed, dict):
        for value in packed.values():
            found |= empty_arrays(value)
    elif isinstance(packed, (list, tuple)):
        for value in packed:
            found |= empty_arrays(value)
    return found


def _pack(value: Any, path: tuple[Any, ...], arrays: dict[str, BlockArray]) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        return _alone(value.detach().cpu())
    if isinstance(value, BlockArray):
        name = _name(path)
        arrays[name] = value
        return {
            _BLOCKS: name,
            "shape": list(value.array.shape),
            "dtype": value.array.dtype.str,
            "block_rows": value.block_rows,
            "versions": value.versions.tolist(),
        }
    if isinstance(value, (np.ndarray, np.generic)):
        return _from_numpy(value, path)
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int) or key in (_NDARRAY, _BLOCKS):
                raise TypeError(f"state{_show(path)}: the key {key!r} cannot be saved")
        return {k: _pack(v, (*path, k), arrays) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_pack(v, (*path, i), arrays) for i, v in enumerate(value))
    raise TypeError(f"state{_show(path)}: a {type(value).__name__} cannot be saved")


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """Not a view into something larger, which would be saved as a whole."""
    whole = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
    return tensor if whole else tensor.clone()


def _from_numpy(value: Any, path: tuple[Any, ...]) -> dict[str, Any]:
    array = np.asarray(value)
    if array.dtype.hasobject or array.dtype.fields is not None:
        raise TypeError(f"state{_show(path)}: an array of {array.dtype} cannot be saved")
    return {
        _NDARRAY: torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8)
        if array.nbytes
        else torch.zeros(0, dtype=torch.uint8),
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "scalar": isinstance(value, np.generic),
    }


def _to_numpy(packed: dict[str, Any]) -> Any:
    flat = packed[_NDARRAY].numpy().view(np.dtype(packed["dtype"]))
    array = flat.reshape(packed["shape"]).copy()
    return array[()] if packed["scalar"] else array


def _name(path: tuple[Any, ...]) -> str:
    parts = [str(p) for p in path]
    if len(parts) < 2 or not all(re.fullmatch(r"\w[\w-]*", p) for p in parts):
        raise TypeError(f"state{_show(path)}: a block array needs two keys made of letters")
    return f"{parts[0]}/{'.'.join(parts[1:])}"


def _show(path: tuple[Any, ...]) -> str:
    return "".join(f"[{p!r}]" for p in path)
