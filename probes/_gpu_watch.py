"""The GPU watcher's live half: all NVML calls of the run, on one thread of their own, with a limit on each sample.

A driver that has lost a card may never return from a call; the run must not hang with it. So the calls are made on a
daemon thread, and a sample that takes too long is given up and said to have hung.
"""

from __future__ import annotations

import ctypes
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from probes import _nvml
from probes._nvml_card import Card
from probes._nvml_gpm import Gpm

_LONGEST_SAMPLE_SECONDS = 3.0
_MOST_EVENTS = 1000  # at one sample


class Worker:
    """Runs functions one after another on a daemon thread; `call` gives up after a time limit, for good."""

    def __init__(self, limit: float = _LONGEST_SAMPLE_SECONDS) -> None:
        self._limit, self._hung = limit, False
        self._jobs: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="nvml", daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                answer: Any = job()
            except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
                answer = error
            self._answers.put(answer)

    def call(self, job: Callable[[], Any]) -> Any:
        """The job's answer. Raises TimeoutError when it hangs, now and at every later call."""
        if self._hung:
            raise TimeoutError("it hung before")
        self._jobs.put(job)
        try:
            answer = self._answers.get(timeout=self._limit)
        except queue.Empty:
            self._hung = True
            raise TimeoutError(f"no answer within {self._limit:.0f} s") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self._jobs.put(None)


class GpuWatch:
    """Samples of every card: the fast set always, the health set around each probe, GPM around each stage.

    Raises NvmlMissing where there is no NVML, or no card.
    """

    def __init__(self, worker: Worker | None = None) -> None:
        self._worker = worker or Worker()
        self._depth, self._closed = 0, False
        try:
            self._worker.call(self._open)
        except TimeoutError as error:
            raise _nvml.NvmlBroken(f"nvml_hangs: NVML does not start: {error}", "nvidia-smi") from error

    def _open(self) -> None:
        self._nvml, count = _nvml.load(), _nvml.device_count()
        self._cards = [Card(self._nvml, index) for index in range(count)]
        self._gpms = [Gpm(card) for card in self._cards]
        self._events = Events(self._nvml, self._cards)
        self._facts: dict[str, Any] | None = {
            "driver": _nvml.driver_version(),
            "cards": {str(card.index): card.facts() for card in self._cards},
        }

    def sample(self, event: str) -> Mapping[str, Any]:
        """``cards``: by index, the readings, ``errors``, ``lost``; ``cost``: seconds that all of it took."""
        if self._closed:
            return {}
        try:
            return dict(self._worker.call(lambda: self._sample(event)))
        except TimeoutError as error:
            return {"hung": str(error)}

    def _sample(self, event: str) -> dict[str, Any]:
        started = time.perf_counter()
        self._depth += event == "begin"
        outermost = self._depth <= 1 and event in ("begin", "end")
        cards = {str(c.index): self._card(c, g, event, outermost) for c, g in zip(self._cards, self._gpms, strict=True)}
        self._depth -= event == "end"
        sample: dict[str, Any] = {"cards": cards, "xids": self._events.take()}
        if self._facts is not None:
            sample["facts"], self._facts = self._facts, None
        return {**sample, "cost": time.perf_counter() - started}

    def _card(self, card: Card, gpm: Gpm, event: str, outermost: bool) -> dict[str, Any]:
        found: dict[str, Any] = {**card.fast(), **(card.health() if outermost else {})}
        if event == "begin":
            gpm.begin()
        elif event == "end":
            found["gpm"] = gpm.end()
        return {**found, "errors": dict(card.errors), "lost": card.lost}

    def close(self) -> None:
        self._closed = True
        try:
            self._worker.call(self._close)
        except TimeoutError:
            return  # it hangs in the driver; the thread ends with the process
        self._worker.close()

    def _close(self) -> None:
        for gpm in self._gpms:
            gpm.close()
        self._events.close()
        self._nvml.nvmlShutdown()


def _address(handle: Any) -> int | None:
    """Which card a handle is: NVML gives the same pointer each time."""
    return ctypes.cast(handle, ctypes.c_void_p).value if handle is not None else None


class Events:
    """Xid errors as they happen. Without the event interface there are none to read, and ``why`` says so."""

    def __init__(self, nvml: Any, cards: list[Card]) -> None:
        self._nvml, self._set = nvml, None
        self._cards = {_address(card.handle): card.index for card in cards}
        self.why: str | None = None
        try:
            self._set = nvml.nvmlEventSetCreate()
            for card in (card for card in cards if card.lost is None):
                nvml.nvmlDeviceRegisterEvents(card.handle, nvml.nvmlEventTypeXidCriticalError, self._set)
        except (nvml.NVMLError, AttributeError) as error:
            self.why = type(error).__name__.removeprefix("NVMLError_")

    def take(self) -> list[list[int]] | None:
        """[card's index or -1, Xid] of each since the last call; None where they cannot be heard."""
        if self._set is None or self.why is not None:
            return None
        found: list[list[int]] = []
        try:
            while len(found) < _MOST_EVENTS:
                event = self._nvml.nvmlEventSetWait_v2(self._set, 0)
                found.append([self._cards.get(_address(event.device), -1), int(event.eventData)])
        except self._nvml.NVMLError_Timeout:
            return found
        except (self._nvml.NVMLError, AttributeError) as error:
            self.why = type(error).__name__.removeprefix("NVMLError_")
        return found

    def close(self) -> None:
        if self._set is not None:
            try:
                self._nvml.nvmlEventSetFree(self._set)
            except self._nvml.NVMLError:
                self._set = None
