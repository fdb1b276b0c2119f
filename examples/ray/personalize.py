"""Personalises a model on several machines at once, with Ray: actors roll out and differentiate, this process judges and steps.

    python examples/ray/personalize.py MODEL REFERENCES OUT.safetensors --workers 2

Ray carries bytes, starts a worker that died anew and repeats its piece; pentimento does everything else. Model and references must be at the same
paths on every machine. ``--workers 0`` trains here alone; the adapter is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pentimento


def trainer(given: argparse.Namespace, device: str | None) -> pentimento.Trainer:
    """The same training everywhere."""
    settings = dict(pair.split("=", 1) for pair in given.set)
    model = pentimento.Model(given.model, device)
    return pentimento.Trainer(model, settings, references=given.references, prompts=given.prompt)


class Worker:
    """Makes pieces. Killed at any moment, it costs the piece it was at, and its preparation."""

    def __init__(self, given: argparse.Namespace, device: str | None) -> None:
        self.trainer = trainer(given, device)

    def work(self, shared: bytes, piece: int) -> tuple[bytes, float]:
        """The piece, and the seconds it took."""
        began = time.perf_counter()
        return self.trainer.work(shared, piece), time.perf_counter() - began

    def process(self) -> int:
        """Its process, for those who want to see it die."""
        return os.getpid()


class Crew:
    """Workers, and how long an iteration waited for them."""

    def __init__(self, given: argparse.Namespace) -> None:
        import ray
        from ray.util import ActorPool

        ray.init(address=given.address, log_to_driver=False, logging_level="ERROR")
        threads = {"LP_NUM_THREADS": str(given.threads)} if given.threads else {}
        # A worker that died is started anew, and a call that died with it is made again.
        actor: Any = ray.remote(max_restarts=-1, max_task_retries=-1, runtime_env={"env_vars": threads})(Worker)
        self.ray = ray
        self.workers = [actor.remote(given, given.device[i % len(given.device)]) for i in range(given.workers)]
        self.pool = ActorPool(self.workers)
        self.kill = given.kill
        self.times: dict[str, list[float]] = {"rollout": [], "gradients": []}
        self.what, self.bytes, self.rounds = "", [0, 0], 0

    def heard(self, event: pentimento.Event) -> None:
        """Remembers what is asked for next."""
        if event.kind == "wanted":
            self.what = event.text
        elif event.kind in ("opened", "note", "look"):
            print(event, flush=True)

    def make(self, shared: bytes, pieces: int) -> Iterator[bytes]:
        """The pieces in their order. What is shared travels once to each machine; a worker that is done early takes the next piece."""
        began, self.rounds = time.perf_counter(), self.rounds + 1
        if self.rounds == self.kill:
            self.die()
        held, back, worked = self.ray.put(shared), 0, 0.0
        for made, seconds in self.pool.map(lambda worker, piece: worker.work.remote(held, piece), range(pieces)):
            back, worked = back + len(made), worked + seconds
            yield made
        took = time.perf_counter() - began
        self.times[self.what].append(took)
        self.bytes = [len(shared), back]
        there, here = (f"{n / 1e6:.1f} MB" for n in self.bytes)
        print(f"  {self.what}: {pieces} pieces in {took:.2f} s ({worked:.2f} s of work), {there} there, {here} back", flush=True)

    def die(self) -> None:
        """Kills a worker in the middle of its piece, as a machine that fails would."""
        process = self.ray.get(self.workers[0].process.remote())
        threading.Timer(0.3, os.kill, (process, signal.SIGKILL)).start()
        print(f"  worker 0, process {process}, is killed", flush=True)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("model", type=Path)
    parse.add_argument("references", type=Path)
    parse.add_argument("out", type=Path)
    parse.add_argument("--workers", type=int, default=2)
    parse.add_argument("--pieces", type=int, help="by default two for each worker")
    parse.add_argument("--prompt", action="append", default=[])
    parse.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, the same everywhere")
    parse.add_argument("--device", action="append", default=[], help="of the first worker, of the second, and so on, and again from the first")
    parse.add_argument("--address", help="of a running Ray; by default one is started on this machine")
    parse.add_argument("--threads", type=int, help="threads of a software driver in each worker")
    parse.add_argument("--kill", type=int, metavar="N", help="kills a worker in the Nth round, to see that it does no harm")
    given = parse.parse_args()
    given.model, given.references = given.model.resolve(), given.references.resolve()
    given.device = given.device or [None]
    with trainer(given, given.device[0]) as training:
        crew = Crew(given) if given.workers else None
        if crew:
            training.spread(given.pieces or 2 * given.workers)
        began = time.perf_counter()
        for row in training.rows(crew.heard, crew.make) if crew else training:
            seconds, began = time.perf_counter() - began, time.perf_counter()
            print(f"{row['iteration']} reward {row['reward']:.4f}, references {row['reward_reference']:.4f}, {seconds:.1f} s", flush=True)
        training.save_adapter(given.out)
    print(f"{given.out}: sha256 {hashlib.sha256(given.out.read_bytes()).hexdigest()[:16]}")


if __name__ == "__main__":
    main()
