"""The two things most people want, each in one call."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Callable

import numpy.typing as npt

from ._context import Context, Model, Path
from ._drawing import Adapter, Pipeline, Seed, Size
from ._errors import Error
from ._images import Kind
from ._job import Event, Row
from ._safetensors import arrays
from ._settings import Settings, Value
from ._trainer import References, Trainer

#: What diffusers looks for in a folder.
ADAPTER = "pytorch_lora_weights.safetensors"


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
    if isinstance(model, Model):
        return model
    return Model(model, device)


def _places(out: Path | None) -> tuple[FilePath | None, FilePath | None]:
    """The adapter's file and the folder for all else."""
    if out is None:
        return None, None
    path = FilePath(os.fspath(out))
    if path.suffix == ".safetensors":
        return path, None
    path.mkdir(parents=True, exist_ok=True)
    return path / ADAPTER, path


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
    ``pytorch_lora_weights.safetensors`` and ``metrics.jsonl``, and ``state.safetensors`` when it is stopped; with ``resume`` a state
    that is there is gone on from. ``settings`` has any of :func:`settings` by name; ``iterations`` and ``seed`` are two of them. ``progress``
    is called with every :class:`Event`; ``print`` will do. ``device`` is as in :class:`Context`.

    Ctrl-C, or an exception of ``progress``, stops after the piece of work in progress. Raises :class:`Error`.
    """
    values: dict[str, Value] = dict(settings or {})
    if iterations is not None:
        values["iterations"] = iterations
    if seed is not None:
        values["seed"] = seed
    own = _opened(model, device)
    file, folder = _places(out)
    state = folder / "state.safetensors" if folder is not None else None
    made = Settings(values, recipe=recipe, context=own.context)
    with Trainer(own, made, reward=reward, references=references, prompts=prompts) as trainer:
        going_on = resume and state is not None and state.is_file()
        if going_on and state is not None:
            trainer.resume(state)
        metrics = _trained(trainer, progress, folder, state, going_on)
        adapter = trainer.adapter_bytes()
        if file is not None:
            trainer.save_adapter(file)
    return Result(adapter, file, metrics)


def _trained(
    trainer: Trainer,
    progress: Callable[[Event], object] | None,
    folder: FilePath | None,
    state: FilePath | None,
    going_on: bool,
) -> list[Row]:
    """Trains to the end, a line of ``metrics.jsonl`` for each row; saves the state when that does not go well."""
    metrics: list[Row] = []
    try:
        if folder is None:
            metrics.extend(trainer.rows(progress))
            return metrics
        with open(folder / "metrics.jsonl", "a" if going_on else "w", encoding="utf-8") as lines:
            for row in trainer.rows(progress):
                metrics.append(row)
                print(json.dumps(row), file=lines, flush=True)
    except BaseException:
        if state is not None:
            try:
                trainer.save_state(state)
            except Error:
                pass  # before there is anything to save; what went wrong first is what counts
        raise
    return metrics


def generate(
    model: Model | Path,
    prompts: str | Sequence[str],
    adapters: Iterable[Adapter | tuple[Adapter, float]] = (),
    *,
    negative: str | None = None,
    seed: Seed = 0,
    steps: int | None = None,
    guidance: float | None = None,
    size: Size | None = None,
    batch: int | None = None,
    dtype: Kind = "uint8",
    device: Context | str | int | None = None,
) -> npt.NDArray[Any]:
    """Draws an image for each prompt: ``(n, height, width, 3)`` uint8, or with ``dtype="float32"`` floats of 0 to 1; sRGB.

    ``adapters`` are LoRA files, folders or a file's bytes, each alone or in a pair with its strength. All else is as in
    :meth:`Pipeline.draw`. Ctrl-C stops it. For several calls, make a :class:`Pipeline`: it keeps the weights on the device.
    """
    with Pipeline(_opened(model, device)) as pipeline:
        for each in adapters:
            adapter, strength = each if isinstance(each, tuple) else (each, 1.0)
            pipeline.attach(adapter, strength)
        how = {"negative": negative, "seed": seed, "steps": steps, "guidance": guidance, "size": size, "batch": batch}
        return pipeline.generate(prompts, dtype=dtype, **how)
