"""This node's own nights: a run against them, further looks at what is worse, and what an operator decides of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.errors import UserError, note
from bench.judge.baseline.epoch import epoch_of
from bench.judge.baseline.prediction import Policy
from bench.judge.baseline.series import (
    History,
    Key,
    Regression,
    StoredRun,
    by_night,
    gating,
    informative,
    judge_series,
    key_of,
    normal_runs,
    regressions,
    with_regressions,
    worst,
)
from bench.judge.gate import applies
from bench.measure import tools
from bench.measure.probe import Interrupted, ProbeError
from bench.measure.tools import Signals
from bench.model import Effort, Measurement, Request, Run
from bench.store.baselines import Decisions, Pin, Reset, change, read
from bench.store.documents import load
from bench.store.errors import one_line
from bench.store.history import Series, history_of
from bench.store.index import Index
from bench.store.runs import Store
from bench.units import series_name
from bench.workflows.catalog import Catalog, load_catalog
from bench.workflows.judging import concluded
from bench.workflows.request import OWN_OPTIONS
from bench.workflows.site import node_meant, open_index, open_store

_PINNED_NIGHTS = 30
_AGAIN_FACTOR, _AGAIN_SECONDS = 2.0, 600.0
#: How long the node rests before it is measured again: 30 s by the research, less for a quick look.
_PAUSE_SECONDS = {Effort.QUICK: 5.0, Effort.STANDARD: 30.0, Effort.THOROUGH: 60.0}


@dataclass(frozen=True, slots=True)
class Compared:
    """A judged run with its regressions in the verdicts, and the regressions themselves, one a series."""

    run: Run
    regressions: tuple[Regression, ...] = ()


def against_baseline(
    judged: Run, catalog: Catalog, store: Store, asked: float | None = None, *, every: bool = False
) -> Compared:
    """Compare a judged run with its node's nights in ``store``, and make its verdicts as bad as what is found.

    ``asked``: the drop that must be seen (``--detect``), 0.2 unless told. ``every``: also the series that gate none of
    the profiles. The verdicts must be of the catalog's profiles, in their order. Raises UnusableRun when the pins
    cannot be read, UserError when the run's start is not a time.
    """
    policy = Policy() if asked is None else Policy(asked=asked)
    profiles, metrics = catalog.profiles, catalog.metrics
    series = [[key_of(m, metrics[m.metric]) for _, m in gating(judged, profile, metrics)] for profile in profiles]
    deciding = [key for own in series for key in own]
    others = informative(judged, profiles, metrics) if every else []
    keys = [*deciding, *(key_of(m, metrics[m.metric]) for m in others)]
    history = _history(store, judged, catalog, keys, set(deciding))
    found = [regressions(judged, profile, history, metrics, policy) for profile in profiles]
    pairs = zip(judged.verdicts, found, strict=True)
    verdicts = tuple(with_regressions(verdict, entries) for verdict, entries in pairs)
    shown = [judge_series(judged, m, profiles[0], history, metrics[m.metric], policy) for m in others]
    entries = [*worst(found), *(entry.model_copy(update={"gating": False}) for entry in shown)]
    return Compared(judged.model_copy(update={"verdicts": verdicts}), tuple(entries))


def _history(store: Store, run: Run, catalog: Catalog, keys: Sequence[Key], deciding: Collection[Key]) -> History:
    gated = {gate.metric for profile in catalog.profiles for gate in profile.gates if gate.required}
    try:
        with Index(store.root, warn=note) as index:
            series = Series(index, catalog.metrics, catalog.scopes)
            return history_of(series, run, list(dict.fromkeys(keys)), deciding, sorted(gated))
    except ValueError as error:
        raise UserError(f"run {run.id}: started_at is not an RFC 3339 time: {error}") from error


# --- a second and a third look


def compared_with_nights(judged: Run, catalog: Catalog, store: Store, signals: Signals) -> Compared:
    """The run against its node's nights. The probes of what is worse are measured again after a pause, in a process
    of their own, and once more where two measurements leave it open; the answer is on the first run, which all decide.
    """
    compared = against_baseline(judged, catalog, store)
    for states in (("suspect", "regressed"), ("suspect",)):  # a third time only what two have left open
        bad = [entry for entry in compared.regressions if entry.gating and entry.status in states]
        probes = sorted({catalog.owners[entry.metric] for entry in bad if entry.metric in catalog.owners})
        if not probes:
            break
        note(f"worse than this node's nights: measuring again after a pause: {', '.join(probes)}")
        try:
            tools.pause(_PAUSE_SECONDS[judged.request.effort], signals)
            if not _measured_again(judged, probes, catalog, store, signals):
                break
        except Interrupted:  # it stays a suspicion that nothing has confirmed
            break
        compared = against_baseline(judged, catalog, store)
    return compared


def _measured_again(first: Run, probes: Sequence[str], catalog: Catalog, store: Store, signals: Signals) -> bool:
    """``bench run`` of these probes only, as the first was asked. What fails there confirms nothing, and is told."""
    spent = sum(result.duration_seconds for result in first.results)
    words = [*same_again(first.request, probes, catalog), "--results", str(store.root.absolute())]
    try:
        done = tools.run(
            [sys.executable, "-m", "bench", *words, "--confirms", first.id],
            timeout=_AGAIN_FACTOR * spent + _AGAIN_SECONDS,
            signals=signals,
            env=tools.python_environment(),
        )
    except ProbeError as error:
        note(f"the separate measurement failed: {error.reason}")
        return False
    if done.returncode in (0, 1, 3):
        return True
    note(f"the separate measurement failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return False


def same_again(request: Request, probes: Sequence[str], catalog: Catalog) -> list[str]:
    """The command line that asks for the same again, of some probes."""
    words = ["run", "--quiet", "--exit-zero", "--effort", request.effort.value, "--accelerator", request.accelerator]
    for flag, values in (("--probe", probes), ("--storage", request.storage), ("--peer", request.peers)):
        words += [word for value in values for word in (flag, value)]
    words += ["--no-quiet-check"] if request.options.get("quiet_check") == "off" else []
    for key, value in request.options.items():
        if isinstance(value, str) and key not in OWN_OPTIONS:
            named = [name for name, option in catalog.options() if option.name == key]
            words += ["--option", f"{named[0] if len(named) == 1 else key}={value}"]  # one of several is set for all
    return words


# --- precision


def to_converge(run: Run, catalog: Catalog, precision: float) -> list[str]:
    """Which probes to measure again for ``--precision``: those of gating medians whose interval is still wider."""
    found = [m for m in _gated(run, catalog) if m.metric in catalog.owners and _width(m) > precision]
    return sorted({catalog.owners[m.metric] for m in found})


def convergence(run: Run, catalog: Catalog, precision: float) -> list[str]:
    """One line: how many gating medians are as precise as asked, and the widest that is not."""
    found = sorted(_gated(run, catalog), key=_width, reverse=True)
    wide = [m for m in found if _width(m) > precision]
    head = f"precision {100 * precision:g} %: {len(found) - len(wide)} of {len(found)} medians converged"
    if not wide:
        return [head]
    name = series_name(wide[0].metric, wide[0].labels)
    return [head, f"not converged: {name} +-{100 * _width(wide[0]):.1f} %"]


def _gated(run: Run, catalog: Catalog) -> list[Measurement]:
    """What a required gate looks at and more repeats make more precise, each once: no lower bound, open upwards."""
    gates = [gate for profile in catalog.profiles for gate in profile.gates if gate.required and applies(run, gate)]
    found = [m for gate in gates for m in run.find(gate.metric, **gate.labels) if m.repeats]
    return list({id(m): m for m in found if "limited_by" not in m.labels}.values())


def _width(measurement: Measurement) -> float:
    """Half of the 95 % interval of the median (order statistics from six repeats on), over the median."""
    low, high = measurement.interval
    return (high - low) / 2.0 / abs(measurement.value) if measurement.value else float(high > low)


# --- what an operator sees and decides


def normal(results: Path | None, node: str | None, profile: Sequence[str] | None) -> dict[str, Any]:
    """What the node normally measures, as of its newest run: ``series`` are Regressions, everything else is text.

    Raises UserError, UnusableRun.
    """
    store, catalog = open_store(results), load_catalog(profile)
    with open_index(results) as index:
        host = node_meant(index, node)
        run = store.find(str(store.root / "runs" / _newest(index, host)[2]))
    decided = read(store.root, host)
    return {
        "node": host,
        "run": run.id,
        "epoch": epoch_of(run.node, run.request),
        "nights_needed": Policy().fewest,
        "pin": decided.pin.model_dump(mode="json") if decided.pin else None,
        "resets": [reset.model_dump(mode="json") for reset in decided.resets],
        "series": against_baseline(concluded(run, catalog, store), catalog, store, every=True).regressions,
    }


def pin(
    results: Path | None, node: str | None, words: Sequence[str], profile: Sequence[str] | None, reason: str
) -> str:
    """Pin the runs that are named, else the node's normal nights; what was done. Raises UserError, StoreError."""
    store = open_store(results)
    named = [store.find(word) for word in words]
    hosts = sorted({run.node.hostname for run in named})
    if len(hosts) > 1:
        raise UserError(one_line(f"these runs are of several nodes ({', '.join(hosts)}); pin each node's own"))
    with open_index(results) as index:
        host = hosts[0] if hosts else node_meant(index, node)
        nights = by_night(index.named(host, [run.id for run in named])) if named else []
        nights = nights or _normal_nights(index, host, load_catalog(profile))
    chosen = [run.id for run in named] or [stored.run for night in nights for stored in night]
    if not chosen:
        raise UserError(f"{host}: no good night is stored to pin; measure with: bench run")
    made = Pin(runs=tuple(chosen), at=_now(), reason=reason)
    change(store.root, host, lambda decided: decided.model_copy(update={"pin": made}))
    return one_line(f"{host}: pinned {len(nights)} nights, {chosen[0]} to {chosen[-1]}")


