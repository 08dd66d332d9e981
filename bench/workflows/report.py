"""Stored runs to look at: two side by side, and the page of one or several with the past of what gates them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from bench import __version__
from bench.errors import UserError, note
from bench.judge.baseline.comparison import differences
from bench.judge.baseline.epoch import changes, telling
from bench.judge.baseline.prediction import Policy, baseline_of
from bench.judge.baseline.scale import scale_of
from bench.judge.baseline.series import History, Key, key_of
from bench.model import Finding, Measurement, Metric, Run
from bench.show.terminal.lineage import explain
from bench.show.wording import bound_of, gate_name
from bench.store.atomic import write_atomically
from bench.store.errors import StoreError, UnusableRun
from bench.store.evidence import is_signed
from bench.store.history import Series, history_of, nights_of
from bench.store.index import Index
from bench.store.runs import Store
from bench.units import series_name
from bench.workflows.catalog import Catalog, declared, load_profiles
from bench.workflows.judging import judged
from bench.workflows.site import find_run, path_of

if TYPE_CHECKING:
    from bench.show.html.page import Shown
    from bench.show.html.plots.timelines import MetricHistory

_NIGHTS = 60
_MOST = 8
_POWER = 0.8


def compared(first: Run, second: Run, store: Store, catalog: Catalog) -> dict[str, Any]:
    """``a``, ``b`` (ids), ``differences``, ``only_a``, ``only_b`` (series), ``facts``: what differs of the nodes, and
    of how they were measured.
    """
    noise = _noise(first, second, store, catalog)
    both, only_first, only_second = differences(first, second, catalog.metrics, noise)
    facts = changes(telling(first.node.facts), telling(second.node.facts))
    if first.node.fingerprint != second.node.fingerprint and not facts:
        facts = [f"fingerprint: {first.node.fingerprint} -> {second.node.fingerprint}"]
    if first.node.hostname != second.node.hostname:
        facts = [f"node: {first.node.hostname} -> {second.node.hostname}", *facts]
    asked = ({"effort": run.request.effort.value, "accelerator": run.request.accelerator} for run in (first, second))
    facts = [*changes(*asked), *facts]
    return {
        "a": first.id,
        "b": second.id,
        "differences": both,
        "only_a": [series_name(metric, dict(labels)) for metric, labels in only_first],
        "only_b": [series_name(metric, dict(labels)) for metric, labels in only_second],
        "facts": facts,
    }


def _noise(first: Run, second: Run, store: Store, catalog: Catalog) -> dict[Key, list[float]]:
    """The node's nights of the first run's epochs, but for these two runs; none where the runs are of two nodes."""
    if second.node.hostname != first.node.hostname:
        return {}
    keys = list({key_of(m, catalog.metrics.get(m.metric)) for m in first.measurements()})
    with Index(store.root, warn=note) as index:
        return nights_of(Series(index, catalog.metrics, catalog.scopes), first, keys, without=(first.id, second.id))


def write_page(references: Sequence[str | None], output: Path, store: Store) -> None:
    """Put the page of these runs in place. Raises UserError, UnusableRun."""
    from bench.show.html.page import render

    catalog = declared()
    found = [_shown(store, reference, catalog) for reference in references]
    apart = compared(found[0].run, found[1].run, store, catalog)["differences"] if len(found) == 2 else None
    page = render(found, __version__, apart).encode("utf-8", "replace")
    try:
        write_atomically(output, page)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error
    note(f"{output}: {len(page) // 1000} kB")


def _shown(store: Store, reference: str | None, catalog: Catalog) -> Shown:
    """A stored run, judged if nobody did, with what the page tells beside it."""
    from bench.show.html.page import Shown

    found = find_run(store, reference)
    run = judged(found, store)
    path = path_of(store, reference, found)
    lineage = explain(run, path.parent, signed=is_signed(path))
    descriptions = {profile.name: profile.description for profile in load_profiles([], catalog.metrics)}
    return Shown(run, lineage, tuple(_histories(store, run, catalog)), descriptions, catalog.probes)


def _histories(store: Store, run: Run, catalog: Catalog) -> list[MetricHistory]:
    """One a gating metric that this run measured, at most eight, over this node's nights of the same epoch.

    Empty where the store's past cannot be read: the report is worth having without it.
    """
    gating = _gating(run, catalog.metrics)
    try:
        with Index(store.root, warn=note) as index:
            nights = history_of(Series(index, catalog.metrics, catalog.scopes), run, list(gating), ())
    except (StoreError, UnusableRun, sqlite3.Error, ValueError, OSError) as error:
        note(f"no history on the page: {error}")
        return []
    metrics = catalog.metrics
    found = [_history(key, m, finding, nights, metrics.get(m.metric)) for key, (finding, m) in gating.items()]
    return [history for history in found if history is not None]


def _gating(run: Run, metrics: Mapping[str, Metric]) -> dict[Key, tuple[Finding, Measurement]]:
    """The measurement that decided each required gate, each series once."""
    found: dict[Key, tuple[Finding, Measurement]] = {}
    for finding in (f for verdict in run.verdicts for f in verdict.findings if f.required):
        same = (m for m in run.find(finding.metric, **finding.labels) if m.value == finding.observed)
        if (deciding := next(same, None)) is not None:
            found.setdefault(key_of(deciding, metrics.get(deciding.metric)), (finding, deciding))
    return dict(islice(found.items(), _MOST))


def _history(key: Key, m: Measurement, finding: Finding, known: History, metric: Metric | None) -> MetricHistory | None:
    from bench.show.html.plots.timelines import MetricHistory

    of_run = known.values.get(key, {})
    values = tuple(of_run[session.run] for session in known.runs if session.run in of_run)[-_NIGHTS:]
    if len(values) < 2:
        return None
    expected, edge, visible = _normal(metric, values[:-1])
    return MetricHistory(
        name=gate_name(finding),
        metric=m.metric,
        values=values,
        expected=expected,
        edge=edge,
        visible=visible,
        limit=bound_of(finding.limit)[1],
    )


def _normal(metric: Metric | None, values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Expected value, edge of the one-sided prediction interval, and what would be seen with 80 % power.

    By the nightly gate's own arithmetic (`bench.judge.baseline.prediction`); nothing before it has its fewest nights.
    """
    policy = Policy()
    if metric is None or len(values) < policy.fewest:
        return None, None, None
    scale = scale_of(metric, values)
    base = baseline_of([scale.of(value) for value in values[-policy.window :]], scale.floor(policy.scale_floor), None)
    edge = max(base.edge(policy.suspect_level), scale.effect(policy.effect, base.centre))
    least = edge + NormalDist().inv_cdf(_POWER) * base.spread
    return scale.back(base.centre), scale.back(base.centre - edge), scale.back(base.centre - least)
