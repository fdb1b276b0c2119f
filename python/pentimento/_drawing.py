"""Images that are drawn: by a model with adapters, or by a training in the middle."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Union

import numpy as np
import numpy.typing as npt

from ._c import Handle, call, check, ffi, lib, optional, real, text, whole
from ._context import Model, Path
from ._errors import Status, argument
from ._images import Kind, borrowed, room
from ._job import Job
from ._safetensors import packed
from ._settings import Settings, Value, chosen

if TYPE_CHECKING:
    from typing_extensions import Unpack

Seed = Union[int, Iterable[int]]
Size = Union[int, tuple[int, int]]


class How(TypedDict, total=False):
    """How images are drawn; what is left out, or ``None``, is as the library has it."""

    negative: str | None
    """What guidance leads away from."""
    seed: Seed
    """A number, from which they are counted, or one for each image; 0 without it. Equal parameters give equal images on one device."""
    steps: int | None
    """Sampling steps, 1 to 1000; 28 without it."""
    guidance: float | None
    """Classifier-free guidance: 4.5 without it, 1 turns it off."""
    size: Size | None
    """Pixels, a side or (width, height); the model's own without it."""
    batch: int | None
    """Images sampled at once, 1 without it: more are faster and take more memory."""
    preview: int
    """Sampling steps from one preview to the next; 0 without it: none. Not from trainers."""


Adapter = Union[Path, bytes, Mapping[str, npt.NDArray[Any]]]


class Drawing(Job):
    """A drawing under way or over."""

    def __init__(self, owner: Handle, function: Any, drawing: Any, count: int) -> None:
        super().__init__(owner, function, drawing)
        #: How many images are drawn.
        self.count = count

    def image(self, index: int, dtype: Kind = "uint8") -> npt.NDArray[Any] | None:
        """The image of an index, ``(height, width, 3)``: uint8, or float32 or float16 of 0 to 1, all sRGB. ``None`` before it is there."""
        return self._fetched(lambda image: lib.pmt_job_image(self._c, whole(index, "index"), image), dtype)

    def preview(self, dtype: Kind = "uint8") -> npt.NDArray[Any] | None:
        """What the first image under way would be if its last step's direction held; as :meth:`image`."""
        return self._fetched(lambda image: lib.pmt_job_preview(self._c, image), dtype)

    def images(self, dtype: Kind = "uint8") -> npt.NDArray[Any]:
        """All images, ``(count, height, width, 3)``, as :meth:`image`. Waits, as :meth:`wait`."""
        self.wait()
        return np.stack([each for each in (self.image(i, dtype) for i in range(self.count)) if each is not None])

    def _fetched(self, fetch: Any, dtype: Kind) -> npt.NDArray[Any] | None:
        width, height = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        status = lib.pmt_job_image_size(self._c, width, height)
        if status == Status.OK:
            pixels = room(width[0], height[0], dtype)
            image, kept = borrowed(pixels, writable=True)
            status = fetch(image)
            ffi.release(kept)
            if status == Status.OK:
                return pixels
        if status == Status.PENDING:
            return None
        check(self._messages, status)
        return None


def texts(prompts: str | Sequence[str]) -> list[Any]:
    """Prompts for C."""
    each = [prompts] if isinstance(prompts, str) else list(prompts)
    if not each:
        raise argument("prompts", "one or more", "none")
    return [text(prompt, f"prompt {i + 1}") for i, prompt in enumerate(each)]


def seeds(seed: Seed, count: int) -> Any:
    """A seed for each image: as they are given, or counted from one."""
    each = list(seed) if isinstance(seed, Iterable) else [whole(seed, "seed", 64) + i for i in range(count)]
    if len(each) != count:
        raise argument("seed", f"one number, or {count}, one for each prompt", len(each))
    return ffi.new("uint64_t[]", [whole(one, "seed", 64) for one in each])


