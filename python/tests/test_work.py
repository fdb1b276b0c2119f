"""Trainings and drawings on a device."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import QUICK

import pentimento

pytestmark = pytest.mark.usefixtures("device")
References = list[tuple[Any, str]]


def interrupt(after: float) -> threading.Timer:
    """Ctrl-C, later."""
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_a_loop_that_is_left_goes_on_to_the_same_adapter(model: pentimento.Model, references: References, tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    estimate = pentimento.estimate(model, references, settings=QUICK)
    with pentimento.Trainer(model, QUICK, references=references) as trainer:
        assert trainer.estimate() == estimate
        assert estimate.peak > estimate.weights > 0 and estimate.work_iteration > 0
        for row in trainer:
            assert row["iteration"] == 1 and np.isfinite(row["reward"]) and row["seconds"] > 0
            assert trainer.job is not None and trainer.job.progress().iterations == 2
            shown = trainer.generate("icon of a red apple", steps=2)  # while the training is held
            assert shown.ndim == 4 and shown.shape[0] == 1 and shown.shape[3] == 3
            break
        trainer.save_state(file)
        assert [row["iteration"] for row in trainer] == [2]
        whole, matrices = trainer.adapter_bytes(), trainer.adapter()
        assert [row["iteration"] for row in trainer] == []  # all are complete
    assert {m.shape[0] if "lora_A" in name else m.shape[1] for name, m in matrices.items()} == {2}
    with pentimento.Trainer(model, QUICK, references=references) as second:
        second.resume(file.read_bytes())
        assert [row["iteration"] for row in second] == [2]
        assert second.adapter_bytes() == whole
        second.save_adapter(tmp_path / "adapter.safetensors")
    assert (tmp_path / "adapter.safetensors").read_bytes() == whole
    with pentimento.Trainer(model, {**QUICK, "rank": 3}, references=references) as other:
        other.resume(file)
        with pytest.raises(pentimento.Error, match="rank"):
            list(other)
    with pentimento.Pipeline(model) as pipeline:
        number = pipeline.attach(matrices)  # arrays are the file
        one = pipeline.generate("icon of snow", steps=2)
        pipeline.detach(number)
        pipeline.attach(whole)
        assert (one == pipeline.generate("icon of snow", steps=2)).all()


def test_personalize_and_generate(model: pentimento.Model, references: References, tmp_path: Path) -> None:
    seen: list[pentimento.Event] = []
    out = tmp_path / "out"
    made = pentimento.personalize(model, references, out, iterations=1, settings={**QUICK, "iterations": 9}, progress=seen.append)
    kinds = {event.kind for event in seen}
    assert {"phase", "warm", "iteration", "over"} <= kinds and "reward" in str(next(e for e in seen if e.metrics))
    assert made.path is not None and made.path.read_bytes() == made.adapter and len(made.metrics) == 1
    assert json.loads((out / "metrics.jsonl").read_text())["reward"] == made.metrics[0]["reward"]
    prompts = ["icon of snow", "icon of a dog"]
    base = pentimento.generate(model, prompts, steps=2, seed=5)
    assert base.dtype == np.uint8 and base.shape[0] == 2 and base.shape[3] == 3
    assert (pentimento.generate(model, prompts, [(made.path, 0.0)], steps=2, seed=np.array([5, 6], np.uint64)) == base).all()
    strong = pentimento.generate(model, prompts, [(made.path, 4.0), (made.adapter, 4.0)], steps=2, seed=5, dtype="float32")
    assert strong.dtype == np.float32 and 0 <= strong.min() <= strong.max() <= 1
    assert (np.round(strong * 255) != base).any()


def test_previews_and_sizes(model: pentimento.Model) -> None:
    with pentimento.Pipeline(model) as pipeline:
        side = pipeline.resolution
        with pipeline.draw("icon of snow", steps=2, size=(2 * side, side), preview=1) as drawing:
            kinds = [event.kind for event in drawing.events()]
            last = drawing.preview(np.float32)
            assert "preview" in kinds and kinds[-1] == "over" and last is not None and last.shape == (side, 2 * side, 3)
            assert drawing.images().shape == (1, side, 2 * side, 3)
            assert drawing.image(7) is None
            with pytest.raises(pentimento.ArgumentError, match="uint8, float16 or float32"):
                drawing.images("int64")
            with pytest.raises(pentimento.ArgumentError):
                drawing.image(0, {"x": 1})  # type: ignore[arg-type]
            drawing.cancel()  # too late
            assert drawing.wait()
        with pytest.raises(pentimento.ArgumentError, match="closed"):
            drawing.image(0)


def test_ctrl_c_ends_a_training_and_keeps_its_state(model: pentimento.Model, references: References, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        timers: list[threading.Timer] = []

        def progress(event: pentimento.Event) -> None:
            if event.kind == "iteration":
                timers.append(interrupt(0.01))

        pentimento.personalize(model, references, tmp_path, iterations=10_000, settings=QUICK, progress=progress)
    assert (tmp_path / "state.safetensors").is_file()
    more = pentimento.personalize(model, references, tmp_path, iterations=3, settings=QUICK, resume=True)
    assert more.metrics and more.metrics[-1]["iteration"] >= 3


def test_ctrl_c_ends_a_drawing_and_others_run_meanwhile(model: pentimento.Model) -> None:
    ticks = 0
    end = threading.Event()

    def count() -> None:
        nonlocal ticks
        while not end.wait(0.01):
            ticks += 1

    other = threading.Thread(target=count)
    other.start()
    start = time.monotonic()
    interrupt(1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            pentimento.generate(model, ["icon of snow"] * 64, steps=1000)
    finally:
        end.set()
        other.join()
    taken = time.monotonic() - start
    assert taken < 3, f"{taken} s"
    assert ticks > 20, "the interpreter was held"


def test_a_process_ends_in_the_middle_of_a_training(path: Path) -> None:
    """By itself, and in a child that knows only its parent's handles."""
    program = f"""
import os, sys, numpy, pentimento
trainer = pentimento.Trainer({str(path)!r}, {QUICK!r}, references=numpy.zeros((2, 64, 64, 3), "u1"), prompts=["icon of snow"])
job = trainer.start()
next(event for event in job.events() if event.kind == "warm")
child = os.fork()
if child == 0:
    try:
        trainer.generate("icon of snow")
    except pentimento.ArgumentError as e:
        print(e)
        sys.exit(7)
assert os.waitpid(child, 0)[1] >> 8 == 7
print("over")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Exception" not in done.stderr, done
    assert "one of this process" in done.stdout and done.stdout.endswith("over\n"), done


def test_what_is_forgotten_is_freed(path: Path, references: References) -> None:
    """A job under way whose trainer, model and context nobody holds."""
    job = pentimento.Trainer(path, {**QUICK, "iterations": 10_000}, references=references).start()
    for event in job.events():
        if event.kind == "warm":
            break
    del job, event


def test_others_make_the_pieces(model: pentimento.Model, references: References) -> None:
    few = {**QUICK, "rollout.prompts": 2, "at_once.sample": 2, "pathwise.batch": 1}

    def opened() -> pentimento.Trainer:
        return pentimento.Trainer(model, few, references=references)

    with opened() as alone:
        rewards = [row["reward"] for row in alone]
        whole = alone.adapter_bytes()
    with opened() as trainer, opened() as first, opened() as second:
        asked: list[int] = []

        def make(shared: bytes, pieces: int) -> list[bytes]:
            asked.append(pieces)
            with pytest.raises(pentimento.Error, match="less than"):
                first.work(shared, pieces)
            with pytest.raises(pentimento.BadFileError):
                trainer.give(0, b"nothing")
            return [(first, second)[i % 2].work(shared, i) for i in range(pieces)]

        trainer.spread(2)
        events: list[pentimento.Event] = []
        assert [row["reward"] for row in trainer.rows(events.append, make)] == rewards
        assert trainer.adapter_bytes() == whole
        assert len(asked) == 4 and set(asked) <= {1, 2} and 2 in asked
        texts = [str(event) for event in events if event.kind == "wanted"]
        assert len(texts) == 4 and "rollout" in texts[0] and "gradients" in texts[1]
        with pytest.raises(pentimento.ArgumentError, match="trains nothing"):
            trainer.work(b"", 0)
        with pytest.raises(pentimento.ArgumentError):
            trainer.shared()
    with opened() as trainer, pytest.raises(pentimento.ArgumentError, match="make"):
        trainer.spread(1)
        list(trainer)
    with pentimento.Trainer(model, {**QUICK, "recipe": "sft"}, references=references) as other, pytest.raises(pentimento.ArgumentError):
        other.spread(2)
