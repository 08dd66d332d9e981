"""What the stored runs say of the nights before a run (for the gate), and of one metric over time (for people)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from bench.errors import why
from bench.judge.baseline.epoch import Circumstances, Scope, asked_for, changed, kept, other_terms, other_version
from bench.judge.baseline.prediction import Policy
from bench.judge.baseline.series import SAME_NIGHT_SECONDS, History, Key, StoredRun, by_night, key_of, one_a_night
from bench.judge.profile import STAND_IN
from bench.model import Code, Metric, Run, Status, code_of
from bench.store import baselines, documents
from bench.store.errors import StoreError, UnusableRun
from bench.store.evidence import SIGNATURE, is_signed, statement_path
from bench.store.index import Index, is_sound, seconds_of

#: More than is kept of a node: 400 nights (``--keep``), each measured three times.
LONGEST = 1300
#: So many runs of a series that is shown and decides nothing.
_LONGEST_SHOWN = 120
_MOST_SIBLINGS = 24
#: Nights of a sibling that are learnt from, and runs of it that are looked at: each may have a second measurement.
_SIBLING_NIGHTS, _SIBLING_RUNS = 30, 60
_MOST_WORDS = 3


@dataclass(frozen=True)
class Series:
    """What the index has of each series. ``metrics`` and ``scopes``: what the probes declare, by metric."""

    index: Index
    metrics: Mapping[str, Metric]
    scopes: Mapping[str, Scope]
    _numbers: dict[str, dict[Key, list[int]]] = field(default_factory=dict)

    def scope(self, key: Key) -> Scope:
        """What the series depends on; nothing but the machine where no probe here declares it."""
        return self.scopes.get(key[0]) or Scope()

    def of(self, metric: str) -> Mapping[Key, Sequence[int]]:
        """Every series of a metric that some node has had, with its numbers in the index: one for all that it found."""
        if metric not in self._numbers:
            found, known = self._numbers.setdefault(metric, {}), self.metrics.get(metric)
            for number, labels in self.index.series(metric):
                identity = known.identity(labels) if known else labels
                found.setdefault((metric, tuple(sorted(identity.items()))), []).append(number)
        return self._numbers[metric]

    def values(self, key: Key, host: str, runs: Sequence[StoredRun], *, valid: bool = True) -> dict[str, float]:
        """Run id -> the series' value in these runs of the node, of several the worst. ``valid``: only such."""
        metric, found = self.metrics.get(key[0]), dict[str, float]()
        worse = max if metric is not None and metric.better == "lower" else min
        within = {stored.run for stored in runs}
        for number in self.of(key[0]).get(key, ()) if runs else ():
            for run, value, sound in self.index.values(number, host, runs[0].at, runs[-1].at):
                if run in within and (sound or not valid):
                    found[run] = worse(found.get(run, value), value)
        return found


def history_of(
    series: Series, run: Run, keys: Sequence[Key], deciding: Collection[Key] | None = None, gated: Collection[str] = ()
) -> History:
    """What came before the run for these series: for the ``deciding`` ones (default: all) all of it, siblings too.

    ``gated``: the metrics whose series are looked for where the run lacks them. The run itself need not be stored.
    Raises UnusableRun (the pins), ValueError (its start is not a time).
    """
    index, host, at = series.index, run.node.hostname, seconds_of(run.started_at)
    now, decided = Circumstances(kept(run.node), run.request), baselines.read(index.root, run.node.hostname)
    runs = index.runs(host, decided.through, at, LONGEST)
    if run.id not in {stored.run for stored in runs}:
        runs.append(StoredRun(run.id, at, is_sound(run), run.confirms, within=now))
    whole = (*runs, *index.runs(host, at, at + SAME_NIGHT_SECONDS, LONGEST))
    here = {key_of(m, series.metrics.get(m.metric)) for m in run.measurements()}
    forms = {_form(key) for key in here}
    split = {}
    for key in keys:
        known = whole if deciding is None or key in deciding else whole[-_LONGEST_SHOWN:]
        split[key] = _split(known, series.values(key, host, known), now, series.scope(key), key)
    pinned = [stored for stored in index.named(host, decided.pin.runs if decided.pin else ()) if stored.run != run.id]
    siblings = [other for other in index.hosts() if other != host][:_MOST_SIBLINGS]
    others = {other: index.runs(other, float("-inf"), float("inf"), _SIBLING_RUNS) for other in siblings}
    return History(
        runs=whole,
        values={key: own for key, (own, _, _) in split.items()},
        before={key: before for key, (_, before, _) in split.items()},
        opened={key: words for key, (_, _, words) in split.items()},
        siblings={
            key: [_nights_of_sibling(series, key, other, known, now) for other, known in others.items()]
            for key in keys
            if deciding is None or key in deciding
        },
        pinned={key: _on_terms(series, key, host, pinned, now) for key in keys},
        asked={
            key: _asked(series, key, run, runs, now, renamed=_form(key) not in forms)
            for metric in gated
            for key in series.of(metric)
            if key not in here
        },
    )


