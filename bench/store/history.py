"""What the stored runs say of the nights before a run (for the gate), and of one metric over time (for people)."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from bench.judge.baseline.comparison import changes, epoch_of
from bench.judge.baseline.series import SAME_NIGHT_SECONDS, History, Key, StoredRun
from bench.model import Run
from bench.store import baselines
from bench.store.errors import StoreError, one_line, why
from bench.store.index import Index, is_sound, seconds_of

#: Four windows of thirty nights: enough to know which of the last thirty were normal.
LONGEST = 120
_MOST_SIBLINGS = 24
_SIBLING_NIGHTS = 30


def history_of(index: Index, run: Run, keys: Sequence[Key], pooled: Collection[Key] | None = None) -> History:
    """What came before the run for these series; siblings' values for the ``pooled`` ones only (default: for all).

    The run itself need not be stored. Raises UnusableRun (the pins), ValueError (its start is not a time).
    """
    host, at, epoch = run.node.hostname, seconds_of(run.started_at), epoch_of(run.node, run.request)
    decided = baselines.read(index.root, host)
    runs = index.runs(host, epoch, decided.through, at, LONGEST)
    if run.id not in {stored.run for stored in runs}:
        runs.append(StoredRun(run.id, at, is_sound(run), run.confirms))
    later = index.runs(host, epoch, at, at + SAME_NIGHT_SECONDS, LONGEST)
    known = [stored.run for stored in (*runs, *later)]
    pinned = decided.pin.runs if decided.pin else ()
    siblings = [other for other in index.hosts() if other != host][:_MOST_SIBLINGS]
    like = f"{run.request.effort.value} {run.request.accelerator}"
    return History(
        runs=tuple(runs + later),
        values={key: index.values(*key, host, known) for key in keys},
        siblings={
            key: [index.recent(*key, other, like, _SIBLING_NIGHTS) for other in siblings]
            for key in keys
            if pooled is None or key in pooled
        },
        pinned={key: list(index.values(*key, host, [p for p in pinned if p != run.id]).values()) for key in keys},
        opened=opened(index, run, at, epoch),
    )


def opened(index: Index, run: Run, at: float, epoch: str) -> str:
    """What changed when this run's epoch began, in words; empty where it is the first or nothing is known of it."""
    before = index.epoch_before(run.node.hostname, epoch, at)
    if before is None or index.known_before(run.node.hostname, epoch, before[2]):
        return ""
    fingerprint, other, _ = before
    if fingerprint == run.node.fingerprint:
        return f"{other.partition(' ')[2]} -> {epoch.partition(' ')[2]}"
    found = changes(index.facts(fingerprint), index.facts(run.node.fingerprint))
    return "; ".join(found[:3]) or "the node's fingerprint changed"


def values_of(index: Index, metric: str, host: str | None = None, limit: int = 100_000) -> list[dict[str, Any]]:
    """Every stored value of a metric, a dict a measurement, oldest first.

    Keys: ``at`` (seconds since 1970), ``run``, ``host``, ``labels`` (JSON), ``value``, ``low``, ``high``, ``invalid``
    (text or None), ``epoch``.
    """
    where, given = ("AND runs.host=?", (host,)) if host else ("", ())
    query = (
        "SELECT runs.at, runs.id AS run, runs.host, series.labels, points.value, points.low, points.high, "
        "points.invalid, runs.epoch FROM series JOIN points ON points.series=series.number "
        f"JOIN runs ON runs.number=points.run WHERE series.metric=? {where} ORDER BY runs.at, series.labels LIMIT ?"
    )
    found = index.db.execute(query, (metric, *given, limit))
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found]


def metrics_in(index: Index) -> list[str]:
    """Every metric that some stored run has, by name."""
    return [name for (name,) in index.db.execute("SELECT DISTINCT metric FROM series ORDER BY metric")]


def prune(root: Path, host: str, keep: int) -> list[Path]:
    """Remove that node's runs beyond its newest ``keep`` nights, with their raw output; the documents removed.

    A pinned run stays; one that confirms another goes when that one does. The raw output goes first, so that a run
    whose removal was cut short is still listed and goes the next time. Raises StoreError, and UnusableRun when the pins
    cannot be read: then nothing is removed.
    """
    pin = baselines.read(root, host).pin
    with Index(root) as index:
        query = "SELECT path, id, confirms FROM runs WHERE host=? ORDER BY at DESC, path DESC"
        rows = index.db.execute(query, (host,)).fetchall()
    kept = {*[run for _, run, confirms in rows if confirms is None][:keep], *(pin.runs if pin else ())}
    found = [root / "runs" / path for path, run, confirms in rows if kept.isdisjoint((run, confirms))]
    for path in found:
        raw = path.with_suffix(".raw")
        try:
            if raw.is_dir() and not raw.is_symlink():
                shutil.rmtree(raw)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(one_line(f"{path}: cannot be removed: {why(error)}")) from error
    return found
