"""One series night after night: is tonight worse than the node's own nights explain?

The unit is one value a night, made comparable by a scale (`bench.judge.baseline.scale`): logarithms for rates and
times, so that effects are ratios. Tonight is *suspect* when it lies below a one-sided prediction interval over the last
nights and the drop is large enough to matter; it is *regressed* when a second, separate measurement is bad too, or when
the mean of the last two to seven nights lies below the interval for such a mean (a small shift that lasts).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from bench.judge.baseline.prediction import Baseline, Policy, Prior, baseline_of, memory
from bench.judge.baseline.scale import Scale
from bench.judge.statistics import z_quantile


class SeriesState(StrEnum):
    """What tonight's value says of one series (contract, section 5), from what matters least."""

    OK = "ok"
    WARMING = "warming"
    UNDETECTABLE = "undetectable"
    SUSPECT = "suspect"
    MISSING = "missing"
    REGRESSED = "regressed"


@dataclass(frozen=True, slots=True)
class SeriesCall:
    """The decision on one night. ``drop`` and ``least`` (the smallest drop that would be seen) are on the scale.

    ``base`` is what it was compared with; None while warming, where ``centre`` is the mean of what there is.
    ``since``: how many nights the shift has lasted when it is one that lasts, else 1. ``pinned``: the comparison was
    with the pinned nights.
    """

    state: SeriesState
    nights: int
    centre: float | None = None
    drop: float | None = None
    least: float | None = None
    since: int = 1
    pinned: bool = False


SEVERITY = tuple(SeriesState)


@dataclass(frozen=True, slots=True)
class Night:
    """One night's value on the scale, and that of its second measurement if there was one. None: not measured.

    ``usable`` is False for a night that was judged bad, interrupted or contaminated: shown, never part of what is
    normal.
    """

    value: float | None
    again: float | None = None
    usable: bool = True


