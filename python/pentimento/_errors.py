"""What goes wrong, as exceptions."""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "ArgumentError",
    "BadFileError",
    "CancelledError",
    "DeviceError",
    "Error",
    "InternalError",
    "MissingError",
    "NotFiniteError",
    "OutOfMemoryError",
    "ReadWriteError",
    "Status",
    "UnknownSettingError",
]


class Status(IntEnum):
    """The outcome of a call, or of a job: ``pmt_status`` of the C interface."""

    OK = 0
    BAD_ARGUMENT = 1
    BAD_FILE = 2
    MISSING = 3
    IO = 4
    DEVICE = 5
    CANCELLED = 6
    INTERNAL = 7
    NOT_FINITE = 8
    PENDING = 9
    OUT_OF_MEMORY = 10


class Error(Exception):
    """Something went wrong: ``str(error)`` is the library's sentence, ``error.status`` the kind."""

    status: Status = Status.INTERNAL

    def __init__(self, sentence: str, status: Status | None = None) -> None:
        super().__init__(sentence)
        if status is not None:
            self.status = status

    def __str__(self) -> str:
        return str(self.args[0])  # not as KeyError has it, in quotes


class ArgumentError(Error, ValueError):
    """A value, setting or order of calls that cannot be; nothing has changed."""

    status = Status.BAD_ARGUMENT


class UnknownSettingError(ArgumentError, KeyError):
    """No setting has this name."""


class BadFileError(Error):
    """A model, adapter or other file cannot be used as it is."""

    status = Status.BAD_FILE


class MissingError(Error):
    """A file, tensor, adapter or device that must be there is not."""

    status = Status.MISSING


class ReadWriteError(Error):
    """The operating system refused to read or write."""

    status = Status.IO


class DeviceError(Error):
    """The GPU cannot run this, or failed while running it. The next job opens it anew."""

    status = Status.DEVICE


class CancelledError(Error):
    """Stopped by ``cancel``, or what it worked on was closed."""

    status = Status.CANCELLED


class InternalError(Error):
    """A bug in the library. What it was working on is of no more use."""

    status = Status.INTERNAL


class NotFiniteError(Error, ArithmeticError):
    """A NaN or infinity in a file, or made by a training that diverged. The adapter from before stays readable."""

    status = Status.NOT_FINITE


class OutOfMemoryError(Error, MemoryError):
    """The device has too little memory left."""

    status = Status.OUT_OF_MEMORY


_KINDS: dict[Status, type[Error]] = {
    kind.status: kind
    for kind in (
        ArgumentError,
        BadFileError,
        MissingError,
        ReadWriteError,
        DeviceError,
        CancelledError,
        InternalError,
        NotFiniteError,
        OutOfMemoryError,
    )
}


def error(status: int, sentence: str) -> Error:
    """The exception of a status that is not OK."""
    known = Status(status)
    return _KINDS.get(known, Error)(sentence or f"{known.name}, of which nothing more is known", known)


def argument(what: str, expected: str, found: object) -> ArgumentError:
    """An argument that cannot be, as the library says it."""
    return ArgumentError(f"{what}: expected {expected}, found {found}")
