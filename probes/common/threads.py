"""Calls into a driver on daemon threads, because a driver that has lost a card may never return from a call on it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class CallThread:
    """Runs functions one after another on a daemon thread; whoever asks waits no longer than it wants to.

    Between them it runs ``meanwhile``, where that is set, over and over: it answers after how many seconds again.
    """

    def __init__(self, name: str) -> None:
        self.meanwhile: Callable[[], float] | None = None
        self._latest: Future[Any] | None = None
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        due = None
        while True:
            try:
                given = self._jobs.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except queue.Empty:
                meanwhile = self.meanwhile
                due = time.monotonic() + meanwhile() if meanwhile else None
                continue
            if given is None:
                return
            job, answer = given
            try:
                answer.set_result(job())
            except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
                answer.set_exception(error)
            due = due or (time.monotonic() if self.meanwhile else None)

    @property
    def late(self) -> bool:
        """Does an earlier job still hang?"""
        return self._latest is not None and not self._latest.done()

    def ask(self, job: Callable[[], T]) -> Future[T]:
        """A job that is given up is still done, in its turn, if the driver comes back: stages stay nested."""
        self._latest = answer = Future[Any]()
        self._jobs.put((job, answer))
        return answer

    def call(self, job: Callable[[], T], limit: float) -> T:
        """The job's answer. Raises TimeoutError when it hangs, and at once while an earlier one still does."""
        late = self.late
        answer = self.ask(job)
        if not wait([answer], 0.0 if late else limit).done:
            raise TimeoutError(hangs(limit, late))
        return answer.result()

    def close(self) -> None:
        self._jobs.put(None)


class ThreadEach:
    """A thread for each card, so that one that hangs costs its own answers only.

    ``hung``: by card, why it gave no answer when it was last asked.
    """

    def __init__(self, cards: Iterable[int]) -> None:
        self.threads = {card: CallThread(f"gpu {card}") for card in cards}
        self.hung: dict[int, str] = {}

    def each(self, job: Callable[[int], T], limit: float) -> dict[int, T]:
        """What the cards answer, all asked at once. It waits on while within ``limit`` seconds another one does, since
        drivers start cards one after another; and never for a card that still hangs.
        """
        late = {card for card, thread in self.threads.items() if thread.late}
        asked = {card: thread.ask(partial(job, card)) for card, thread in self.threads.items()}
        progress, waiting = True, {answer for card, answer in asked.items() if card not in late}
        while waiting and progress:
            done, waiting = wait(waiting, limit, FIRST_COMPLETED)
            progress = bool(done)
        answers = {card: answer.result() for card, answer in asked.items() if answer.done()}
        self.hung = {card: hangs(limit, card in late) for card in asked if card not in answers}
        return answers

    def close(self) -> None:
        for thread in self.threads.values():
            thread.close()


def hangs(limit: float, late: bool) -> str:
    return "it still hangs" if late else f"no answer within {limit:.0f} s"
