"""Trainings."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

import numpy as np
import numpy.typing as npt

from ._c import Handle, ffi, fields, lib, optional, text, whole, written
from ._context import Model, Path
from ._drawing import Drawing, How, begin, data_of
from ._errors import argument
from ._images import Kind, array, borrowed, is_pillow
from ._job import Event, Job, Row
from ._safetensors import arrays
from ._settings import Settings, Value, chosen

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: A path of a file or folder, an image of Pillow's, or an array.
Image = Any
#: Makes pieces: what is shared, and how many there are, to the bytes of each.
Make = Callable[[bytes, int], Iterable[bytes]]
References = Union[Image, Iterable[Union[Image, tuple[Image, Optional[str]]]]]


class Estimate(NamedTuple):
    """What a training takes."""

    peak: int
    """Most bytes on the device at a time."""
    weights: int
    """Of these: weights, adapters and other parameters."""
    activations: int
    """Of these: values between kernels."""
    state: int
    """Bytes of a saved state, and of this machine's memory for it."""
    work_before: float
    """Floating-point operations of everything before the first iteration."""
    work_iteration: float
    """Floating-point operations of an iteration."""


class Trainer(Handle):
    """A training of a LoRA adapter on reference images.

    ``settings`` are :class:`Settings` or a dictionary of some, ``None`` for the recommended ones; ``reward`` is the folder of a DINOv2 or
    CLIP model, by default ``reward`` in the model's. References and prompts may be given here or added; without prompts the captions serve.

    Iterating trains, and gives a :class:`Row` for each iteration. The training is held while the loop's body runs; leaving the loop, by
    ``break``, an exception or Ctrl-C, stops the training after the piece of work in progress; iterating again goes on.

    >>> with Trainer("examples/models/icons", {"iterations": 20}, references="my/pictures") as trainer:
    ...     for row in trainer:
    ...         print(row["iteration"], row["reward"])
    ...     trainer.save_adapter("adapter.safetensors")
    """

    _free = "pmt_trainer_free"

    def __init__(
        self,
        model: Model | Path,
        settings: Settings | Mapping[str, Value] | None = None,
        *,
        reward: Path | None = None,
        references: References | None = None,
        prompts: Sequence[str] = (),
    ) -> None:
        #: Its model.
        self.model = model if isinstance(model, Model) else Model(model)
        super().__init__(self.model._messages)
        self._last: weakref.ref[Job] | None = None
        given = chosen(settings, self.model.context)
        pointer = given._c if given is not None else ffi.NULL
        self._make(lib.pmt_trainer_new, self.model._c, optional(reward, "reward"), pointer)
        if references is not None:
            self.add_references(references)
        for prompt in [prompts] if isinstance(prompts, str) else prompts:
            self.add_prompt(prompt)

    @property
    def resolution(self) -> tuple[int, int]:
        """The training's width and height, pixels."""
        width, height = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        self._call(lib.pmt_trainer_resolution, width, height)
        return int(width[0]), int(height[0])

    @property
    def job(self) -> Job | None:
        """The work of the last start, for as long as somebody holds it."""
        return self._last() if self._last is not None else None

    def add_reference(self, image: Image, caption: str | None = None) -> int:
        """Adds a reference image, before the training is started; gives how many images that were.

        An image is the path of a PNG, JPEG or WebP file, or of a folder of such, which have the captions beside them (``NAME.txt``,
        ``metadata.jsonl``) unless one is given; an image of Pillow's, whose EXIF orientation counts; or an array (height, width),
        (height, width, 3) or (height, width, 4), uint8 or floats of 0 to 1, sRGB. It may have any size: the settings ``fit`` and
        ``background`` say how it is brought to the training's. Copied.
        """
        words = optional(caption, "caption")
        if isinstance(image, (str, os.PathLike)):
            count = ffi.new("uint32_t *")
            self._wait(lib.pmt_trainer_add_references, text(image, "reference"), words, count)
            return int(count[0])
        pixels = array(image, "reference")
        held, kept = borrowed(pixels)
        self._call(lib.pmt_trainer_add_reference, held, words)
        ffi.release(kept)
        return 1

    def add_references(self, references: References) -> int:
        """Adds one image as in :meth:`add_reference`, or several, each alone or in a pair with its caption; an array
        (count, height, width, channels) is several. Gives how many images that were."""
        if isinstance(references, (str, os.PathLike)) or is_pillow(references):
            return self.add_reference(references)
        if isinstance(references, np.ndarray) and references.ndim != 4:
            return self.add_reference(references)
        if not isinstance(references, Iterable):
            raise argument("references", "paths, images or arrays", type(references).__name__)
        return sum(self.add_reference(*each) if isinstance(each, tuple) else self.add_reference(each) for each in references)

    def add_prompt(self, prompt: str) -> None:
        """Adds a prompt to draw from while training, before the training is started."""
        self._call(lib.pmt_trainer_add_prompt, text(prompt, "prompt"))

    def resume(self, state: Path | bytes) -> None:
        """Goes on, when started, with a training that was saved: a file, or its bytes. Model, settings, prompts and references must be
        the same, but for more iterations; a difference is told by name when it starts."""
        if isinstance(state, (str, os.PathLike)):
            self._wait(lib.pmt_trainer_resume, text(state, "state"))
        else:
            data = data_of(state, "state")
            self._wait(lib.pmt_trainer_resume_bytes, data, len(data))

    def estimate(self) -> Estimate:
        """What it would take, before it is started; with the setting ``memory``, within that. Opens the device; seconds."""
        estimate = ffi.new("pmt_estimate *")
        self._wait(lib.pmt_trainer_estimate, estimate, ffi.sizeof("pmt_estimate"))
        return Estimate(**fields(estimate[0]))

    def start(self) -> Job:
        """Starts it, or goes on after it was stopped, and returns at once; the job ends when all iterations are complete."""
        job = Job(self, lib.pmt_trainer_start)
        self._last = weakref.ref(job)
        return job

    def rows(self, progress: Callable[[Event], object] | None = None, make: Make | None = None) -> Iterator[Row]:
        """Trains, and gives what each iteration did, as iterating does; ``progress`` is called with every :class:`Event` on the way.

        After :meth:`spread`, ``make`` is called with bytes and a number of pieces whenever others are to make some: it gives the bytes that
        :meth:`work` of other trainers makes of them, for each piece in order, all at once or as they come.
        """
        job = self.start()
        try:
            for event in job.events():
                if progress is not None:
                    progress(event)
                if event.kind == "wanted":
                    if make is None:
                        raise argument("make", "a function, since this training was spread", "none")
                    missing = event.total
                    for piece, made in enumerate(make(self.shared(), event.total)):
                        missing = self.give(piece, made)
                    if missing:
                        raise argument("make", f"{event.total} pieces", f"{event.total - missing}")
                if event.metrics is not None:
                    job.pause()
                    yield event.metrics
                    job.resume()
            job.wait()
        finally:
            if not (job.closed or self.closed):
                job.stop()

    def spread(self, pieces: int) -> None:
        """Lets other trainers make rollouts and gradients, in up to so many pieces; to be called before the start. They have the same
        model, settings, prompts and references, in other processes or on other machines; bytes go between them: :meth:`rows` with
        ``make`` here, :meth:`work` there. Warm start, reward head, optimiser and looks stay here."""
        self._call(lib.pmt_trainer_spread, whole(pieces, "pieces"))

    def shared(self) -> bytes:
        """What others must know to make the pieces that are waited for: the adapter, and for gradients the pictures and the head."""
        return written(self._messages, lib.pmt_trainer_write_shared, self._c)

    def give(self, piece: int, made: bytes) -> int:
        """Takes in a piece, from 0, and gives how many are missing; with the last one the training goes on. What is not that piece is refused, and
        the training waits on; what was given already changes nothing."""
        missing, data = ffi.new("uint32_t *"), data_of(made, "made")
        self._wait(lib.pmt_trainer_give, whole(piece, "piece"), data, len(data), missing)
        return int(missing[0])

    def work(self, shared: bytes, piece: int) -> bytes:
        """Makes a piece, from 0, for another trainer whose :meth:`shared` was given. A trainer that works for others trains nothing of its own.
        A piece follows from the bytes alone, so one that is lost can be made again, anywhere."""
        data = data_of(shared, "shared")
        job = Job(self, lib.pmt_trainer_work, data, len(data), whole(piece, "piece"))
        try:
            job.wait()
        finally:
            if not (job.closed or self.closed):
                job.stop()
        return written(self._messages, lib.pmt_trainer_write_made, self._c)

    def __iter__(self) -> Iterator[Row]:
        return self.rows()

    def draw(self, prompts: str | Sequence[str], **how: Unpack[How]) -> Drawing:
        """Begins a drawing with the adapter as it is now, and returns at once; ``how``: :class:`How`, without previews.

        In the middle of a training, too, which goes on as if nothing had been drawn.
        """
        return begin(self, lib.pmt_trainer_draw, prompts, how)

    def generate(self, prompts: str | Sequence[str], *, dtype: Kind = "uint8", **how: Unpack[How]) -> npt.NDArray[Any]:
        """Draws an image for each prompt, ``(count, height, width, 3)``; ``how``: :class:`How`."""
        with self.draw(prompts, **how) as drawing:
            return drawing.images(dtype)

    def save_adapter(self, path: Path) -> None:
        """Writes the adapter as it is now, or the best one seen where the last look found that one worse, as a safetensors file that
        diffusers, ComfyUI and stable-diffusion.cpp read. A reader never sees half a file."""
        self._wait(lib.pmt_trainer_save_adapter, text(path, "path"))

    def adapter_bytes(self) -> bytes:
        """The bytes of the file that :meth:`save_adapter` writes."""
        return written(self._messages, lib.pmt_trainer_write_adapter, self._c)

    def adapter(self) -> dict[str, npt.NDArray[Any]]:
        """The matrices of that file by name: ``lora_A`` (rank, inputs) and ``lora_B`` (outputs, rank) of each layer."""
        return arrays(self.adapter_bytes())

    def save_state(self, path: Path) -> None:
        """Writes all that the training is; :meth:`resume` goes on from there to the same adapter, bit for bit, on the same device.

        Raises :class:`MissingError` while prompts and references are still being prepared."""
        self._wait(lib.pmt_trainer_save_state, text(path, "path"))

    def state_bytes(self) -> bytes:
        """The bytes of the file that :meth:`save_state` writes."""
        return written(self._messages, lib.pmt_trainer_write_state, self._c)
