"""The GPU watcher's live half: each card's driver calls on a thread of its own, with a limit on each sample.

A driver that has lost a card may never return from a call on it; neither the run nor the other cards may hang with it.
A sound driver can be slow too: with persistence mode off it initialises each card when it is first touched, some
seconds a card (NVIDIA, "Driver Persistence"). So a card is lost only if it still does not answer at the end.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bench.measure.probe import Failed
from bench.model import Code
from probes.common.nvml import CARD_SECONDS, Readable
from probes.common.threads import CallThread, ThreadEach
from probes.gpu.drivers import open_driver
from probes.gpu.parse import FAULTS

START_SECONDS = 30.0  # to start the driver
SAMPLE_SECONDS = 15.0


class Polls:
    """The reasons that hold a card's clocks down, asked at one random moment in each slot of time, on its own thread.

    For a driver that counts no time for them. However long they hold, the chance that a random moment falls into them
    is their share of the time, so what was seen is a count of independent trials; that each slot has one makes it no
    more spread (Hoeffding, Annals of Mathematical Statistics 27 (1956) 713). A slow driver makes the slots longer.
    """

    SLOT_SECONDS, LEAST_TIMES = 0.05, 50.0

    def __init__(self, card: Readable) -> None:
        self._card, self._random = card, random.Random()
        self._seen: Counter[int] = Counter()
        self._ends, self._cost = time.monotonic(), math.inf

    def __call__(self) -> float:
        """Ask once; how long until the next moment."""
        started = time.monotonic()
        bits = self._card.reasons()
        now = time.monotonic()
        self._cost = min(self._cost, now - started)
        if bits is not None:
            self._seen[bits] += 1
        slot = max(self.SLOT_SECONDS, self.LEAST_TIMES * self._cost)
        begins = max(self._ends, now)
        self._ends = begins + slot
        return begins + slot * self._random.random() - now

    def taken(self) -> dict[str, int]:
        """How often each combination of bits was seen since the last time."""
        seen, self._seen = self._seen, Counter()
        return {str(bits): times for bits, times in seen.items()}


class GpuWatch:
    """Samples of every card: the fast set always, the health set at first and around each probe, GPM around each stage.

    Raises Unsupported where there is neither NVML nor amdsmi, or no card; Failed where NVML fails, or every card hangs.
    """

    def __init__(self) -> None:
        self._thread = CallThread("driver")
        self._depth, self._closed = 0, False
        self._cards: dict[int, Readable] = {}
        self._polls: dict[int, Polls] = {}
        try:
            self._driver = driver = self._thread.call(open_driver, START_SECONDS)
        except TimeoutError as error:
            raise Failed(Code.NVML_HANGS, f"NVML does not start: {error}", "nvidia-smi") from error
        self._threads = ThreadEach(driver.indices())
        if not (facts := self._threads.each(self._open, CARD_SECONDS)):
            raise Failed(Code.NVML_HANGS, f"no GPU answers: {min(self._threads.hung.values())}", "nvidia-smi")
        cards = {str(index): facts.get(index, {}) for index in self._threads.threads}
        self._facts: dict[str, Any] | None = {"source": driver.source, "driver": driver.version, "cards": cards}

    def _open(self, index: int) -> dict[str, Any]:
        self._cards[index] = card = self._driver.card(index)
        return card.facts()

    def sample(self, event: str) -> Mapping[str, Any]:
        """``cards``: by index the readings, ``polls`` since the last sample, ``errors``, ``lost``, and how many seconds
        ``late`` it was read; or why the card ``hung``. ``cost``: seconds that all of it took.

        The first sample has the ``facts`` and the health set too. The activity counters last at a stage's begin and
        first at its end, for all cards: reading eight of them takes a tenth of a second and more, which must not count
        as the stage's.
        """
        if self._closed:
            return {}
        facts, self._facts = {} if self._facts is None else {"facts": self._facts}, None
        started, threads = time.perf_counter(), self._threads
        self._depth += event == "begin"
        with_health = bool(facts) or (self._depth <= 1 and event in ("begin", "end"))
        means = threads.each(self._driver.end, SAMPLE_SECONDS) if event == "end" else {}
        found = threads.each(lambda index: self._read(index, with_health, started), SAMPLE_SECONDS)
        if event == "begin":
            threads.each(self._driver.begin, SAMPLE_SECONDS)
        self._depth -= event == "end"
        cards: dict[str, Any] = {str(index): {"hung": why} for index, why in threads.hung.items()}
        for index, card in found.items():
            cards[str(index)] = {**card, "gpm": means[index]} if index in means else card
        return {"cards": cards, "xids": self._xids(), "cost": time.perf_counter() - started, **facts}

    def _read(self, index: int, with_health: bool, started: float) -> dict[str, Any]:
        card, late = self._cards[index], time.perf_counter() - started
        found = {**card.fast(), **(card.health() if with_health else {})}
        if polls := self._polls.get(index):
            found["polls"] = polls.taken()
        elif "reasons" in found and not FAULTS & found.keys():
            self._threads.threads[index].meanwhile = self._polls[index] = Polls(card)
        return {**found, "late": late, "errors": dict(card.errors), "lost": card.lost}

    def _xids(self) -> list[list[int]] | None:
        """None where the driver does not say in time."""
        with suppress(TimeoutError):
            return self._thread.call(self._driver.xids, SAMPLE_SECONDS)
        return None

    def close(self) -> None:
        """Whether the driver raises or hangs no longer matters to any figure; the threads are daemons."""
        self._closed = True
        for thread in self._threads.threads.values():
            thread.meanwhile = None
        with suppress(Exception):
            self._threads.each(self._driver.let_go, SAMPLE_SECONDS)
            self._thread.call(lambda: self._driver.close(self._threads.hung), SAMPLE_SECONDS)
        self._threads.close()
        self._thread.close()