@dataclass(slots=True)
class Track:
    """What is known of one series after the nights that were entered, in their order.

    Entering decides which nights are normal. A regressed night never is; a suspect that a second measurement, or the
    next night, cleared enters at the edge of what was expected, so that one outlier cannot widen the interval for a
    month, and a node that became noisier is still learnt.
    """

    policy: Policy
    scale: Scale
    prior: Prior | None = None
    _all: list[float] = field(default_factory=list)
    _normal: list[float | None] = field(default_factory=list)  # one for each of _all; None: not part of what is normal
    _bad: float | None = None  # the last night's value when it was suspect or regressed
    _cleared: float | None = None  # what a suspect night enters as when the next one clears it

    @property
    def normal(self) -> list[float]:
        """The nights that tonight is compared with, the newest first."""
        return self._before(len(self._all))

    def judge(self, night: Night, pinned: Sequence[float] = ()) -> SeriesCall:
        """The decision on ``night`` as the next one. Changes nothing.

        ``pinned`` are the values of the acceptance nights, on the scale: they guard against a decline that is so slow
        that the last nights follow it. The worse of the two decisions counts.
        """
        calls = [self._rolling(night), *self._pinned(night, pinned)]
        return max(calls, key=lambda call: SEVERITY.index(call.state))

    def enter(self, night: Night) -> SeriesCall:
        """Judge the night against the last ones and take it in."""
        call = self._rolling(night)
        if night.value is None:
            return call
        entry = self._clipped(night.value) if night.usable else None
        if self._cleared is not None and call.state is not SeriesState.REGRESSED:
            self._normal[-1] = self._cleared
        self._bad = self._cleared = None
        self._all.append(night.value)
        self._normal.append(entry)
        if call.state is SeriesState.REGRESSED:
            self._normal[-call.since :] = [None] * call.since
            self._bad = night.value
        elif call.state is SeriesState.SUSPECT:
            self._normal[-1], self._bad, self._cleared = None, night.value, entry
        return call

    def _before(self, end: int) -> list[float]:
        """The newest ``window`` normal nights among the first ``end``, the newest first."""
        window = self.policy.window
        found = [value for value in reversed(self._normal[max(0, end - 2 * window) : end]) if value is not None]
        if len(found) < window < end / 2:  # after many bad nights
            found = [value for value in reversed(self._normal[:end]) if value is not None]
        return found[:window]

    def _rolling(self, night: Night) -> SeriesCall:
        normal = self.normal
        if len(normal) < self.policy.fewest or night.value is None:
            centre = sum(normal) / len(normal) if normal else None
            drop = None if centre is None or night.value is None else centre - night.value
            return SeriesCall(SeriesState.WARMING, len(normal), centre, drop)
        base = self._base(normal)
        call = self._compared(night, base, self._bad)
        if call.state is SeriesState.REGRESSED or (call.state is SeriesState.OK and self._is_bad(base, night.value)):
            return call  # confirmed, or cleared by its second measurement
        since = self._lasting(night)
        return replace(call, state=SeriesState.REGRESSED, since=since) if since else call

    def _pinned(self, night: Night, pinned: Sequence[float]) -> list[SeriesCall]:
        """Against the pinned nights' level, on the scale of them and the last nights together; nothing for too few."""
        normal = self.normal
        if night.value is None or not pinned or len(pinned) + len(normal) < self.policy.fewest + 1:
            return []
        centre, middle = sum(pinned) / len(pinned), sum(normal) / max(len(normal), 1)
        squares = sum((value - centre) ** 2 for value in pinned) + sum((value - middle) ** 2 for value in normal)
        df = len(pinned) - 1.0 + max(len(normal) - 1.0, 0.0)
        deviation = max(math.sqrt(squares / df), self.scale.floor(self.policy.scale_floor))
        base = Baseline(centre, deviation, df, len(pinned))
        call = replace(self._compared(night, base, self._all[-1] if self._all else None), pinned=True)
        if call.state is SeriesState.OK or call.state is SeriesState.SUSPECT:
            for nights in self.policy.shifts:
                shift = self._shift(night, nights, centre) if nights <= len(self._all) + 1 else None
                if shift is not None and shift > base.edge_lasting(self.policy.lasting_level, nights, 0.0):
                    return [replace(call, state=SeriesState.REGRESSED, since=nights)]
        return [call]

    def _base(self, normal: Sequence[float]) -> Baseline:
        return baseline_of(normal, self.scale.floor(self.policy.scale_floor), self.prior)

    def _is_bad(self, base: Baseline, value: float) -> bool:
        effect = self.scale.effect(self.policy.effect, base.centre)
        return base.centre - value > max(base.edge(self.policy.suspect_level), effect)

    def _compared(self, night: Night, base: Baseline, before: float | None) -> SeriesCall:
        """One night against ``base``. ``before``: the last night's value if that may confirm a suspicion."""
        assert night.value is not None
        effect = self.scale.effect(self.policy.effect, base.centre)
        least = max(base.edge(self.policy.both_level), effect) + z_quantile(0.8) * base.spread
        call = SeriesCall(SeriesState.OK, base.n, base.centre, base.centre - night.value, least)
        if self._is_bad(base, night.value):
            return replace(call, state=self._confirmed(night, base, effect, before))
        asked = self.scale.asked(self.policy.asked, base.centre)
        return replace(call, state=SeriesState.UNDETECTABLE) if least > asked else call

    def _confirmed(self, night: Night, base: Baseline, effect: float, before: float | None) -> SeriesState:
        """Two separate measurements, both bad: of one night, or of two in a row. One alone is a suspicion."""
        assert night.value is not None
        second = night.again if night.again is not None else before
        if second is None:
            return SeriesState.SUSPECT
        alone = base.centre - second > max(base.edge(self.policy.confirm_level), effect)
        both = base.centre - (night.value + second) / 2.0 > max(base.edge(self.policy.both_level), effect)
        if alone and both:
            return SeriesState.REGRESSED
        return SeriesState.OK if night.again is not None else SeriesState.SUSPECT

    def _lasting(self, night: Night) -> int:
        """For how many nights the mean has been too low, 0 for none."""
        for nights in self.policy.shifts:
            normal = self._before(len(self._all) + 1 - nights)
            if nights - 1 > len(self._all) or len(normal) < self.policy.fewest:
                break
            centre = sum(normal) / len(normal)
            shift = self._shift(night, nights, centre)
            if shift is not None and shift > self._base(normal).edge_lasting(
                self.policy.lasting_level, nights, memory(normal, centre)
            ):
                return nights
        return 0

    def _shift(self, night: Night, nights: int, centre: float) -> float | None:
        """How far the mean of the last ``nights``, tonight among them, lies below ``centre``; None if not a shift.

        Tonight (in each of its measurements) and the mean of the nights before must show at least half of it: one
        outlier is no shift, and what has been fixed is over at once. And it must be large enough to matter.
        """
        assert night.value is not None
        tonight = [night.value] if night.again is None else [night.value, night.again]
        before = self._all[1 - nights :]
        shift = centre - (sum(tonight) / len(tonight) + sum(before)) / nights
        half = centre - shift / 2.0
        if max(tonight) >= half or sum(before) / len(before) >= half:
            return None
        return shift if shift > self.scale.effect(self.policy.effect, centre) else None

    def _clipped(self, value: float) -> float:
        """The value as it is taken in: no further out than the entry level's edge, so that no outlier rules a month."""
        normal = self.normal
        if len(normal) < self.policy.fewest:
            return value
        base = self._base(normal)
        edge = base.edge(self.policy.entry_level)
        return min(max(value, base.centre - edge), base.centre + edge)
