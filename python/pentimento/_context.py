"""Devices, contexts and models."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple, Union

from ._c import Handle, ffi, fields, lib, optional, patiently, string, text, whole

Path = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Device:
    """A device that can compute."""

    memory: int
    """Bytes of its own memory; 0 where the system does not tell."""
    index: int
    """Its place in the list: the best one is 0."""
    software: bool
    """Whether it is a driver that computes on the processor."""
    name: str
    """As the driver gives it."""
    pci: str
    """PCI address such as ``0000:01:00.0``; empty where the system tells none."""
    backend: str
    """``vulkan``, ``metal`` or ``dx12``."""
    driver: str
    """Driver and its version."""


class Memory(NamedTuple):
    """Bytes on the device, of all that belongs to a context."""

    now: int
    """Held now."""
    peak: int
    """Held when it was most."""
    weights: int
    """Of ``now``: weights, adapters and other parameters."""
    activations: int
    """Of ``now``: values between kernels."""
    other: int
    """Of ``now``: all else."""


def version() -> str:
    """The library's version, such as ``0.1.0``."""
    return string(lib.pmt_version())


def devices() -> list[Device]:
    """The devices that can compute, the best one first. Asks the drivers: up to a second."""
    count = ffi.new("uint32_t *")
    size = ffi.sizeof("pmt_device")
    patiently(None, lib.pmt_devices, ffi.NULL, size, 0, count)
    room = count[0]
    all_of = ffi.new("pmt_device[]", max(room, 1))
    patiently(None, lib.pmt_devices, all_of, size, room, count)
    found = [fields(all_of[i]) for i in range(min(room, count[0]))]
    return [Device(**{**device, "software": bool(device["software"])}) for device in found]


class Context(Handle):
    """A device and the thread of the library's that works on it. Models, trainings, drawings and jobs belong to one.

    ``device`` is a device's index, PCI address or name, or a part of the name that no other one has; ``None`` for the best one. It is
    opened, and the choice judged, with the first work or by :meth:`open`. ``pipeline_cache`` names a file that keeps what the driver
    builds of the library's kernels, so that later programs start faster.
    """

    _free = "pmt_context_free"

    def __init__(self, device: str | int | None = None, *, pipeline_cache: Path | None = None) -> None:
        super().__init__(None)
        name = None if device is None else str(device)
        self._make(lib.pmt_context_new, optional(name, "device"))
        self._messages = self._c
        if pipeline_cache is not None:
            self._call(lib.pmt_context_pipeline_cache, text(pipeline_cache, "pipeline_cache"))

    def open(self) -> None:
        """Opens the device now. Seconds.

        Raises :class:`DeviceError` or :class:`MissingError` where there is none that can be used.
        """
        self._wait(lib.pmt_context_open)

    def memory(self) -> Memory:
        """What the context holds on the device. Waits for the piece of work in progress."""
        memory = ffi.new("pmt_memory *")
        self._wait(lib.pmt_context_memory, memory, ffi.sizeof("pmt_memory"))
        return Memory(**fields(memory[0]))

    def limit_memory(self, most: int | None) -> None:
        """Limits what all work of this context holds on the device together, in bytes; ``None`` lifts it. A training that begins later keeps
        to it or is refused with the least that would do; a drawing without room keeps its weights in the host's memory, or is
        :class:`OutOfMemoryError`."""
        self._call(lib.pmt_context_limit_memory, 2**64 - 1 if most is None else whole(most, "most", 64))

    def poll(self, gpu_us: int, cpu_us: int) -> None:
        """Gives the context so many microseconds of the GPU and of its thread, for programs with frames; see ``pmt_context_poll``."""
        self._call(lib.pmt_context_poll, whole(gpu_us, "gpu_us"), whole(cpu_us, "cpu_us"))

    def cancel(self) -> None:
        """Cancels all jobs of this context."""
        self._call(lib.pmt_context_cancel)


class Model(Handle):
    """A model's files: a diffusers folder of an SD3-family model, or a single file with what it lacks in folders beside it.

    Leave the files alone as long as anything that was made with it lives. ``context`` is a :class:`Context`, or what one takes.
    """

    _free = "pmt_model_free"

    def __init__(self, path: Path, context: Context | str | int | None = None) -> None:
        #: Its context.
        self.context = context if isinstance(context, Context) else Context(context)
        super().__init__(self.context._messages)
        self._make(lib.pmt_model_open, self.context._c, text(path, "path"))
