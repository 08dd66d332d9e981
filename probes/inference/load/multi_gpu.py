"""All accelerators of a node: each alone, then all at once, in interleaved rounds; then card to card.

``python -m probes.inference.load.multi_gpu --accelerator cuda --seconds 14``. The drop from alone to together is what
the cards share: PCIe switches, power, the host's memory. Answers in JSON lines like the other load. Each accelerator
has a process of its own (multiprocessing's spawn), bound to the CPUs beside it; torch is imported in there only, after
the process has chosen its card.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from probes.common.nvml import Survey, joined_by, pin, survey
from probes.common.pipe import Done
from probes.inference.events import MARK_SECONDS, Checked, Lost, NodeFacts, Pinned, Window, measured, say, stage
from probes.inference.load.device import Device, TimedWork, brief, ceilings, choose, timer
from probes.inference.shapes import SHAPES, shape_for

CHECK = "check"  # the one step that is no window
_START_AHEAD = 0.02  # orders go out this long before all begin at one moment
_SLACK_SECONDS = 20.0  # beyond a window's length, before a worker is given up
_READY_SECONDS, _OTHERS_READY_SECONDS = 90.0, 15.0  # until the first is ready, and each further one
_ROUNDS = 3
_SHORTEST_WINDOW = 0.05  # seconds: tens of matrix products or copies, ten decode steps
_TOO_LATE = 1.1  # times the seconds that were given
_PR_SET_PDEATHSIG = 1
_CONTEXT, _LENGTH = 1023, 2048  # tokens in the cache while decoding
_PEER_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which accelerator a worker has. ``kind`` is cuda or cpu; ``uuids`` are those it may see, its own first."""

    kind: str
    index: int
    uuids: tuple[str, ...] = ()
    cpus: frozenset[int] = frozenset()
    shape: str = "auto"
    seed: int = 7


# --- in a worker's process

Step = Callable[[float, float], dict[str, Any]]


