"""When enough was seen of a share to say on which side of a limit it lies. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.judge.statistics import binomial_interval

_ERROR = 0.05


class Looks(NamedTuple):
    """At which numbers of samples the shares are looked at, the last at ``most``, and how sure each look must be.

    The error of 5 % is shared evenly among the looks (Bonferroni), and each uses Clopper and Pearson's exact interval,
    so that the interval at which one stops holds the truth in at least 95 % of surveys, whenever that is.
    """

    most: int
    first: int = 128
    step: float = 1.5

    @property
    def sizes(self) -> tuple[int, ...]:
        sizes, size = [], float(self.first)
        while size < self.most:
            sizes.append(int(size))
            size *= self.step
        return (*sizes, self.most)

    @property
    def confidence(self) -> float:
        return 1.0 - _ERROR / len(self.sizes)

    def interval(self, k: int, n: int) -> tuple[float, float]:
        return binomial_interval(k, n, self.confidence)

    def clear(self, k: int, n: int, limit: float) -> bool:
        """Is the share on one side of the limit, for sure enough?"""
        low, high = self.interval(k, n)
        return limit <= low or high < limit

    def settled(self, good: Sequence[bool], limit: float) -> int | None:
        """The number of samples at which the first look is clear; None where none is, of those that were reached."""
        reached = (n for n in self.sizes if n <= len(good))
        return next((n for n in reached if self.clear(sum(good[:n]), n, limit)), None)
