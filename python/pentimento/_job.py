"""Work of a context: trainings and drawings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple, TypedDict

from ._c import TICK, Handle, check, copied, enum_names, ffi, fields, lib
from ._errors import Status, error

_PHASES = enum_names("pmt_phase")
_KINDS = enum_names("pmt_event_kind")
_TICK = int(TICK * 1000 / 2)


class Row(TypedDict):
    """What one iteration did."""

    iteration: int
    """Its number, from 1."""
    reward: float
    """Mean reward of the generated images."""
    reward_reference: float
    """Mean reward of the references."""
    reward_spread: float
    """Standard deviation of the rewards within groups."""
    head_loss: float
    """Hinge loss of the reward head."""
    head_accuracy: float
    """Part of images the reward head told apart, 0 to 1."""
    clip_fraction: float
    """Part of probability ratios outside the clip range, 0 to 1."""
    gradient_norm: float
    """Gradient norm before clipping."""
    agreement: float
    """How well the gradients of two halves of the images agree, a cosine; -2 where all went through in one run."""
    rate: float
    """Learning rate of the last optimiser step."""
    anchor_loss: float
    """Mean squared distance from the warm start's velocities where noise is high."""
    supervised_loss: float
    """Loss of the last supervised step."""
    seconds: float
    """Seconds of work it took, pauses not counted."""


def _row(iteration: int, metrics: dict[str, float]) -> Row:
    return Row(iteration=iteration, reward=metrics.pop("reward_generated"), **metrics)  # type: ignore[typeddict-item, no-any-return]


class Event(NamedTuple):
    """Something that happened to a job. Fields that its kind does not name are 0 or empty."""

    kind: str
    """``opened`` (the device, ``text``), ``phase`` (another ``phase``), ``step`` (``done`` of ``total``), ``warm`` (step ``done``, ``loss``),
    ``iteration`` (``iteration``, ``metrics``), ``look`` (fixed pictures: ``iteration``, ``silhouettes``, ``distance``; ``text`` where
    training ends here), ``wanted`` (``total`` pieces are waited for, ``text``: of what), ``preview`` (of step ``done``), ``note`` (``text``), ``over`` (``status``, ``text``)."""
    phase: str
    """``waiting``, ``opening``, ``loading``, ``encoding``, ``warm``, ``iterating``, ``drawing``, ``over``."""
    status: Status
    done: int
    total: int
    iteration: int
    loss: float
    silhouettes: float
    distance: float
    metrics: Row | None
    text: str

    def __str__(self) -> str:
        if self.metrics is not None:
            row = self.metrics
            rewards = f"reward {row['reward']:.3f}, references {row['reward_reference']:.3f}"
            return f"iteration {self.iteration}: {rewards}, {row['seconds']:.1f} s"
        said = {
            "opened": f"device {self.text}",
            "phase": self.phase,
            "step": f"{self.done} of {self.total}",
            "warm": f"warm start step {self.done}: loss {self.loss:.4f}",
            "look": f"look after iteration {self.iteration}: distance {self.distance:.3f} {self.text}".strip(),
            "wanted": f"{self.total} pieces wanted: {self.text}",
            "preview": f"preview of step {self.done}",
            "over": self.text or f"over: {self.status.name}",
        }
        return said.get(self.kind, self.text)


class Progress(NamedTuple):
    """How far a job is. Numbers of the last complete iteration stay until the next one is complete."""

    phase: str
    """Where ``done`` and ``total`` belong, as in :class:`Event`."""
    status: Status
    """``PENDING``, or how the job ended."""
    done: int
    total: int
    """Pieces of this phase; 0 while unknown."""
    iteration: int
    """Iterations complete."""
    iterations: int
    """All iterations; 0 where time decides, and for drawings."""
    seconds_left: float
    """Seconds of work to the end at the speed so far; -1 while unknown."""
    warm_loss: float
    """Loss of the last supervised step."""
    silhouettes: float
    """How far fixed pictures keep the base model's shapes at the last look, 0 to 1; -1 where there is none."""
    distance: float
    """How far they are from the references, in the references' deviations; -1 before the first look."""
    best_iteration: int
    """Iteration of the best look so far; 0: the warm start's."""
    metrics: Row
    """Of the last complete iteration."""


class Job(Handle):
    """Work under way or over. Closing it cancels it; leave it alone, and it goes on by itself."""

    _free = "pmt_job_free"

    def __init__(self, owner: Handle, function: Any, *args: Any) -> None:
        super().__init__(owner._messages)
        self._owner = owner  # whose end would be the job's
        self._make(function, owner._c, *args)

    def _status(self, milliseconds: int) -> int:
        return int(lib.pmt_job_wait(self._c, milliseconds))

    @property
    def over(self) -> bool:
        """Whether it ended, in whatever way."""
        return self._status(0) != Status.PENDING

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is over, at most so many seconds; whether it is. Ctrl-C ends the waiting, not the job.

        Raises how it failed; :class:`CancelledError` where it was cancelled.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            status = self._status(_TICK)
            if status != Status.PENDING:
                break
            if end is not None and time.monotonic() >= end:
                return False
        if status != Status.OK:
            cancelled = "it was cancelled" if status == Status.CANCELLED else ""
            raise error(status, copied(lib.pmt_job_message, self._c) or cancelled)
        return True

    def events(self) -> Iterator[Event]:
        """What happens, as it happens, to the end. Raises nothing of the job's own: :meth:`wait` does.

        4096 events are kept for whoever comes late. Each is given once, to whichever caller.
        """
        size, event = ffi.sizeof("pmt_event"), ffi.new("pmt_event *")
        while True:
            over = self._status(_TICK) != Status.PENDING
            while True:
                status = lib.pmt_job_event(self._c, event, size)
                if status == Status.PENDING:
                    break
                check(self._messages, status)
                yield _event(fields(event[0]))
            if over:
                return

    def progress(self) -> Progress:
        """How far it is."""
        progress = ffi.new("pmt_progress *")
        self._call(lib.pmt_job_progress, progress, ffi.sizeof("pmt_progress"))
        seen = fields(progress[0])
        seen["metrics"] = _row(seen["iteration"], seen["metrics"])
        return Progress(**{**seen, "phase": _PHASES[seen["phase"]], "status": Status(seen["status"])})

    def pause(self) -> None:
        """Pauses it after the piece of work in progress. Other jobs go on."""
        self._call(lib.pmt_job_pause, 1)

    def resume(self) -> None:
        """Goes on after :meth:`pause`."""
        self._call(lib.pmt_job_pause, 0)

    def cancel(self) -> None:
        """Ends it after the piece of work in progress; does not wait for that. A training keeps what it has learnt."""
        self._call(lib.pmt_job_cancel)

    def stop(self) -> None:
        """Cancels it and waits until it is over, in whatever way."""
        self.cancel()
        while not self.over:
            self._status(_TICK)


def _event(seen: dict[str, Any]) -> Event:
    kind = _KINDS.get(seen["kind"], "note")
    seen["metrics"] = _row(seen["iteration"], seen["metrics"]) if kind == "iteration" else None
    return Event(**{**seen, "kind": kind, "phase": _PHASES[seen["phase"]], "status": Status(seen["status"])})
