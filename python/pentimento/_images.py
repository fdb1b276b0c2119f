"""Pixels between numpy, Pillow and C."""

from __future__ import annotations

import sys
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from ._c import ffi, lib
from ._errors import argument

Kind = Union[str, type, "np.dtype[Any]"]

_FORMATS = {
    ("uint8", 3): lib.PMT_FORMAT_RGB8,
    ("uint8", 4): lib.PMT_FORMAT_RGBA8,
    ("float16", 3): lib.PMT_FORMAT_RGB16F,
    ("float16", 4): lib.PMT_FORMAT_RGBA16F,
    ("float32", 3): lib.PMT_FORMAT_RGB32F,
    ("float32", 4): lib.PMT_FORMAT_RGBA32F,
}


def is_pillow(value: object) -> bool:
    """Whether it is an image of Pillow's, which is not loaded for that."""
    module: Any = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def _of_pillow(image: Any) -> npt.NDArray[Any]:
    """Upright, and with alpha where it is transparent."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image) or image
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if transparent else "RGB"))


def array(value: object, what: str) -> npt.NDArray[Any]:
    """An image as numbers that lie side by side, ``(height, width, 3 or 4)``.

    Grey ``(height, width)`` becomes colour, float64 becomes float32. Numbers that are no colours raise instead of being cut off.
    """
    pixels: npt.NDArray[Any] = np.asarray(_of_pillow(value) if is_pillow(value) else value)
    if pixels.dtype.kind == "f":  # in this machine's order of bytes
        pixels = pixels.astype(np.float32 if pixels.dtype.itemsize == 8 else pixels.dtype.newbyteorder("="), copy=False)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    found = f"{pixels.dtype.name} {pixels.shape}"
    if pixels.ndim != 3 or (pixels.dtype.name, pixels.shape[2]) not in _FORMATS or 0 in pixels.shape:
        raise argument(what, "(height, width, 3 or 4) uint8, float16 or float32", found)
    if pixels.dtype.kind == "f" and not (pixels.min() >= 0 and pixels.max() <= 1.001):
        raise argument(what, "float values of 0 to 1", f"{pixels.min()} to {pixels.max()}; divide by 255?")
    return np.ascontiguousarray(pixels)


def borrowed(pixels: npt.NDArray[Any], writable: bool = False) -> tuple[Any, Any]:
    """An image of C's over an array that lies side by side, and what keeps the array where it is meanwhile."""
    buffer = ffi.from_buffer("uint8_t[]", pixels, require_writable=writable)
    image = ffi.new("pmt_image *")
    image.pixels, image.bytes = buffer, pixels.nbytes
    image.height, image.width = pixels.shape[:2]
    image.format = _FORMATS[(pixels.dtype.name, pixels.shape[2])]
    return image, buffer


def room(width: int, height: int, dtype: Kind) -> npt.NDArray[Any]:
    """An array for an image."""
    try:
        kind = np.dtype(dtype)
    except (TypeError, ValueError):
        kind = np.dtype(object)
    if (kind.name, 3) not in _FORMATS:
        raise argument("dtype", "uint8, float16 or float32", repr(dtype))
    return np.zeros((height, width, 3), kind)
