"""The highest rate of arrivals at which the limits are kept: double until they are not, then bisect. Pure.

GuideLLM searches so by concurrency; here it is the rate, because only an open loop shows queueing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from probes.inference.limits import Held

_CLOSE_ENOUGH = 1.1  # a failing rate this much above the best passing one ends the search
_MOST_DOUBLINGS = 10


@dataclass(frozen=True, slots=True)
class Trial:
    """One window at one rate (requests a second)."""

    rate: float
    kept: int
    violated: int
    outcome: Held


@dataclass(slots=True)
class Search:
    """What was tried so far."""

    trials: list[Trial] = field(default_factory=list)

    def add(self, trial: Trial) -> None:
        self.trials.append(trial)

    @property
    def failed(self) -> float | None:
        """The lowest rate that did not pass; an undecided one did not, so the rates above it are not claimed."""
        return min((trial.rate for trial in self.trials if trial.outcome is not Held.PASS), default=None)

    @property
    def best(self) -> float | None:
        """The highest rate that passed below every one that did not."""
        passed = (trial.rate for trial in self.trials if trial.outcome is Held.PASS)
        return max((rate for rate in passed if self.failed is None or rate < self.failed), default=None)

    @property
    def next_rate(self) -> float | None:
        """What to try next; None when the answer is close enough, or out of reach."""
        if self.failed is None or self.best is None:
            far = len(self.trials) > _MOST_DOUBLINGS
            return None if far or not self.trials else (2.0 * (self.best or 0.0) or 0.5 * (self.failed or 0.0))
        return None if self.failed <= self.best * _CLOSE_ENOUGH else (self.best * self.failed) ** 0.5


def highest_rate(first: Trial, trial: Callable[[float], Trial], more: Callable[[], bool]) -> Search:
    """Search on from a first trial for as long as ``more()`` says that there is time."""
    search = Search()
    search.add(first)
    while (rate := search.next_rate) is not None and more():
        search.add(trial(rate))
    return search
