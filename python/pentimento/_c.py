"""The C interface: its own header, parsed by cffi, so that nothing here can differ from it.

Calls let other Python threads run. What the header says waits goes through :func:`patiently`, everything else through :func:`call`.
"""

from __future__ import annotations

import atexit
import operator
import os
import re
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, Callable, TypeVar

import cffi

from ._errors import argument, error

_HERE = Path(__file__).resolve().parent
_NAMES = {"win32": "pentimento.dll", "darwin": "libpentimento.dylib"}
LIBRARY = _NAMES.get(sys.platform, "libpentimento.so")

#: Longest time, in seconds, that Ctrl-C waits for.
TICK = 0.05


def _found(what: str, *places: Path) -> Path:
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(str(place) for place in places)
    raise ImportError(f"pentimento: expected {what} in one of {looked}, found none. Install the wheel, or build the library.")


def header() -> str:
    """The C header that the package was made with; in a checkout, the checkout's."""
    name = "pentimento.h"
    return _found("the C header", _HERE / name, _HERE.parents[1] / "include" / name).read_text(encoding="utf-8")


def _declarations(text: str) -> str:
    """The header without what cffi does not read: C++, and macros that are no numbers."""
    text = re.sub(r"#ifdef __cplusplus.*?#endif[^\n]*", "", text, flags=re.S)
    text = re.sub(r"//[^\n]*", "", text)
    return re.sub(r"^#(?!define \w+ \d+$)[^\n]*", "", text, flags=re.M)


def _open() -> Any:
    own = os.environ.get("PENTIMENTO_LIBRARY")
    built = _HERE.parents[1] / "target" / "release" / LIBRARY
    path = Path(own) if own else _found("the library", _HERE / LIBRARY, built)
    try:
        opened = ffi.dlopen(str(path))
        found = opened.pmt_abi_version()
    except (OSError, AttributeError) as e:
        raise ImportError(f"pentimento: {path} cannot be used: {e}") from e
    if found != opened.PMT_ABI_VERSION:
        raise ImportError(
            f"pentimento: {path}: expected version {opened.PMT_ABI_VERSION} of the C interface, found {found}. "
            "Take the library that the package came with."
        )
    return opened


ffi: Any = cffi.FFI()
ffi.cdef(_declarations(header()))
lib: Any = _open()


def text(value: object, what: str) -> Any:
    """A string or path for C. It lives as long as what is returned."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise argument(what, "a text", type(value).__name__)
    try:
        data = value.encode("utf-8")
    except UnicodeEncodeError as e:
        raise argument(what, "UTF-8", repr(value)) from e
    if b"\0" in data:
        raise argument(what, "a text without a zero character", repr(value))
    return ffi.new("char[]", data)


def optional(value: object, what: str) -> Any:
    """As :func:`text`, ``None`` for NULL."""
    return ffi.NULL if value is None else text(value, what)


def whole(value: object, what: str, bits: int = 32) -> int:
    """A number that C keeps in so many bits."""
    try:
        number: int = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if isinstance(value, bool) or not 0 <= number < 1 << bits:
        raise argument(what, f"a whole number, 0 to {(1 << bits) - 1}", repr(value))
    return number


def real(value: object, what: str) -> float:
    """A number that C keeps as a float."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as e:
        raise argument(what, "a number", repr(value)) from e


def copied(function: Callable[..., int], *before: Any) -> str:
    """The text that a function like ``pmt_error_message`` copies."""
    room = function(*before, ffi.NULL, 0) + 1
    buffer = ffi.new("char[]", room)
    function(*before, buffer, room)
    return string(buffer)


def string(pointer: Any) -> str:
    """A text of C's."""
    return str(ffi.string(pointer).decode("utf-8", "replace"))


def fields(struct: Any) -> dict[str, Any]:
    """A structure's fields by name: numbers, texts, and structures as dictionaries."""
    return {name: _field(getattr(struct, name)) for name, _ in ffi.typeof(struct).fields}


