"""pentimento: personalises an SD3-family image model to a few reference images, on any GPU.

:func:`personalize` and :func:`generate` do the whole of it. :class:`Trainer`, :class:`Pipeline` and their like are the handles of the C
interface: all are closed at the end of a ``with`` block, or with the last reference, and raise :class:`Error`, whose text is the
library's sentence. Long calls let other threads run; two at once on the same trainer or pipeline are an error for the second.
"""

from ._context import Context, Device, Memory, Model, devices, version
from ._drawing import Drawing, How, Pipeline
from ._errors import (
    ArgumentError,
    BadFileError,
    CancelledError,
    DeviceError,
    Error,
    InternalError,
    MissingError,
    NotFiniteError,
    OutOfMemoryError,
    ReadWriteError,
    Status,
    UnknownSettingError,
)
from ._job import Event, Job, Progress, Row
from ._settings import Setting, Settings, settings
from ._simple import Result, estimate, generate, personalize
from ._trainer import Estimate, Trainer

__version__ = version()

__all__ = [
    "ArgumentError",
    "BadFileError",
    "CancelledError",
    "Context",
    "Device",
    "DeviceError",
    "Drawing",
    "Error",
    "Estimate",
    "Event",
    "How",
    "InternalError",
    "Job",
    "Memory",
    "MissingError",
    "Model",
    "NotFiniteError",
    "OutOfMemoryError",
    "Pipeline",
    "Progress",
    "ReadWriteError",
    "Result",
    "Row",
    "Setting",
    "Settings",
    "Status",
    "Trainer",
    "UnknownSettingError",
    "devices",
    "estimate",
    "generate",
    "personalize",
    "settings",
    "version",
]
