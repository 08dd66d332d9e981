"""All accelerators of a node: each alone, then all at once, in interleaved rounds; then card to card.

``python -m probes.inference.load.multi_gpu --accelerator cuda --seconds 14``. The drop from alone to together is what
the cards share: PCIe switches, power, the host's memory. Answers in JSON lines like the other load; no torch in here.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from probes.common.nvml import Survey, survey
from probes.inference.load import worker as inference_worker
from probes.inference.load.events import say, stage
from probes.inference.load.worker import Place

_START_AHEAD = 0.02  # orders go out this long before all begin at one moment
_SLACK_SECONDS = 20.0  # beyond a window's length, before a worker is given up
_READY_SECONDS = 90.0
_ROUNDS = 3
_SHORTEST_WINDOW = 0.1


@dataclass(slots=True)
class Worker:
    """One process. ``lost`` says why it no longer answers."""

    name: str
    process: Any
    pipe: Connection
    steps: tuple[str, ...] = ()
    lost: str | None = None

    def order(self, name: str, seconds: float, start: float) -> None:
        self._try(lambda: self.pipe.send((name, seconds, start)))

    def answer(self, timeout: float) -> Mapping[str, Any]:
        """Its answer; an ``error`` when it has none to give."""
        found: list[Mapping[str, Any]] = []
        if self.lost is None and not self.pipe.poll(timeout):
            self.lost = f"no answer within {timeout:.0f} s"
        self._try(lambda: found.append(self.pipe.recv()))
        return found[0] if found else {"error": self.lost}

    def _try(self, action: Any) -> None:
        if self.lost is None:
            try:
                action()
            except (OSError, EOFError) as error:
                self.lost = f"its process ended ({type(error).__name__}, status {self.process.exitcode})"

    def close(self) -> None:
        self._try(lambda: self.pipe.send(None))
        self.process.join(2.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5.0)
        self.pipe.close()


def start(place: Place, name: str) -> Worker:
    """Start a worker; it says later that it is ready."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=inference_worker.main, args=(theirs, place), name=f"worker-{name}", daemon=True)
    process.start()
    theirs.close()
    return Worker(name, process, ours)


def ready(workers: Sequence[Worker]) -> list[Worker]:
    """Those that came up; the others are reported."""
    end = time.monotonic() + _READY_SECONDS
    for worker in workers:
        answer = worker.answer(max(0.1, end - time.monotonic()))
        if "error" in answer:
            worker.lost = str(answer["error"])
            say("lost", device=worker.name, reason=worker.lost)
        else:
            worker.steps = tuple(answer["ready"])
            say("card", device=worker.name, cpus=answer["cpus"])
    return [worker for worker in workers if worker.lost is None]


def alone_and_together(workers: Sequence[Worker], seconds: float) -> None:
    """Interleaved: in each round and for each step, every card by itself, then all of them."""
    steps = workers[0].steps
    window = max(_SHORTEST_WINDOW, seconds / (_ROUNDS * len(steps) * (len(workers) + 1)))
    for number in range(_ROUNDS):
        for name in steps:
            for worker in workers:
                with stage("inference.alone"):
                    _run([worker], "alone", name, number, window)
            with stage("inference.together"):
                _run(workers, "together", name, number, window)


def _run(workers: Sequence[Worker], phase: str, name: str, number: int, seconds: float) -> None:
    begin = time.monotonic() + _START_AHEAD
    for worker in workers:
        worker.order(name, seconds, begin)
    for worker in workers:
        fields = worker.answer(seconds + _SLACK_SECONDS)
        if "error" in fields:
            say("lost", device=worker.name, reason=f"{name}: {fields['error']}")
        else:
            say("window", stage=name, phase=phase, device=worker.name, round=number, **fields)


def card_to_card(found: Survey, seconds: float) -> None:
    """From the first card to each other one."""
    place = Place("cuda", 0, tuple(card.uuid for card in found.cards), found.cards[0].numa)
    worker = start(place, str(found.cards[0].index))
    try:
        if ready([worker]):
            for name in worker.steps:
                peer = str(found.cards[int(name.removeprefix("peer_"))].index)
                with stage("inference.peer"):
                    worker.order(name, max(_SHORTEST_WINDOW, seconds / len(worker.steps)), time.monotonic())
                    fields = worker.answer(seconds + _SLACK_SECONDS)
                if "error" not in fields:
                    say(
                        "window",
                        stage="device_to_device",
                        phase="alone",
                        device=worker.name,
                        peer=peer,
                        round=0,
                        **fields,
                    )
    finally:
        worker.close()


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="probes.inference.load.multi_gpu", description=__doc__)
    parser.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--workers", type=int, default=2, help="how many, on a CPU")
    parser.add_argument("--seconds", type=float, default=14.0)
    parser.add_argument("--shape", default="auto")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(words)
    began = time.monotonic()
    found = survey() if options.accelerator == "cuda" else Survey(None)
    workers = [start(place, str(place.index)) for place in places(options, found)]
    try:
        say("node", kind=options.accelerator, devices=len(workers), names=[card.name for card in found.cards])
        live = ready(workers)
        if live:
            alone_and_together(live, began + options.seconds - time.monotonic())
    finally:
        for worker in workers:
            worker.close()
    if options.accelerator == "cuda" and len(found.cards) > 1:
        card_to_card(found, 0.1 * options.seconds)
    say("done", seconds=time.monotonic() - began)
    return 0


def places(options: argparse.Namespace, found: Survey) -> list[Place]:
    """Where the workers go: one a card, or as many as were asked for on a CPU."""
    if options.accelerator == "cpu":
        return [Place("cpu", i, shape=options.shape, seed=options.seed) for i in range(options.workers)]
    return [Place("cuda", c.index, (c.uuid,), c.numa, options.shape, options.seed) for c in found.cards]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