def nights_of(
    series: Series, run: Run, keys: Sequence[Key], without: Collection[str], nights: int = 30
) -> dict[Key, list[float]]:
    """The newest nights of the run's epoch of each series, later ones too, but for some runs."""
    host, now = run.node.hostname, Circumstances(kept(run.node), run.request)
    known = series.index.runs(host, float("-inf"), float("inf"), LONGEST)
    runs = [stored for stored in known if stored.run not in without]
    split = {key: _split(runs, series.values(key, host, runs), now, series.scope(key), key) for key in keys}
    return {key: one_a_night(runs, own)[-nights:] for key, (own, _, _) in split.items()}


def _split(
    runs: Sequence[StoredRun], values: Mapping[str, float], now: Circumstances, scope: Scope, key: Key
) -> tuple[dict[str, float], tuple[dict[str, float], ...], str]:
    """The values of the epoch that ``now`` is of, those of earlier epochs, and in words what changed since the last.

    The earlier epochs are those with enough nights to compare with; if none has, all earlier nights together.
    """
    own: dict[str, float] = {}
    others: list[StoredRun] = []
    words: tuple[str, ...] = ()
    for stored in (stored for stored in runs if stored.run in values):
        if asked := other_terms(stored.within or now, now, scope, key[1]):
            words = asked
        elif changed(stored.within or now, now, scope, key[1]):
            others.append(stored)
        else:
            own[stored.run] = values[stored.run]
    before = _epochs(others, scope, key) or ([others] if others else [])
    if before and (last := before[-1][-1].within):
        words = changed(last, now, scope, key[1])
    epochs = tuple({stored.run: values[stored.run] for stored in epoch} for epoch in before)
    return own, epochs, "; ".join(words[:_MOST_WORDS])


def _epochs(runs: Sequence[StoredRun], scope: Scope, key: Key) -> list[Sequence[StoredRun]]:
    """The runs of each epoch of the series with enough nights to compare with; the epoch that ended last comes last."""
    found: list[Sequence[StoredRun]] = []
    while runs and (newest := runs[-1].within):
        alike = [one for one in runs if one.within and not changed(one.within, newest, scope, key[1])]
        if len(by_night(one for one in alike if one.sound)) >= Policy().fewest:
            found.append(alike)
        known = {one.run for one in alike}
        runs = [one for one in runs if one.run not in known]
    return found[::-1]


def _on_terms(series: Series, key: Key, host: str, runs: Sequence[StoredRun], now: Circumstances) -> list[float]:
    """The nights of these runs that were asked the same of the series, under whatever facts."""
    scope = series.scope(key)
    same = [one for one in runs if one.within and not other_terms(one.within, now, scope, key[1])]
    return one_a_night(same, series.values(key, host, same))


def _nights_of_sibling(
    series: Series, key: Key, host: str, runs: Sequence[StoredRun], now: Circumstances
) -> list[float]:
    """Another node's newest nights that were asked the same of the series, of its own newest epoch."""
    scope = series.scope(key)
    same = [one for one in runs if one.within and one.sound and not other_terms(one.within, now, scope, key[1])]
    newest = same[-1].within if same else None
    alike = [one for one in same if one.within and newest and not changed(one.within, newest, scope, key[1])]
    return one_a_night(alike, series.values(key, host, alike))[-_SIBLING_NIGHTS:]


def _asked(
    series: Series, key: Key, run: Run, runs: Sequence[StoredRun], now: Circumstances, *, renamed: bool
) -> dict[str, float | None]:
    """The earlier runs that asked for the series as ``run`` does, each with its value if it has one, valid or not.

    Where the run has no series of such labels, those of another version of bench do not count: they may be renamed.
    """
    scope, found = series.scope(key), series.values(key, run.node.hostname, runs, valid=False)
    wanted = (one for one in runs if one.run != run.id and one.sound and one.confirms is None and found)
    alike = (one for one in wanted if one.within and not (renamed and other_version(one.within, now)))
    return {one.run: found.get(one.run) for one in alike if one.within and asked_for(one.within, now, scope, key[1])}


def _form(key: Key) -> tuple[str, frozenset[str]]:
    """The names that a series goes by: its metric and the names of its labels."""
    return key[0], frozenset(dict(key[1])) - {STAND_IN}


