"""How far sessions of each gated series lie apart: from the store's nights, else by the metrics' own priors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.errors import note
from bench.judge.baseline.between import spread_of
from bench.judge.baseline.prediction import Policy
from bench.judge.baseline.series import NIGHT_SECONDS, History, Key, key_of, one_a_night
from bench.judge.sessions import Spread, SpreadOf
from bench.model import Measurement, Run
from bench.store.history import Series, history_of
from bench.store.index import Index, seconds_of
from bench.store.runs import Store
from bench.workflows.catalog import Catalog

Nights = Mapping[Key, Sequence[float]]
Siblings = Mapping[Key, Sequence[Sequence[float]]]


def by_priors(catalog: Catalog, nights: Nights | None = None, siblings: Siblings | None = None) -> SpreadOf:
    """What the metrics declare, pooled with the nights of a series and its siblings' where they are known."""

    def found(measurement: Measurement) -> Spread:
        metric = catalog.metrics.get(measurement.metric)
        key = key_of(measurement, metric)
        own, others = (nights or {}).get(key, ()), (siblings or {}).get(key, ())
        return spread_of(metric, measurement, own, others, catalog.looks.get(measurement.metric, 1))

    return found


def by_nights(run: Run, catalog: Catalog, store: Store) -> SpreadOf:
    """The same with the nights before the run. A run whose start is no time has none.

    Raises UnusableRun when the pins cannot be read.
    """
    gates = [gate for profile in catalog.profiles for gate in profile.gates]
    metrics = catalog.metrics
    found = [key_of(m, metrics.get(m.metric)) for gate in gates for m in run.find(gate.metric, **gate.labels)]
    differing = {name for name, metric in catalog.metrics.items() if metric.session_spread is not None}
    keys = [key for key in dict.fromkeys(found) if key[0] in differing]
    if not keys:
        return by_priors(catalog)
    try:
        with Index(store.root, warn=note) as index:
            series = Series(index, metrics, catalog.scopes)
            history = history_of(series, run, keys, ())
            nights = {key: _before(run, history, key) for key in keys}
            few = [key for key in keys if len(nights[key]) < Policy().fewest]
            siblings = history_of(series, run, few).siblings if few else {}
    except ValueError:
        return by_priors(catalog)
    return by_priors(catalog, nights, siblings)


def _before(run: Run, history: History, key: Key) -> list[float]:
    """The series' values in the sound nights before the run, oldest first; not of its own night's other runs."""
    last = seconds_of(run.started_at) - NIGHT_SECONDS
    return one_a_night((stored for stored in history.runs if stored.at <= last), history.values.get(key, {}))