def work(pipe: Connection, mine: Assignment) -> None:
    """Bind to the CPUs beside the card; answer ``(step, seconds, start)`` with a window or an error, until None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if mine.kind == "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine.uuids)
    cpus = pin(mine.cpus)
    steps: dict[str, Step] = {}

    def prepare() -> dict[str, Any]:
        steps.update(_prepare(mine))
        return {"ready": tuple(name for name in steps if name != CHECK), "cpus": cpus}

    pipe.send(_answer(prepare))
    with suppress(EOFError):
        while steps and (order := pipe.recv()) is not None:
            name, *when = order
            pipe.send(_answer(partial(steps[name], *when)))


def _answer(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it gives, or the error: whatever torch raises is told to the parent, which says it."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - as above
        return {"error": brief(error)}


def _prepare(mine: Assignment) -> dict[str, Step]:
    """Every step this worker can run, warm, by name."""
    import torch

    from probes.inference.load.soak import soak

    torch.set_num_threads(1)
    device = choose(torch, mine.kind, 0, Survey(None))
    if len(mine.uuids) > 1:
        steps = _peers(torch, mine.uuids)
    else:
        steps = {**ceilings(torch, device), "decode": _decode(device, mine)}
    for step, _ in steps.values():
        step()
    time_steps = timer(torch, device)

    def window(step: Callable[[], None], fields: dict[str, Any], seconds: float, start: float) -> dict[str, Any]:
        time.sleep(max(0.0, start - time.monotonic()))  # one clock for all processes
        return {**fields, **measured(lambda: time_steps(step, seconds).fields)}

    def check(seconds: float, start: float) -> dict[str, Any]:
        time.sleep(max(0.0, start - time.monotonic()))
        return soak(torch, device, seconds, mine.seed)

    return {**{name: partial(window, step, fields) for name, (step, fields) in steps.items()}, CHECK: check}


def _decode(device: Device, mine: Assignment) -> TimedWork:
    """Batch 1 at a fixed length of the cache."""
    from probes.inference.load.decoder import Decoder

    shape = SHAPES.get(mine.shape) or shape_for(device.kind, device.facts["memory_free_bytes"], quick=True)
    context, length = (_CONTEXT, _LENGTH) if device.kind == "cuda" else (64, 128)
    decoder = Decoder(shape, device.torch_name, device.dtype, 1, length, mine.seed)

    def step() -> None:
        decoder.positions.fill_(context)
        decoder.decode(1, context)

    read = shape.decode_bytes(1, decoder.read_length(context), device.element_bytes)
    return step, {"tokens": 1, "bytes": read, "batch": 1, "shape": shape.name}


def _peers(torch: Any, uuids: Sequence[str]) -> dict[str, TimedWork]:
    """Copies from card 0 to each of the others that this process sees, by their number, and what they go over."""
    source = torch.empty(_PEER_BYTES, dtype=torch.uint8, device="cuda:0").random_(0, 256)
    made: dict[str, TimedWork] = {}
    for i, uuid in enumerate(uuids[1:], 1):
        target = torch.empty(_PEER_BYTES, dtype=torch.uint8, device=f"cuda:{i}")
        over = joined_by(uuids[0], uuid) if torch.cuda.can_device_access_peer(0, i) else "host"
        made[str(i)] = partial(target.copy_, source, non_blocking=True), {"bytes": _PEER_BYTES, "transport": over}
    return made


# --- in the program that starts them


class Worker:
    """One process. ``lost`` says why it no longer answers. It says later that it is ready."""

    def __init__(self, mine: Assignment) -> None:
        self.name = str(mine.index)
        self.steps: tuple[str, ...] = ()
        self.lost: str | None = None
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, mine), name=f"worker-{self.name}", daemon=True)
        self.process.start()
        theirs.close()

    def order(self, name: str, seconds: float, start: float) -> None:
        self._try(self.pipe.send, (name, seconds, start))

    def answer(self, timeout: float) -> dict[str, Any]:
        """Its answer; an ``error`` when it has none to give."""
        if self.lost is None and not self.pipe.poll(timeout):
            self.lost = f"no answer within {timeout:.0f} s"
        answer: dict[str, Any] | None = self._try(self.pipe.recv)
        return {"error": self.lost} if answer is None else answer

    def _try(self, action: Callable[..., Any], *arguments: Any) -> Any:
        if self.lost is None:
            try:
                return action(*arguments)
            except (OSError, EOFError) as error:
                self.lost = f"its process ended ({type(error).__name__}, status {self.process.exitcode})"
        return None

    def close(self) -> None:
        self._try(self.pipe.send, None)
        self.process.join(2.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5.0)
        self.pipe.close()


def ready(workers: Sequence[Worker]) -> list[Worker]:
    """Those that came up; the others are reported. They start at once, so one that hangs takes no time from others."""
    starting, limit = {worker.pipe: worker for worker in workers}, _READY_SECONDS
    while starting and (up := wait(starting, limit)):
        for worker in (starting.pop(pipe) for pipe in up if isinstance(pipe, Connection)):
            _came_up(worker, worker.answer(0.0))
        limit = _OTHERS_READY_SECONDS
    for worker in starting.values():
        _came_up(worker, {"error": "it does not start"})
    return [worker for worker in workers if worker.lost is None]


def _came_up(worker: Worker, answer: dict[str, Any]) -> None:
    if "error" in answer:
        worker.lost = str(answer["error"])
        say(Lost(worker.name, worker.lost))
    else:
        worker.steps = answer["ready"]
        say(Pinned(worker.name, answer["cpus"]))


def alone_and_together(workers: Sequence[Worker], seconds: float) -> None:
    """Interleaved: in each round and for each step, every card by itself, then all of them.

    Many cards have short windows, and then fewer rounds: at least one, and no further one that would end too late.
    """
    steps, began = workers[0].steps, time.monotonic()
    each = seconds / (_ROUNDS * len(steps)) - 2 * MARK_SECONDS
    window = max(_SHORTEST_WINDOW, each / (len(workers) + 1) - _START_AHEAD)
    for number in range(_ROUNDS):
        for name in steps:
            with stage("inference.alone"):
                for worker in workers:
                    _run([worker], "alone", name, number, window)
            with stage("inference.together"):
                _run(workers, "together", name, number, window)
        spent = time.monotonic() - began
        if spent * (number + 2) / (number + 1) > seconds * _TOO_LATE:
            break


def _run(workers: Sequence[Worker], phase: str, name: str, number: int, seconds: float) -> None:
    for worker, fields in _answers(workers, name, seconds):
        say(Window(stage=name, phase=phase, device=worker.name, round=number, **fields))


def check_together(workers: Sequence[Worker], seconds: float) -> None:
    """Do all cards compute right, and the same, with all of them at work?"""
    with stage("inference.check"):
        found = list(_answers(workers, CHECK, seconds))
    for worker, fields in found:
        say(Checked(device=worker.name, **fields))


def _answers(workers: Sequence[Worker], name: str, seconds: float) -> Iterator[tuple[Worker, dict[str, Any]]]:
    """What a step that all begin at once gives; who has nothing to give is reported."""
    begin = time.monotonic() + _START_AHEAD
    for worker in workers:
        worker.order(name, seconds, begin)
    for worker in workers:
        fields = worker.answer(seconds + _SLACK_SECONDS)
        if "error" in fields:
            say(Lost(worker.name, f"{name}: {fields['error']}"))
        else:
            yield worker, fields


def card_to_card(worker: Worker, found: Survey, seconds: float) -> None:
    """From the first card to each other one."""
    for name in worker.steps:  # none, where it did not come up
        with stage("inference.peer"):
            worker.order(name, max(_SHORTEST_WINDOW, seconds / len(worker.steps)), time.monotonic())
            fields = worker.answer(seconds + _SLACK_SECONDS)
        if "error" not in fields:
            peer = str(found.cards[int(name)].index)
            say(Window(stage="device_to_device", phase="alone", device=worker.name, peer=peer, round=0, **fields))


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="probes.inference.load.multi_gpu", description=__doc__)
    parser.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--workers", type=int, default=2, help="how many, on a CPU")
    parser.add_argument("--seconds", type=float, default=14.0, help="from when all workers are ready")
    parser.add_argument("--soak", type=float, default=1.0, help="further seconds of products whose values are compared")
    parser.add_argument("--shape", default="auto")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(words)
    began = time.monotonic()
    found = survey() if options.accelerator == "cuda" else Survey(None)
    with ExitStack() as opened:
        workers, peers = [
            [opened.enter_context(closing(Worker(mine))) for mine in given]
            for given in (assignments(options, found), from_the_first(found))
        ]
        names = {card.index: card.name for card in found.cards}
        say(NodeFacts(options.accelerator, tuple(names.get(i, "") for i in range(1 + max(names, default=-1)))),
            devices=len(workers))  # fmt: skip
        for index, why in found.hung.items():
            say(Lost(str(index), f"the driver does not answer: {why}"))
        up = ready([*workers, *peers])
        if live := [worker for worker in workers if worker in up]:
            alone_and_together(live, options.seconds)
            check_together(live, options.soak)
        for worker in (worker for worker in peers if worker in up):
            card_to_card(worker, found, 0.1 * options.seconds)
    say(Done(time.monotonic() - began))
    return 0


def assignments(options: argparse.Namespace, found: Survey) -> list[Assignment]:
    """One worker a card, or as many as were asked for on a CPU."""
    if options.accelerator == "cpu":
        return [Assignment("cpu", i, shape=options.shape, seed=options.seed) for i in range(options.workers)]
    return [Assignment("cuda", c.index, (c.uuid,), c.cpus, options.shape, options.seed) for c in found.cards]


def from_the_first(found: Survey) -> list[Assignment]:
    """One more worker, for copies from the first card to each other one, where there are several."""
    uuids = tuple(card.uuid for card in found.cards)
    return [Assignment("cuda", card.index, uuids, card.cpus) for card in found.cards[:1] if len(uuids) > 1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
