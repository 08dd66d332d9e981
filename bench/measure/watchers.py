"""Watchers: sampled once a second and at each stage's ends, while the measuring probes take their turns."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from bench.measure.jsonl import objects
from bench.measure.probe import Failed, Probe, ProbeError, Watch
from bench.model import Code

PERIOD_SECONDS = 1.0


@dataclass(slots=True)
class Watching:
    """One live watcher: its samples, what it cost, and the error that ended it, if any."""

    probe: Probe
    watch: Watch
    samples: list[dict[str, Any]] = field(default_factory=list)
    cost_seconds: float = 0.0
    error: ProbeError | None = None

    def take(self, event: str, stage: str, now: float) -> None:
        if self.error is not None:
            return
        started = time.perf_counter()
        try:
            sample = self.watch.sample(event)
        except ProbeError as error:
            self.error = error
            return
        except Exception as error:  # noqa: BLE001 - what only looks on must not end what measures
            self.error = Failed(Code.INTERNAL, f"{type(error).__name__}: {error}")
            return
        finally:
            self.cost_seconds += time.perf_counter() - started
        self.samples.append({"t": round(now, 4), "stage": stage, "event": event, **sample})


class Observers:
    """All watchers of a run, on one thread of their own; a stage's ends are sampled by the caller's thread."""

    def __init__(self, watching: Sequence[Watching]) -> None:
        self.watching = list(watching)
        self._stages = ["idle"]
        self.started = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="observers", daemon=True)

    def start(self) -> None:
        if self.watching:
            self._thread.start()

    def _tick(self) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            self._sample("tick")

    def _sample(self, event: str) -> None:
        with self._lock:
            now = time.monotonic() - self.started
            for one in self.watching:
                one.take(event, self._stages[-1], now)

    @contextmanager
    def staged(self, name: str) -> Iterator[None]:
        """Name what is going on; nested stages win. Both ends are sampled, so that differences bracket the stage."""
        self._stages.append(name)
        self._sample("begin")
        try:
            yield
        finally:
            self._sample("end")
            self._stages.pop()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)
        closing, self.watching = self.watching, []  # what is parsed after this is no stage that they could be asked of
        for one in closing:
            with suppress(Exception):  # all that it saw is there already
                one.watch.close()


def to_lines(samples: Sequence[Mapping[str, Any]]) -> str:
    """Samples as JSON lines: how they are kept as evidence."""
    return "".join(json.dumps(sample, allow_nan=False, default=str) + "\n" for sample in samples)


def from_lines(text: str) -> list[dict[str, Any]]:
    """Raises Failed where a line is no sample."""
    return objects(text, "the recorded samples")