def unpin(results: Path | None, node: str | None, reason: str) -> str:
    """Give up what is pinned; what was done. Raises UserError, StoreError."""
    with open_index(results) as index:
        host = node_meant(index, node)

    def without_pin(decided: Decisions) -> Decisions:
        if decided.pin is None:
            raise UserError(f"{host}: nothing is pinned")
        return decided.model_copy(update={"pin": None})

    pinned = change(index.root, host, without_pin).pin
    nights = len(pinned.runs) if pinned else 0
    return one_line(f"{host}: unpinned {nights} nights" + (f" ({reason})" if reason else ""))


def reset(results: Path | None, node: str | None, reason: str) -> str:
    """Take every run that is stored now out of what is normal; what was done. Raises UserError, StoreError."""
    with open_index(results) as index:
        host = node_meant(index, node)
        # No later than now: the clock may have been ahead when that run was made.
        through = min(_newest(index, host)[1], time.time())
    made = Reset(through=through, at=_now(), reason=reason)
    before = change(index.root, host, lambda decided: decided.model_copy(update={"resets": (*decided.resets, made)}))
    if before.pin is not None:
        note(f"the pinned nights still guard; give them up with: bench baseline unpin --node {host}")
    return one_line(f"{host}: baseline reset, warming 0/7: {reason}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _newest(index: Index, host: str) -> tuple[str, float, str]:
    """Id, start and path of the node's newest whole run."""
    found = index.newest(host)
    if found is None:
        raise UserError(f"{host}: no whole run is stored; measure with: bench run")
    return found


def _normal_nights(index: Index, host: str, catalog: Catalog) -> list[list[StoredRun]]:
    """The newest nights that were normal for every series that gates one of the profiles, at most thirty.

    Where nothing gates, every sound night that no verdict calls bad.
    """
    metrics = catalog.metrics
    run = load(index.root / "runs" / _newest(index, host)[2], follow=False)
    gates = ((m, profile) for profile in catalog.profiles for _, m in gating(run, profile, metrics))
    wanted = [(key_of(m, metrics[m.metric]), profile) for m, profile in gates]
    history = history_of(Series(index, metrics, catalog.scopes), run, [key for key, _ in wanted], ())
    whole = (stored for stored in history.runs if stored.sound and stored.confirms is None)
    good = [stored for stored in whole if "NO-GO" not in [decision for _, _, decision in stored.decisions]]
    for key, profile in wanted:
        normal_ones = set(normal_runs(key, history, profile, metrics[key[0]], Policy()))
        good = [stored for stored in good if stored.run in normal_ones]
    return by_night(good)[-_PINNED_NIGHTS:]
