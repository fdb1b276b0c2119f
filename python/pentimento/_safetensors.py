"""The file format of adapters, between bytes and arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ._errors import BadFileError, argument

_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "U32": "<u4", "U64": "<u8"}


def arrays(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a safetensors file by name, copies of their own. bf16, which numpy has not, is not read."""
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        listed: dict[str, Any] = json.loads(data[8:start])
        listed.pop("__metadata__", None)
        return {name: _array(data, start, entry) for name, entry in listed.items()}
    except (ValueError, KeyError, TypeError) as e:
        raise BadFileError(f"safetensors: expected tensors that numpy has types for, found {e!r}") from e


def _array(data: bytes, start: int, entry: dict[str, Any]) -> npt.NDArray[Any]:
    begin, end = entry["data_offsets"]
    return np.frombuffer(data[start + begin : start + end], _KINDS[entry["dtype"]]).reshape(entry["shape"]).copy()


def packed(tensors: Mapping[str, object]) -> bytes:
    """The bytes of a safetensors file of these tensors."""
    listed: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    end = 0
    names = {np.dtype(kind): name for name, kind in _KINDS.items()}
    for name, tensor in tensors.items():
        values = np.asarray(tensor)
        kind = names.get(values.dtype.newbyteorder("<"))
        if kind is None:
            raise argument(f"adapter, {name}", "numbers of a type that safetensors has", values.dtype.name)
        parts.append(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
        begin, end = end, end + len(parts[-1])
        listed[str(name)] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [begin, end]}
    head = json.dumps(listed).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + b"".join(parts)
