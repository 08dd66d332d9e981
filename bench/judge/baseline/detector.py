"""One series night after night: is tonight worse than the node's own nights explain?

The unit is one value a night, made comparable by a scale (`bench.judge.baseline.scale`): logarithms for rates and
times, so that effects are ratios. Tonight is *suspect* when it lies below a one-sided prediction interval over the last
nights and the drop is large enough to matter; it is *regressed* when separate measurements say it too (a second where
the drop is out of all doubt, else a third), or when the mean of the last six or seven nights lies below the interval
for such a mean (a small shift that lasts), or when a line through the last sixty falls by too much (a decline that the
last nights follow). What has regressed stays so until a good night.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from bench.judge.baseline.prediction import Baseline, Policy, Prior, baseline_of, line_of, memory
from bench.judge.baseline.scale import Scale
from bench.judge.statistics import z_quantile


class SeriesState(StrEnum):
    """What tonight's value says of one series (contract, section 5), from what matters least."""

    OK = "ok"
    WARMING = "warming"
    SLOWER = "slower"
    UNDETECTABLE = "undetectable"
    SUSPECT = "suspect"
    MISSING = "missing"
    REGRESSED = "regressed"


class SeriesCall(NamedTuple):
    """The decision on one night. ``drop`` and ``least`` (the smallest drop that would be seen) are on the scale.

    ``base`` is what it was compared with; None while warming, where ``centre`` is the mean of what there is.
    ``measured``: how often the night was measured.
    ``hidden``: the lowest level that may hide behind tonight: one that the nights would not show, nor tonight itself.
    ``since``: how many nights the shift has lasted when it is one that lasts, else 1. ``pinned``: the comparison was
    with the pinned nights, ``declined``: with where a line through the nights starts. ``unmended``: for how many nights
    it had been regressed, where no good night came since and tonight by itself would be none.
    """

    state: SeriesState
    nights: int
    centre: float | None = None
    drop: float | None = None
    least: float | None = None
    hidden: float | None = None
    measured: int = 1
    since: int = 1
    pinned: bool = False
    declined: bool = False
    unmended: int = 0


SEVERITY = tuple(SeriesState)


class Night(NamedTuple):
    """One night's value on the scale, and of its second and third measurement where there were any. None: not measured.

    ``usable`` is False for a night that was judged bad, interrupted or contaminated: shown, never part of what is
    normal.
    """

    value: float | None
    again: float | None = None
    third: float | None = None
    usable: bool = True

    @property
    def measured(self) -> list[float]:
        return [value for value in (self.value, self.again, self.third) if value is not None]

    def mean(self) -> float:
        """Of its measurements: the first of several was chosen because it was low."""
        return sum(self.measured) / len(self.measured)


@dataclass(slots=True)
class _Unmended:
    """A regression that no good night has ended: what it is worse than, and the mean of its nights that are bad."""

    centre: float
    level: float
    bad: int
    nights: int

    def and_night(self, value: float, *, bad: bool) -> None:
        self.nights += 1
        if bad:
            self.bad += 1
            self.level += (value - self.level) / self.bad