def begin(owner: Handle, function: Any, prompts: str | Sequence[str], how: How) -> Drawing:
    """Begins a drawing; see :meth:`Pipeline.draw`."""
    unknown = set(how) - set(How.__annotations__)
    if unknown:
        raise TypeError(f"draw: expected {', '.join(How.__annotations__)}, found {', '.join(sorted(unknown))}")
    each = texts(prompts)
    drawing = ffi.new("pmt_drawing *")
    call(None, lib.pmt_drawing_default, drawing, ffi.sizeof("pmt_drawing"))
    # Kept until the library has copied them.
    pointers, numbers, leads = (
        ffi.new("char *[]", each),
        seeds(how.get("seed", 0), len(each)),
        optional(how.get("negative"), "negative"),
    )
    drawing.prompts, drawing.seeds, drawing.negative, drawing.count = pointers, numbers, leads, whole(len(each), "prompts")
    steps, batch, preview = how.get("steps"), how.get("batch"), how.get("preview")
    for name, value in (("steps", steps), ("batch", batch), ("preview", preview)):
        if value is not None:
            setattr(drawing, name, whole(value, name))
    guidance, size = how.get("guidance"), how.get("size")
    if guidance is not None:
        drawing.guidance = real(guidance, "guidance")
    if size is not None:
        sides = list(size) if isinstance(size, Iterable) else [size, size]
        if len(sides) != 2:
            raise argument("size", "a side, or (width, height)", repr(size))
        drawing.width, drawing.height = whole(sides[0], "width"), whole(sides[1], "height")
    return Drawing(owner, function, drawing, len(each))


class Pipeline(Handle):
    """A model to draw with, with or without adapters. Weights are read with the first drawing.

    Of ``settings`` the ones called ``base``, ``stream`` and ``text_tokens`` count.
    """

    _free = "pmt_pipeline_free"

    def __init__(self, model: Model | Path, settings: Settings | Mapping[str, Value] | None = None) -> None:
        #: Its model.
        self.model = model if isinstance(model, Model) else Model(model)
        super().__init__(self.model._messages)
        given = chosen(settings, self.model.context)
        self._make(lib.pmt_pipeline_new, self.model._c, given._c if given is not None else ffi.NULL)

    @property
    def resolution(self) -> int:
        """The side, in pixels, of the square images that the model was trained on."""
        side = ffi.new("uint32_t *")
        self._call(lib.pmt_pipeline_resolution, side)
        return int(side[0])

    def attach(self, adapter: Adapter, strength: float = 1.0) -> int:
        """Attaches a LoRA file, a folder with one, a file's bytes, or matrices by name as :meth:`Trainer.adapter` gives them, from the
        next drawing on; gives its number. Adapters add up.

        ``strength``: 1 is as trained, 0 nothing, a negative one takes away what was learnt. Raises :class:`ArgumentError` while a
        drawing is under way, :class:`BadFileError` for one that does not fit the model in every part.
        """
        number, strength = ffi.new("uint32_t *"), real(strength, "strength")
        if isinstance(adapter, (str, os.PathLike)):
            self._wait(lib.pmt_pipeline_attach, text(adapter, "adapter"), strength, number)
        else:
            data = data_of(packed(adapter) if isinstance(adapter, Mapping) else adapter, "adapter")
            self._wait(lib.pmt_pipeline_attach_bytes, data, len(data), strength, number)
        return int(number[0])

    def set_strength(self, number: int, strength: float) -> None:
        """Gives an attached adapter another strength, from the next drawing on."""
        self._wait(lib.pmt_pipeline_set_strength, whole(number, "number"), real(strength, "strength"))

    def detach(self, number: int) -> None:
        """Takes an adapter away, from the next drawing on."""
        self._wait(lib.pmt_pipeline_detach, whole(number, "number"))

    def unload(self) -> None:
        """Frees what the device holds of it until the next drawing, which brings it back."""
        self._wait(lib.pmt_pipeline_unload)

    def draw(self, prompts: str | Sequence[str], **how: Unpack[How]) -> Drawing:
        """Begins a drawing of an image for each prompt, and returns at once; ``how``: :class:`How`."""
        return begin(self, lib.pmt_pipeline_draw, prompts, how)

    def generate(self, prompts: str | Sequence[str], *, dtype: Kind = "uint8", **how: Unpack[How]) -> npt.NDArray[Any]:
        """Draws an image for each prompt, ``(count, height, width, 3)``; ``how``: :class:`How`. Ctrl-C stops it."""
        with self.draw(prompts, **how) as drawing:
            return drawing.images(dtype)


def data_of(data: object, what: str) -> Any:
    """Bytes for C, which stay where they are as long as what is returned lives."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise argument(what, "a path, or a file's bytes", type(data).__name__)
    return ffi.from_buffer(bytes(data))