def _field(value: Any) -> Any:
    if not isinstance(value, ffi.CData):
        return value
    return fields(value) if ffi.typeof(value).kind == "struct" else string(value)


def enum_names(enum: str) -> dict[int, str]:
    """Names of an enum's values in lower case, without what they all begin with."""
    prefix = len(enum.upper()) + 1
    return {number: name[prefix:].lower() for name, number in ffi.typeof(enum).relements.items()}


def check(context: Any, status: int) -> None:
    """Raises the exception of a status; the sentence is the context's."""
    if status == lib.PMT_STATUS_OK:
        return
    sentence = copied(lib.pmt_error_message, context) if context else ""
    raise error(status, sentence or "the handle was closed, or its context was, and nobody can tell more")


def call(context: Any, function: Callable[..., int], *args: Any) -> None:
    """Calls what returns at once, or within milliseconds."""
    check(context, function(*args))


def patiently(context: Any, function: Callable[..., int], *args: Any) -> None:
    """Calls what may wait for seconds, so that Ctrl-C need not.

    Ctrl-C is not heard in C. So this thread waits here, and another one in C. That one is not a daemon: a daemon that comes back
    while Python ends is killed in the middle of whatever it was in, which may be a callback of the library's.
    """
    done = threading.Event()
    result: list[int] = []
    trouble: list[BaseException] = []

    def work() -> None:
        try:
            result.append(function(*args))
        except BaseException as e:
            trouble.append(e)
        finally:
            done.set()

    threading.Thread(target=work, name="pentimento call").start()
    while not done.wait(TICK):
        pass
    if trouble:
        raise trouble[0]
    check(context, result[0])


def written(context: Any, function: Callable[..., int], handle: Any) -> bytes:
    """The bytes that a function gives to a ``pmt_write``, which it calls before it returns, on the thread of the call."""
    parts: list[bytes] = []

    def take(_user: Any, data: Any, size: int) -> int:
        parts.append(bytes(ffi.buffer(data, size)))
        return 0

    callback = ffi.callback("int32_t(void *, const uint8_t *, size_t)", take, error=1)
    patiently(context, function, handle, callback, ffi.NULL)
    return b"".join(parts)


H = TypeVar("H", bound="Handle")


class Handle:
    """Something of the library's. It is freed by :meth:`close`, at the end of a ``with`` block, or with the last reference to it.

    A closed one raises :class:`ArgumentError`. Handles may be closed in any order.
    """

    _free: str = ""

    def __init__(self, context: Any | None) -> None:
        self._place: Any = None
        self._messages = context
        self._process = os.getpid()

    def _make(self, function: Callable[..., int], *args: Any) -> None:
        """Fills this handle with the result of a ``_new``, which comes last."""
        place = ffi.new(f"{self._free[: -len('_free')]} **")
        call(self._messages, function, *args, place)
        self._place = place
        _open_ones[id(self)] = self

    @property
    def _c(self) -> Any:
        if self._place is None:
            raise argument(type(self).__name__.lower(), "one that is open", "one that was closed")
        if self._process != os.getpid():
            raise argument(type(self).__name__.lower(), "one of this process", "its parent's; start processes by `spawn`")
        return self._place[0]

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._place is None

    def close(self) -> None:
        """Frees it; again is allowed."""
        place, self._place = getattr(self, "_place", None), None
        if place is not None and self._process == os.getpid():  # a fork has none of the threads that hold locks
            getattr(lib, self._free)(place[0])

    def _call(self, function: Callable[..., int], *args: Any) -> None:
        call(self._messages, function, self._c, *args)

    def _wait(self, function: Callable[..., int], *args: Any) -> None:
        patiently(self._messages, function, self._c, *args)

    def __enter__(self: H) -> H:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pentimento.{type(self).__name__}{' (closed)' if self.closed else ''}>"


_open_ones: weakref.WeakValueDictionary[int, Handle] = weakref.WeakValueDictionary()


@atexit.register
def _close_all() -> None:
    """Nothing of the library's works on while the process takes itself apart."""
    for handle in list(_open_ones.values()):
        handle.close()