def values_of(index: Index, metric: str, host: str | None = None, limit: int = 100_000) -> list[dict[str, Any]]:
    """The stored values of a metric, the newest ``limit`` of them, a dict a measurement, oldest first.

    Keys: ``at`` (seconds since 1970), ``run``, ``host``, ``labels`` (JSON), ``value``, ``low``, ``high``, ``invalid``
    (text or None), ``epoch``.
    """
    where, given = ("AND runs.host=?", (host,)) if host else ("", ())
    query = (
        "SELECT runs.at, runs.id AS run, runs.host, series.labels, points.value, points.low, points.high, "
        "points.invalid, runs.epoch FROM series JOIN points ON points.series=series.number "
        f"JOIN runs ON runs.number=points.run WHERE series.metric=? {where} "
        "ORDER BY runs.at DESC, series.labels DESC LIMIT ?"
    )
    found = index.db.execute(query, (metric, *given, limit))
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in reversed(found.fetchall())]


def metrics_in(index: Index) -> list[str]:
    """Every metric that some stored run has, by name."""
    return [name for (name,) in index.db.execute("SELECT DISTINCT metric FROM series ORDER BY metric")]


def _learnt_from(nights: Sequence[tuple[Path, str, str]], keep: int) -> Iterator[str]:
    """Of a node's nights (document, run, epoch), newest first, those without which its next one is judged otherwise.

    The newest good ones: where nobody mends a node for ``keep`` nights, its bad nights would become normal. And the
    first good ones of each epoch among the kept, against which a slow decline is seen. A night that failed may have
    been worse than the nights before too, or fail as all others do: so good is either, without and with those.
    """
    policy, spoilt = Policy(), cache(_spoilt)
    for most in (0, 1):
        good = (run for path, run, _ in nights if spoilt(path) <= most)
        yield from islice(good, policy.window)
        for epoch in {epoch for _, _, epoch in nights[:keep]}:
            oldest = (run for path, run, its in reversed(nights) if its == epoch and spoilt(path) <= most)
            yield from islice(oldest, policy.own_pins)
    yield from _ended_worse(nights, spoilt)


def _ended_worse(nights: Sequence[tuple[Path, str, str]], spoilt: Callable[[Path], int]) -> Iterator[str]:
    """The last nights of each epoch that ended worse than before, until enough good nights followed: they show that
    the change that ended it mended nothing.
    """
    policy, good, last = Policy(), 0, dict[str, list[tuple[Path, str]]]()
    for path, run, epoch in nights:
        good += spoilt(path) == 0
        if good > policy.window:
            break
        last.setdefault(epoch, []).append((path, run))
    for newest in last.values():
        if spoilt(newest[0][0]) > 1:
            yield from (run for _, run in newest[: policy.shifts[-1]])


def _spoilt(path: Path) -> int:
    """0 where the night's verdicts found nothing wrong, 1 for a failed gate, 2 for what is worse than before."""
    try:
        run = documents.load(path)
    except UnusableRun:
        return 2
    found = [finding for verdict in run.verdicts for finding in verdict.findings]
    if any(code_of(finding.reason) in (Code.REGRESSED, Code.SUSPECT) for finding in found):
        return 2
    return int(any(finding.status is Status.FAIL for finding in found))


def prune(root: Path, host: str, keep: int, keep_signed: int | None = None) -> list[Path]:
    """Remove that node's runs beyond its newest ``keep`` nights, with their raw output; the documents removed.

    A pinned run stays, one that the nightly gate still learns from, and a signed one: all of them, or the newest
    ``keep_signed``. One that confirms another goes when that one does. Signature, statement and raw output go first, so
    that a run whose removal was cut short is still listed and goes the next time. Raises StoreError, and UnusableRun
    when the pins cannot be read: then nothing is removed.
    """
    pin = baselines.read(root, host).pin
    with Index(root) as index:
        query = "SELECT path, id, confirms, epoch FROM runs WHERE host=? ORDER BY at DESC, path DESC"
        found = index.db.execute(query, (host,)).fetchall()
    nights = [(root / "runs" / path, run, epoch) for path, run, confirms, epoch in found if confirms is None]
    rows = [(path, run, confirms) for path, run, confirms, _ in found]
    kept = {run for _, run, _ in nights[:keep]}
    kept |= {*(pin.runs if pin else ()), *(_learnt_from(nights, keep) if nights[keep:] else ())}
    kept |= set(islice((run for path, run, _ in rows if is_signed(root / "runs" / path)), keep_signed))
    found = [root / "runs" / path for path, run, confirms in rows if kept.isdisjoint((run, confirms))]
    for path in found:
        raw, statement = path.with_suffix(".raw"), statement_path(path)
        try:
            statement.with_name(statement.name + SIGNATURE).unlink(missing_ok=True)
            statement.unlink(missing_ok=True)
            if raw.is_dir() and not raw.is_symlink():
                shutil.rmtree(raw)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{path}: cannot be removed: {why(error)}") from error
    return found
