"""The past of a run's gating metrics on its own node, for the report's history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bench.cli.output import note

if TYPE_CHECKING:
    from bench.judge.baseline.series import History as Known
    from bench.judge.baseline.series import Key
    from bench.model import Finding, Measurement, Run
    from bench.show.html.plots.timelines import History
    from bench.store.runs import Store

_NIGHTS = 60
_MOST = 8
_POWER = 0.8


def histories(store: Store, run: Run) -> list[History]:
    """One a gating metric that this run measured, at most eight, over this node's nights of the same epoch.

    Empty where the store's past cannot be read: the report is worth having without it.
    """
    import sqlite3

    from bench.store.errors import StoreError, UnusableRun
    from bench.store.history import history_of
    from bench.store.index import Index

    gating = dict(_gating(run))
    try:
        with Index(store.root, warn=note) as index:
            known = history_of(index, run, list(gating))
    except (StoreError, UnusableRun, sqlite3.Error, ValueError, OSError) as error:
        note(f"no history on the page: {error}")
        return []
    found = [_history(key, m, finding, known) for key, (finding, m) in gating.items()]
    return [history for history in found if history is not None]


def _gating(run: Run) -> Iterator[tuple[Key, tuple[Finding, Measurement]]]:
    """The measurement that decided each required gate, each series once."""
    from bench.judge.baseline.series import key_of

    seen: set[Key] = set()
    for finding in (f for verdict in run.verdicts for f in verdict.findings if f.required):
        same = [m for m in run.find(finding.metric, **finding.labels) if m.value == finding.observed]
        if same and key_of(same[0]) not in seen and len(seen) < _MOST:
            seen.add(key_of(same[0]))
            yield key_of(same[0]), (finding, same[0])


def _history(key: Key, m: Measurement, finding: Finding, known: Known) -> History | None:
    from datetime import UTC, datetime

    from bench.show.html.plots.timelines import History
    from bench.show.wording import gate_name

    of_run = known.values.get(key, {})
    nights = [(session.at, of_run[session.run]) for session in known.runs if session.run in of_run][-_NIGHTS:]
    if len(nights) < 2:
        return None
    values = tuple(value for _, value in nights)
    expected, edge, visible = _normal(m.metric, values[:-1])
    return History(
        name=gate_name(finding),
        metric=m.metric,
        moments=tuple(datetime.fromtimestamp(at, UTC) for at, _ in nights),
        values=values,
        expected=expected,
        edge=edge,
        visible=visible,
        limit=finding.limit.min if finding.limit.min is not None else finding.limit.max,
    )


def _normal(metric: str, values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Expected value, edge of the one-sided prediction interval, and what would be seen with 80 % power.

    By the nightly gate's own arithmetic (`bench.judge.baseline.prediction`); nothing before it has its fewest nights.
    """
    from statistics import NormalDist

    from bench.judge.baseline.prediction import Policy, baseline_of
    from bench.judge.baseline.scale import scale_of
    from bench.workflows.site import declared_metrics

    policy, declared = Policy(), declared_metrics().get(metric)
    if declared is None or len(values) < policy.fewest:
        return None, None, None
    scale = scale_of(declared, values)
    base = baseline_of([scale.of(value) for value in values[-policy.window :]], scale.floor(policy.scale_floor), None)
    edge = max(base.edge(policy.suspect_level), scale.effect(policy.effect, base.centre))
    least = edge + NormalDist().inv_cdf(_POWER) * base.spread
    return scale.back(base.centre), scale.back(base.centre - edge), scale.back(base.centre - least)
