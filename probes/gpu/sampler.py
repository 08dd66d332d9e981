"""The GPU watcher's live half: all driver calls of the run, on one thread of their own, with a limit on each sample.

A driver that has lost a card may never return from a call; the run must not hang with it. So the calls are made on a
daemon thread, and a sample that takes too long is given up and said to have hung.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any

from bench.measure.probe import Failed
from bench.model import Code
from probes.common.nvml import Readable
from probes.gpu.drivers import open_driver

_LONGEST_SAMPLE_SECONDS = 3.0


class SamplerThread:
    """Runs functions one after another on a daemon thread; `call` gives up after a time limit, for good."""

    def __init__(self, limit: float = _LONGEST_SAMPLE_SECONDS) -> None:
        self._limit, self._hung = limit, False
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="nvml", daemon=True).start()

    def _work(self) -> None:
        while (given := self._jobs.get()) is not None:
            job, answer = given
            try:
                answer.set_result(job())
            except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
                answer.set_exception(error)

    def call(self, job: Callable[[], Any]) -> Any:
        """The job's answer. Raises TimeoutError when it hangs, now and at every later call."""
        if self._hung:
            raise TimeoutError("it hung before")
        answer: Future[Any] = Future()
        self._jobs.put((job, answer))
        self._hung = not wait([answer], self._limit).done
        if self._hung:
            raise TimeoutError(f"no answer within {self._limit:.0f} s")
        return answer.result()

    def close(self) -> None:
        self._jobs.put(None)


class GpuWatch:
    """Samples of every card: the fast set always, the health set around each probe, GPM around each stage.

    Raises Unsupported where there is neither NVML nor amdsmi, or no card; Failed where NVML fails or hangs.
    """

    def __init__(self) -> None:
        self._thread = SamplerThread()
        self._depth, self._closed = 0, False
        self._facts: dict[str, Any] | None = None
        try:
            self._thread.call(self._open)
        except TimeoutError as error:
            raise Failed(Code.NVML_HANGS, f"NVML does not start: {error}", "nvidia-smi") from error

    def _open(self) -> None:
        self._driver = open_driver()
        cards = {str(card.index): card.facts() for card in self._driver.cards}
        self._facts = {"source": self._driver.source, "driver": self._driver.version, "cards": cards}

    def sample(self, event: str) -> Mapping[str, Any]:
        """``cards``: by index, the readings, ``errors``, ``lost``; ``cost``: seconds that all of it took."""
        if self._closed:
            return {}
        try:
            return dict(self._thread.call(lambda: self._sample(event)))
        except TimeoutError as error:
            return {"hung": str(error)}

    def _sample(self, event: str) -> dict[str, Any]:
        started = time.perf_counter()
        self._depth += event == "begin"
        outermost = self._depth <= 1 and event in ("begin", "end")
        cards = {str(card.index): self._card(card, event, outermost) for card in self._driver.cards}
        self._depth -= event == "end"
        sample: dict[str, Any] = {"cards": cards, "xids": self._driver.xids()}
        if self._facts is not None:
            sample["facts"], self._facts = self._facts, None
        return {**sample, "cost": time.perf_counter() - started}

    def _card(self, card: Readable, event: str, outermost: bool) -> dict[str, Any]:
        found: dict[str, Any] = {**card.fast(), **(card.health() if outermost else {})}
        if event == "begin":
            self._driver.begin(card.index)
        elif event == "end":
            found["gpm"] = self._driver.end(card.index)
        return {**found, "errors": dict(card.errors), "lost": card.lost}

    def close(self) -> None:
        self._closed = True
        with suppress(TimeoutError):  # it hangs in the driver; the thread ends with the process
            self._thread.call(self._driver.close)
            self._thread.close()