@dataclass(slots=True)
class Track:
    """What is known of one series after the nights that were entered, in their order.

    ``pinned``: the values of the acceptance nights, on the scale. They guard against a decline that is so slow that the
    last nights follow it. Where nobody pinned any, the first good nights stand for them.

    Entering decides which nights are normal. A regressed night never is, and what has regressed stays so until a good
    night; a suspect that a second measurement, or the next night, cleared enters at the edge of what was expected, so
    that one outlier cannot widen the interval for a month, and a node that became noisier is still learnt.
    """

    policy: Policy
    scale: Scale
    prior: Prior | None = None
    pinned: Sequence[float] = ()
    _first: list[float] = field(default_factory=list)
    _settled: list[float] = field(default_factory=list)  # normal nights older than the longest shift
    _recent: list[tuple[float, float | None]] = field(default_factory=list)  # later nights, and as what they are normal
    _bad: float | None = None  # the last night's value when it was suspect or regressed
    _cleared: float | None = None  # what a suspect night enters as when the next one clears it
    _unmended: _Unmended | None = None

    @property
    def normal(self) -> list[float]:
        """The nights that tonight is compared with, the newest first."""
        return self._before(0, self.policy.window)

    def judge(self, night: Night) -> SeriesCall:
        """The decision on ``night`` as the next one: the worst of all comparisons. Changes nothing."""
        calls = [self._rolling(night), *self._pinned(night), *self._declined(night)]
        call = max(calls, key=lambda call: SEVERITY.index(call.state))
        old = self._unmended
        if old is None or night.value is None or call.state is SeriesState.REGRESSED or self._mended(old, night, call):
            return call
        drop = old.centre - night.mean()
        return call._replace(state=SeriesState.REGRESSED, centre=old.centre, drop=drop, unmended=old.nights)

    def enter(self, night: Night) -> SeriesCall:
        """Judge the night and take it in."""
        call = self.judge(night)
        if night.value is None:
            return call
        entry = self._clipped(night.value) if night.usable else None
        if self._cleared is not None and call.state is not SeriesState.REGRESSED:
            self._recent[-1] = (self._recent[-1][0], self._cleared)
        self._bad = self._cleared = None
        self._recent.append((night.mean(), entry))
        if call.state is SeriesState.REGRESSED:
            since = 1 if self._unmended else call.since  # the nights before it began were judged then
            self._recent[-since:] = [(value, None) for value, _ in self._recent[-since:]]
            self._bad = night.value
            self._goes_on(night.mean(), call)
        else:
            self._unmended = None
        if call.state is SeriesState.SUSPECT:
            self._recent[-1], self._bad, self._cleared = (night.mean(), None), night.value, entry
        self._settle()
        return call

    def _goes_on(self, tonight: float, call: SeriesCall) -> None:
        """The regression is a night longer, or begins with all nights of its shift."""
        if self._unmended is not None:
            self._unmended.and_night(tonight, bad=not call.unmended)
        elif call.centre is not None:
            nights = [value for value, _ in self._recent[-call.since :]]
            self._unmended = _Unmended(call.centre, sum(nights) / len(nights), len(nights), len(nights))

    def _mended(self, old: _Unmended, night: Night, call: SeriesCall) -> bool:
        """A good night: not suspect, and nearer to what was normal than to the regression."""
        return call.state is not SeriesState.SUSPECT and night.mean() > (old.centre + old.level) / 2.0

    def _settle(self) -> None:
        """A night that is older than the longest shift stays normal for good, if it is."""
        while len(self._recent) >= self.policy.shifts[-1]:
            _, entry = self._recent.pop(0)
            if entry is not None:
                self._settled = [*self._settled[1 - self.policy.decline_nights :], entry]
                self._first = [*self._first, entry][: self.policy.own_pins]

    def _before(self, nights: int, most: int) -> list[float]:
        """The newest ``most`` normal nights but for the last ``nights``, the newest first."""
        recent = self._recent[: len(self._recent) - nights]
        values = [entry for _, entry in reversed(recent) if entry is not None]
        return (values + self._settled[::-1])[:most]

    def _rolling(self, night: Night) -> SeriesCall:
        """Against the last nights: tonight by itself, then as the end of a shift that lasts."""
        normal = self.normal
        if len(normal) < self.policy.fewest or night.value is None:
            centre = sum(normal) / len(normal) if normal else None
            drop = None if centre is None or night.value is None else centre - night.value
            return SeriesCall(SeriesState.WARMING, len(normal), centre, drop)
        call = self._compared(night, self._base(normal), self._bad)
        if call.state is SeriesState.REGRESSED:
            return call
        for nights in self.policy.shifts:
            before = self._before(nights - 1, self.policy.window)
            if len(before) < self.policy.fewest:
                break
            base = self._base(before)
            if self._lasts(night, nights, base, before, self.policy.lasting_level, self.policy.effect):
                return call._replace(state=SeriesState.REGRESSED, since=nights)
        return call

    def _pinned(self, night: Night) -> list[SeriesCall]:
        """Against the pinned nights' level, on the scale of them and the last nights together; nothing for too few."""
        normal = self.normal
        if not self.pinned:
            return self._pinned_themselves(night, normal)
        if night.value is None or len(self.pinned) + len(normal) < self.policy.fewest + 1:
            return []
        centre, middle = sum(self.pinned) / len(self.pinned), sum(normal) / max(len(normal), 1)
        squares = sum((value - centre) ** 2 for value in self.pinned) + sum((value - middle) ** 2 for value in normal)
        df = len(self.pinned) - 1.0 + max(len(normal) - 1.0, 0.0)
        deviation = max(math.sqrt(squares / df), self.scale.floor(self.policy.scale_floor))
        base = Baseline(centre, deviation, df, len(self.pinned))
        call = self._compared(night, base, self._recent[-1][0] if self._recent else None)._replace(pinned=True)
        if call.state is not SeriesState.REGRESSED:
            for nights in self.policy.shifts:
                if self._lasts(night, nights, base, (), self.policy.lasting_level, self.policy.effect):
                    return [call._replace(state=SeriesState.REGRESSED, since=nights)]
        return [call]

    def _pinned_themselves(self, night: Night, normal: Sequence[float]) -> list[SeriesCall]:
        """Against the first good nights: the longest shift alone, at a level of its own, because a whole epoch is held
        against the same few.
        """
        nights, level = self.policy.shifts[-1], self.policy.own_pins_level
        if night.value is None or len(self._first) < self.policy.fewest:
            return []
        base = self._base(normal)._replace(centre=sum(self._first) / len(self._first), n=len(self._first))
        if not self._lasts(night, nights, base, normal, level, self.policy.effect_of_decline):
            return []
        drop = base.centre - night.value
        return [SeriesCall(SeriesState.REGRESSED, base.n, base.centre, drop, since=nights, pinned=True)]

    def _declined(self, night: Night) -> list[SeriesCall]:
        """Does a line through tonight and the nights before it fall by too much for such nights?

        It tells a decline that is so slow that the last nights follow it. Tonight counts as no worse than a bad night
        is, and must lie in the lower half of the line.
        """
        policy, before = self.policy, self._before(0, self.policy.decline_nights - 1)
        if night.value is None or len(before) + 1 < policy.fewest_of_decline:
            return []
        base = self._base(before[: policy.window])
        tonight = max(night.mean(), base.centre - self._bound(base))
        line = line_of([*before[::-1], tonight], self.scale.floor(policy.scale_floor), self.prior)
        least = max(self.scale.effect(policy.effect_of_decline, line.start), line.edge(policy.decline_level))
        if line.drop <= least or line.start - tonight <= line.drop / 2.0:
            return []
        return [
            SeriesCall(SeriesState.REGRESSED, line.n, line.start, line.drop, since=policy.shifts[-1], declined=True)
        ]

    def _base(self, normal: Sequence[float]) -> Baseline:
        return baseline_of(normal, self.scale.floor(self.policy.scale_floor), self.prior)

    def _bound(self, base: Baseline) -> float:
        """How far below the centre a night must lie to be bad."""
        return max(base.edge(self.policy.suspect_level), self.scale.effect(self.policy.effect, base.centre))

    def _bound_of_mean(self, base: Baseline, level: float) -> float:
        """How far below the centre the mean of separate measurements must lie to be a regression."""
        least, matters = (self.scale.effect(p, base.centre) for p in (self.policy.effect, self.policy.effect_of_one))
        effect = max(least, min(matters, self.policy.certain * base.deviation))
        return max(base.edge(level), effect)

    def _compared(self, night: Night, base: Baseline, before: float | None) -> SeriesCall:
        """One night against ``base``. ``before``: the last night's value if that may confirm a suspicion."""
        assert night.value is not None
        least = self._bound_of_mean(base, self.policy.confirmed_level) + z_quantile(self.policy.seen) * base.spread
        hidden = max(base.centre - least, night.mean() - base.edge(self.policy.hidden_level))
        call = SeriesCall(
            SeriesState.OK, base.n, base.centre, base.centre - night.value, least, hidden, len(night.measured)
        )
        if base.centre - night.value > self._bound(base):
            return call._replace(state=self._confirmed(night, base, before))
        asked = self.scale.asked(self.policy.asked, base.centre)
        return call._replace(state=SeriesState.UNDETECTABLE) if least > asked else call

    def _confirmed(self, night: Night, base: Baseline, before: float | None) -> SeriesState:
        """Separate measurements that are all bad: three of one night, or two nights in a row. Two of one night suffice
        where the drop is out of all doubt. What is bad alone, or by little, is a suspicion; a good one clears it.
        """
        assert night.value is not None
        policy, of_one_night = self.policy, night.again is not None
        second = night.again if of_one_night else before
        if second is None or not self._bad_too(second, base):
            return SeriesState.OK if of_one_night else SeriesState.SUSPECT
        of_both = self._bound_of_mean(base, policy.at_once_level if of_one_night else policy.confirmed_level)
        if base.centre - (night.value + second) / 2.0 > of_both:
            return SeriesState.REGRESSED
        if night.third is None or not of_one_night:
            return SeriesState.SUSPECT
        if not self._bad_too(night.third, base):
            return SeriesState.OK
        certain = base.centre - night.mean() > self._bound_of_mean(base, policy.confirmed_level)
        return SeriesState.REGRESSED if certain else SeriesState.SUSPECT

    def _bad_too(self, further: float, base: Baseline) -> bool:
        """Is a further measurement bad by itself?"""
        effect = self.scale.effect(self.policy.effect, base.centre)
        return base.centre - further > max(base.edge(self.policy.confirm_level), effect)

    def _lasts(
        self, night: Night, nights: int, base: Baseline, normal: Sequence[float], level: float, least: float
    ) -> bool:
        """Does the mean of the last ``nights``, tonight among them, lie too far below ``base`` for such a mean?

        ``normal``: the nights that tell how much one remembers of the one before. One outlier is no shift: tonight
        counts as no worse than the edge for one night, and it and the mean of the nights before must each show half.
        What holds of tonight holds of a worse one.
        """
        if nights - 1 > len(self._recent) or night.value is None:
            return False
        tonight = base.centre - night.mean()
        before = base.centre - sum(value for value, _ in self._recent[1 - nights :]) / (nights - 1)
        shift = (min(tonight, self._bound(base)) + (nights - 1) * before) / nights
        effect = self.scale.effect(least, base.centre)
        if shift <= effect or tonight <= shift / 2.0:
            return False
        edge = base.edge_lasting(level, nights, memory(normal, sum(normal) / len(normal)) if normal else 0.0)
        return shift > edge and before > max(effect, edge) / 2.0

    def _clipped(self, value: float) -> float:
        """The value as it is taken in: no further out than the entry level's edge, so that no outlier rules a month."""
        normal = self.normal
        if len(normal) < self.policy.fewest:
            return value
        base = self._base(normal)
        edge = base.edge(self.policy.entry_level)
        return min(max(value, base.centre - edge), base.centre + edge)


def normal_of(nights: Iterable[float], policy: Policy, scale: Scale) -> list[float]:
    """Of these nights, on the scale, those that the next is compared with: without those that were themselves bad."""
    track = Track(policy, scale)
    for value in nights:
        track.enter(Night(value))
    return track.normal
