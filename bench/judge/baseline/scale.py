"""How values of a metric are made comparable from night to night, so that a drop is one number for every metric.

- ``ratio``: rates, times, sizes: the natural logarithm, so that a drop of 10 % is the same at every level.
- ``points``: shares whose healthy value is near zero (starvation, loss): the difference itself, because a ratio to
  nearly nothing says nothing.
- ``events``: counts (retransmits, spikes): Anscombe's root 2 sqrt(n + 3/8), which makes Poisson noise a standard
  deviation of about one whatever the mean (Anscombe, Biometrika 35, 1948).

Scaled values always fall when the metric gets worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from bench.model import Metric


class ScaleKind(StrEnum):
    RATIO = "ratio"
    POINTS = "points"
    EVENTS = "events"


_LEAST_POINTS = 0.01  # a share is known to about a point: what is less is no change
_NOTHING = -744.0  # the logarithm of the smallest positive float
_FLOOR_POINTS = 0.0025
_ROOT = 1.0  # of counts on their scale: the least that matters, and the least deviation


class Scale(NamedTuple):
    """From a value to the scale and back, for one metric. ``sign`` is +1 where higher is better, else -1."""

    kind: ScaleKind
    sign: float

    def of(self, value: float) -> float:
        """The value on the scale. Nothing at all (a rate of 0) lies far below every rate there is."""
        if self.kind is ScaleKind.POINTS:
            return self.sign * value
        if self.kind is ScaleKind.EVENTS:
            return self.sign * 2.0 * math.sqrt(max(value, 0.0) + 0.375)
        return self.sign * (math.log(value) if value > 0.0 else _NOTHING)

    def fits(self, value: float) -> bool:
        """A rate or a time of nothing at all is a fault: it is not learnt from, nor how sessions differ."""
        return self.kind is not ScaleKind.RATIO or value > 0.0

    def back(self, scaled: float) -> float:
        """The value of the metric at that point of the scale."""
        plain = self.sign * scaled
        if self.kind is ScaleKind.POINTS:
            return plain
        if self.kind is ScaleKind.EVENTS:
            return max(0.0, (max(plain, 0.0) / 2.0) ** 2 - 0.375)
        return math.exp(min(plain, 709.0))

    def ratio(self, centre: float, drop: float) -> float:
        """A drop below ``centre`` as a share of the expected value (points and events: of one), worse is positive.

        1 - observed/expected where higher is better, observed/expected - 1 where lower is; for ``points`` the
        difference; for ``events`` how many more there are.
        """
        if self.kind is ScaleKind.RATIO:
            return -self.sign * math.expm1(min(-self.sign * drop, 709.0))
        return -self.sign * (self.back(centre - drop) - self.back(centre))

    def effect(self, ratio: float, centre: float) -> float:
        """The smallest drop that matters, on the scale: ``ratio`` of the expected value.

        A share: at least a point; a count: at least one on the root scale, 4 more where 4 are expected.
        """
        if self.kind is ScaleKind.RATIO:
            return -self.sign * math.log1p(-self.sign * ratio)
        if self.kind is ScaleKind.POINTS:
            return max(abs(centre) * ratio, _LEAST_POINTS)
        return _ROOT

    def asked(self, ratio: float, centre: float) -> float:
        """The drop that must be seen, on the scale. For a share half of ``ratio`` in points (10 where 20 % are asked:
        the starvation that MLPerf Storage allows); of a count nothing is asked, because none is expected.
        """
        if self.kind is ScaleKind.RATIO:
            return self.effect(ratio, centre)
        return ratio / 2.0 if self.kind is ScaleKind.POINTS else math.inf

    def floor(self, ratio: float) -> float:
        """The least standard deviation to be believed, on the scale."""
        if self.kind is ScaleKind.RATIO:
            return ratio
        return _FLOOR_POINTS if self.kind is ScaleKind.POINTS else _ROOT


def scale_of(metric: Metric, values: Iterable[float]) -> Scale:
    """The scale for a metric, given the values that it had. Logarithms where nothing forbids them."""
    sign = -1.0 if metric.better == "lower" else 1.0
    if metric.unit == "" and metric.better == "lower":
        return Scale(ScaleKind.EVENTS, sign)
    small = metric.unit == "ratio" and (metric.better == "lower" or any(value <= 0.0 for value in values))
    return Scale(ScaleKind.POINTS if small else ScaleKind.RATIO, sign)
