"""The two things most people want, each in one call."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Callable

import numpy.typing as npt

from ._context import Context, Model, Path
from ._drawing import Adapter, How, Pipeline
from ._errors import Error, argument
from ._images import Kind
from ._job import Event, Row
from ._safetensors import arrays
from ._settings import Settings, Value
from ._trainer import Estimate, References, Trainer

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: What diffusers looks for in a folder.
ADAPTER = "pytorch_lora_weights.safetensors"
STATE = "state.safetensors"


@dataclass(frozen=True)
class Result:
    """What a training made."""

    adapter: bytes = field(repr=False)
    """The adapter, as the bytes of a safetensors file."""
    path: FilePath | None
    """Where it was written, if anywhere."""
    metrics: list[Row]
    """A row for each iteration."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The adapter's matrices by name."""
        return arrays(self.adapter)


def _opened(model: Model | Path, device: Context | str | int | None) -> Model:
    if not isinstance(model, Model):
        return Model(model, device)
    if device is not None and device is not model.context:
        raise argument("device", "None, since an open model has one", repr(device))
    return model


def _places(out: Path | None) -> tuple[FilePath | None, FilePath | None]:
    """The adapter's file and the folder for all else."""
    if out is None:
        return None, None
    path = FilePath(os.fspath(out))
    if path.suffix == ".safetensors":
        return path, None
    path.mkdir(parents=True, exist_ok=True)
    return path / ADAPTER, path


def _prepared(
    model: Model | Path,
    references: References,
    prompts: Sequence[str],
    reward: Path | None,
    recipe: str | None,
    values: Mapping[str, Value],
    device: Context | str | int | None,
) -> Trainer:
    """A training that can be started. Of the settings those that are given count."""
    own = _opened(model, device)
    made = Settings(values, recipe=recipe, context=own.context)
    return Trainer(own, made, reward=reward, references=references, prompts=prompts)


def _values(settings: Mapping[str, Value] | None, **more: Value) -> dict[str, Value]:
    """Settings, and those that have a parameter of their own where it is given."""
    return {**(settings or {}), **{name: value for name, value in more.items() if value is not None}}


def personalize(
    model: Model | Path,
    references: References,
    out: Path | None = None,
    *,
    prompts: Sequence[str] = (),
    iterations: int | None = None,
    seed: int | None = None,
    recipe: str | None = None,
    settings: Mapping[str, Value] | None = None,
    reward: Path | None = None,
    progress: Callable[[Event], object] | None = None,
    resume: bool = False,
    device: Context | str | int | None = None,
) -> Result:
    """Trains an adapter with which ``model`` draws like ``references``.

    ``references`` are a folder, or a list of paths, Pillow images or arrays, each alone or in a pair with its caption; see
    :meth:`Trainer.add_reference`. ``out`` is a file ``NAME.safetensors`` for the adapter, or a folder, which gets
    ``pytorch_lora_weights.safetensors``, ``metrics.jsonl`` and ``state.safetensors``; with ``resume`` the state that is there is gone on
    from, to more ``iterations`` if there are. ``settings`` has any of :func:`settings` by name; ``iterations`` and ``seed`` are two of
    them. ``progress`` is called with every :class:`Event`; ``print`` will do. ``device`` is as in :class:`Context`.

    Ctrl-C, or an exception of ``progress``, stops after the piece of work in progress and saves the state. Raises :class:`Error`.
    """
    values = _values(settings, iterations=iterations, seed=seed)
    file, folder = _places(out)
    if resume and folder is None:
        raise argument("out", "a folder with a state to resume", repr(out))
    with _prepared(model, references, prompts, reward, recipe, values, device) as trainer:
        going_on = resume and folder is not None and (folder / STATE).is_file()
        if going_on and folder is not None:
            trainer.resume(folder / STATE)
        metrics = _recorded(trainer, progress, folder, going_on) if folder is not None else list(trainer.rows(progress))
        adapter = trainer.adapter_bytes()
        if file is not None:
            trainer.save_adapter(file)
    return Result(adapter, file, metrics)


def _recorded(trainer: Trainer, progress: Callable[[Event], object] | None, folder: FilePath, going_on: bool) -> list[Row]:
    """Trains to the end, a line of ``metrics.jsonl`` for each row, and saves the state, whatever the end is."""
    metrics: list[Row] = []
    try:
        with open(folder / "metrics.jsonl", "a" if going_on else "w", encoding="utf-8") as lines:
            for row in trainer.rows(progress):
                metrics.append(row)
                print(json.dumps(row), file=lines, flush=True)
    finally:
        # Before there is anything to save, what went wrong first is what counts.
        with suppress(Error):
            trainer.save_state(folder / STATE)
    return metrics


def estimate(
    model: Model | Path,
    references: References,
    *,
    prompts: Sequence[str] = (),
    recipe: str | None = None,
    settings: Mapping[str, Value] | None = None,
    reward: Path | None = None,
    device: Context | str | int | None = None,
) -> Estimate:
    """What :func:`personalize` would take of the device's memory, and how much work it is. Puts nothing on the device; seconds."""
    with _prepared(model, references, prompts, reward, recipe, _values(settings), device) as trainer:
        return trainer.estimate()


def generate(
    model: Model | Path,
    prompts: str | Sequence[str],
    adapters: Adapter | Iterable[Adapter | tuple[Adapter, float]] = (),
    *,
    dtype: Kind = "uint8",
    device: Context | str | int | None = None,
    **how: Unpack[How],
) -> npt.NDArray[Any]:
    """Draws an image for each prompt: ``(n, height, width, 3)`` uint8, or with ``dtype="float32"`` floats of 0 to 1; sRGB.

    ``adapters`` are LoRA files, folders, a file's bytes or matrices by name, each alone or in a pair with its strength. ``how`` is
    :class:`How`: ``negative``, ``seed``, ``steps``, ``guidance``, ``size``, ``batch``. Ctrl-C stops it. For several calls, make a
    :class:`Pipeline`: it keeps the weights on the device.
    """
    with Pipeline(_opened(model, device)) as pipeline:
        for each in [adapters] if isinstance(adapters, (str, bytes, os.PathLike, Mapping)) else adapters:
            adapter, strength = each if isinstance(each, tuple) else (each, 1.0)
            pipeline.attach(adapter, strength)
        return pipeline.generate(prompts, dtype=dtype, **how)
