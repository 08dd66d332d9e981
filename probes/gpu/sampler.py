"""The GPU watcher's live half: all driver calls of the run, on one thread of their own, with a limit on each sample.

A driver that has lost a card may never return from a call; the run must not hang with it. So the calls are made on a
daemon thread, and a sample that takes too long is given up and said to have hung. A sound driver can be slow too: with
persistence mode off it initialises each card when it is first touched, some seconds a card (NVIDIA, "Driver
Persistence"). So the card counts as lost only if the driver still does not answer at the end.
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

START_SECONDS, CARD_SECONDS = 30.0, 10.0  # to start the driver, and to touch a card for the first time
SAMPLE_SECONDS = 15.0


class SamplerThread:
    """Runs functions one after another on a daemon thread; `call` gives up after a time limit."""

    def __init__(self) -> None:
        self._latest: Future[Any] | None = None
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="nvml", daemon=True).start()

    def _work(self) -> None:
        while (given := self._jobs.get()) is not None:
            job, answer = given
            try:
                answer.set_result(job())
            except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
                answer.set_exception(error)

    def call(self, job: Callable[[], Any], limit: float) -> Any:
        """The job's answer. Raises TimeoutError when it hangs, and at once while an earlier one still does.

        A job that was given up is still done, in its turn, if the driver comes back: stages stay nested.
        """
        late = self._latest is not None and not self._latest.done()
        self._latest = answer = Future[Any]()
        self._jobs.put((job, answer))
        if not wait([answer], 0.0 if late else limit).done:
            raise TimeoutError("it still hangs" if late else f"no answer within {limit:.0f} s")
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
            self._driver = self._thread.call(open_driver, START_SECONDS)
            self._thread.call(self._attach, CARD_SECONDS * self._driver.count)
        except TimeoutError as error:
            raise Failed(Code.NVML_HANGS, f"NVML does not start: {error}", "nvidia-smi") from error

    def _attach(self) -> None:
        self._driver.attach()
        cards = {str(card.index): card.facts() for card in self._driver.cards}
        self._facts = {"source": self._driver.source, "driver": self._driver.version, "cards": cards}

    def sample(self, event: str) -> Mapping[str, Any]:
        """``cards``: by index, the readings, ``errors``, ``lost``, and ``late``, how many seconds into the sample it
        was read; ``cost``: seconds that all of it took.

        The first sample has the ``facts`` too.
        """
        if self._closed:
            return {}
        facts, self._facts = {} if self._facts is None else {"facts": self._facts}, None
        try:
            return {**self._thread.call(lambda: self._sample(event), SAMPLE_SECONDS), **facts}
        except TimeoutError as error:
            return {"hung": str(error), **facts}

    def _sample(self, event: str) -> dict[str, Any]:
        """The activity counters last at a stage's begin and first at its end, for all cards.

        Reading eight cards takes a tenth of a second and more, which must not count as the stage's.
        """
        started = time.perf_counter()
        self._depth += event == "begin"
        outermost = self._depth <= 1 and event in ("begin", "end")
        ends = {card.index: self._driver.end(card.index) for card in self._driver.cards} if event == "end" else {}
        cards = {str(card.index): self._card(card, outermost, started) for card in self._driver.cards}
        for card in self._driver.cards if event == "begin" else ():
            self._driver.begin(card.index)
        for index, means in ends.items():
            cards[str(index)]["gpm"] = means
        self._depth -= event == "end"
        xids = self._driver.xids()
        return {"cards": cards, "xids": xids, "cost": time.perf_counter() - started}

    def _card(self, card: Readable, outermost: bool, started: float) -> dict[str, Any]:
        late = time.perf_counter() - started
        found = {**card.fast(), **(card.health() if outermost else {})}
        return {**found, "late": late, "errors": dict(card.errors), "lost": card.lost}

    def close(self) -> None:
        self._closed = True
        with suppress(Exception):  # what it raises, or where it hangs, is no one's figure; the thread is a daemon's
            self._thread.call(self._driver.close, SAMPLE_SECONDS)
        self._thread.close()
