"""Settings of a training: all of them by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple, Union

import numpy as np

from ._c import Handle, ffi, lib, optional, string, text
from ._context import Context
from ._errors import ArgumentError, UnknownSettingError, argument

Value = Union[str, int, float, bool, "np.number[Any]", "np.bool_", None]


class Setting(NamedTuple):
    """A setting of a training."""

    name: str
    """As in ``optim.rate``."""
    default: str
    """As text, in the recipe that was asked for."""
    expected: str
    """What it may be, with its range; a part of a sentence."""
    unit: str
    """What it counts; empty where it has no unit."""
    about: str
    """What it is."""
    source: str
    """Where it comes from: a paper, the released code, or this library."""


def written(value: Value) -> str:
    """A value as the library reads it."""
    if value is None:
        return "none"
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    if isinstance(value, str):
        return value
    try:
        return str(int(value) if isinstance(value, (int, np.integer)) else float(value))
    except (TypeError, ValueError) as e:
        raise argument("a setting", "a number, a text, True, False or None", repr(value)) from e


class Settings(Handle, MutableMapping[str, Value]):
    """Settings by name, a dictionary that has every name from the start and forbids values that cannot be.

    ``recipe``: ``pathwise``, ``grpo``, ``flow-grpo``, ``nft``, ``sft``, ``released``, or ``None`` for the recommended one. Values are
    numbers, texts, booleans or ``None``, and read back as text, which is taken for the same value.

    >>> settings = Settings({"iterations": 20, "optim.rate": 1e-4})
    >>> settings["rank"]
    '16'
    """

    _free = "pmt_settings_free"

    def __init__(
        self, values: Mapping[str, Value] | None = None, *, recipe: str | None = None, context: Context | None = None
    ) -> None:
        self._context = context or Context()
        super().__init__(self._context._messages)
        self._make(lib.pmt_settings_new, self._context._c, optional(recipe, "recipe"))
        self.update(values or {})

    def __setitem__(self, name: str, value: Value) -> None:
        """Raises :class:`ArgumentError` for a name or value that cannot be, and changes nothing then."""
        self._call(lib.pmt_settings_set, text(name, "name"), text(written(value), name))

    def __getitem__(self, name: str) -> str:
        name_, needed = text(name, "name"), ffi.new("size_t *")
        try:
            self._call(lib.pmt_settings_get, name_, ffi.NULL, 0, needed)
        except ArgumentError as e:
            if name in self:
                raise
            raise UnknownSettingError(str(e)) from None
        buffer = ffi.new("char[]", needed[0])
        self._call(lib.pmt_settings_get, name_, buffer, needed[0], ffi.NULL)
        return string(buffer)

    def __delitem__(self, name: str) -> None:
        raise argument(name, "a setting to stay", "one to be deleted; set it to its default instead")

    # A handle is itself; what two of them hold can be compared as dictionaries.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __contains__(self, name: object) -> bool:
        return any(each == name for each in self)

    def __iter__(self) -> Iterator[str]:
        return (string(one.name) for one in _described())

    def __len__(self) -> int:
        return sum(1 for _ in _described())

    def check(self) -> None:
        """Raises :class:`ArgumentError` where they cannot work together; a training asks the same."""
        self._call(lib.pmt_settings_check)


def _described() -> Iterator[Any]:
    index = 0
    while True:
        one = ffi.new("pmt_setting *")
        if lib.pmt_settings_describe(index, one, ffi.sizeof("pmt_setting")) != lib.PMT_STATUS_OK:
            return
        yield one[0]
        index += 1


def settings(recipe: str | None = None) -> list[Setting]:
    """All settings of a training, with what they are by default in a recipe, what they may be, their unit and where they come from."""
    with Context() as context, Settings(recipe=recipe, context=context) as own:
        return [
            Setting(default=own[string(one.name)], **{f: string(getattr(one, f)) for f in Setting._fields if f != "default"})
            for one in _described()
        ]


def chosen(values: Settings | Mapping[str, Value] | None, context: Context) -> Settings | None:
    """Settings as functions take them: made already, by name, or none."""
    if values is None or isinstance(values, Settings):
        return values
    return Settings(values, context=context)
