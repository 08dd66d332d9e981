"""Which differences between two runs are more than noise.

Where the node's own nights are known, two single nights differ by more than noise when their distance is outside of the
two-sided 99 % interval t s sqrt(2) of such a distance (Hahn & Meeker 2017, section 4.7, with both ends random). Where
they are not, by the measurements' own intervals: these know the noise of a session only, so they are trusted less, and
must lie apart by the least effect that matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.judge.baseline.detector import normal_of
from bench.judge.baseline.prediction import Policy, baseline_of
from bench.judge.baseline.scale import scale_of
from bench.judge.baseline.series import Key, key_of
from bench.judge.statistics import t_quantile
from bench.model import Frozen, Measurement, Metric, Run

_LEVEL = 0.005


class Difference(Frozen):
    """One series that both runs measured. ``change_ratio`` is (b - a) / |a|, None where a is 0.

    ``noise_ratio``: the largest difference that noise explains, on the same terms; None where only intervals speak.
    ``verdict``: ``same`` (no more than noise), ``better``, ``worse``, ``different`` (a metric without a direction).
    """

    metric: str
    labels: dict[str, str]
    a: float
    b: float
    change_ratio: float | None
    noise_ratio: float | None
    verdict: str
    basis: str


def differences(
    a: Run, b: Run, metrics: Mapping[str, Metric], nights: Mapping[Key, Sequence[float]]
) -> tuple[list[Difference], list[Key], list[Key]]:
    """The series of both runs, those of ``a`` only, those of ``b`` only. ``nights``: earlier values of a series."""
    ours, theirs = ({key_of(m, metrics.get(m.metric)): m for m in run.measurements()} for run in (a, b))
    both = [_difference(ours[k], theirs[k], metrics.get(k[0]), nights.get(k, ())) for k in ours if k in theirs]
    return both, [key for key in ours if key not in theirs], [key for key in theirs if key not in ours]


def _difference(a: Measurement, b: Measurement, metric: Metric | None, nights: Sequence[float]) -> Difference:
    scale = scale_of(metric or Metric(name=a.metric, help=""), [a.value, b.value, *nights])
    noise, policy = None, Policy()
    normal = normal_of(map(scale.of, nights), policy, scale)  # as the nightly gate would compare
    if len(normal) >= policy.fewest:
        base = baseline_of(normal, scale.floor(policy.scale_floor))
        noise = t_quantile(_LEVEL, base.df) * base.deviation * math.sqrt(2.0)
    apart = _apart(a, b) if noise is None else abs(scale.of(b.value) - scale.of(a.value)) > noise
    return Difference(
        metric=a.metric,
        labels=a.labels,
        a=a.value,
        b=b.value,
        change_ratio=(b.value - a.value) / abs(a.value) if a.value else None,
        noise_ratio=abs(scale.ratio(scale.of(a.value), noise)) if noise is not None else None,
        verdict=_verdict(a, b, metric) if apart else "same",
        basis="intervals" if noise is None else f"{len(normal)} nights",
    )


def _apart(a: Measurement, b: Measurement) -> bool:
    disjoint = a.interval[1] < b.interval[0] or b.interval[1] < a.interval[0]
    return disjoint and abs(b.value - a.value) > Policy().effect * max(abs(a.value), abs(b.value))


def _verdict(a: Measurement, b: Measurement, metric: Metric | None) -> str:
    if metric is None or metric.better == "none":
        return "different"
    return "better" if (b.value > a.value) == (metric.better == "higher") else "worse"
