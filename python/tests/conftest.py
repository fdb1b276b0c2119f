"""What the tests have in common: a small model, settings that are quick, and whether there is a device."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pentimento

ICONS = Path(__file__).resolve().parents[2] / "examples" / "models" / "icons"

# What a shell runs in the background ignores Ctrl-C, and Python then leaves it so.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: The least training that has every part.
QUICK: dict[str, Any] = {
    "rank": 2,
    "warm.steps": 2,
    "warm.batch": 2,
    "iterations": 2,
    "rollout.prompts": 1,
    "rollout.group": 2,
    "rollout.steps": 2,
    "optim.micro_batch": 2,
    "pathwise.images": 2,
    "head.warm": 1,
    "head.batch": 2,
    "watch.every": 0,
}


@pytest.fixture(scope="session")
def path() -> Path:
    """A model: that of ``PENTIMENTO_TEST_MODEL``, or the default one, which takes longer."""
    return Path(os.environ.get("PENTIMENTO_TEST_MODEL", ICONS))


@pytest.fixture(scope="session")
def model(path: Path) -> Iterator[pentimento.Model]:
    """It on a context of its own, which all tests share, so that kernels are built once."""
    with pentimento.Model(path, os.environ.get("PENTIMENTO_ADAPTER")) as opened:
        yield opened


@pytest.fixture(scope="session")
def device() -> None:
    """For tests that need a device."""
    if not pentimento.devices():
        pytest.skip("no graphics adapter")


@pytest.fixture
def references() -> list[tuple[Any, str]]:
    """Two pictures with captions."""
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    square = np.zeros((64, 64, 3), np.uint8)
    square[16:48, 16:48] = (255, 40, 40)
    return [(np.stack([ramp[:, None] + 0 * ramp] * 3, axis=-1), "icon of snow"), (square, "icon of a red apple")]
