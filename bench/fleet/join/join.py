"""Expected hosts x the files that came -> the fleet document and one verdict, whoever launched them.

Every run is judged here, by the same profiles and from its measurements; a node's own verdict counts for nothing.
Only figures are kept of a run, so that ten thousand of them fit into memory.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from bench import __version__
from bench.fleet.join.collect import Sorter, files, machine, read
from bench.judge.fleet import verdict as rules
from bench.judge.fleet.model import ANSWERED, Collective, Fleet, NodeOutcome, Outlier, PairOutcome, SharedStorage, State
from bench.judge.fleet.outliers import Figure, Keys, Table, figures, outliers, shifts
from bench.judge.fleet.ports import ports
from bench.judge.gate import decide, judge, worst_of
from bench.judge.profile import Profile
from bench.judge.sessions import SpreadOf, alone
from bench.model import Metric, ProbeResult, Run
from bench.store.index import seconds_of

_MOST_STRANGERS = 20


@dataclass(frozen=True, slots=True)
class Judgement:
    """By what the fleet is judged. ``owners``: metric -> its probe; ``metrics``: those declared, by name.

    ``spread_of``: how far sessions of a node lie apart; a fleet that was measured once knows it by the metrics' priors.
    """

    profiles: Sequence[Profile]
    metrics: Mapping[str, Metric]
    owners: Mapping[str, str]
    spread_of: SpreadOf = alone


@dataclass(slots=True)
class Known:
    """What a launcher knows beyond the files. A host without a file has its state from here, else it is lost.

    ``found`` holds what a host's pairs and the fleet's all-reduce say of it, in place of what the same probes of its
    sweep, alone, said.
    ``again`` is the folder of a second, separate measurement: an outlier, or a shift, is confirmed when it is one there
    too. ``before`` is that of an earlier run of the same hosts, which tells what moved on all of them.
    """

    states: dict[str, tuple[State, str]] = field(default_factory=dict)
    hostnames: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    pairs: Sequence[PairOutcome] = ()
    found: dict[str, list[ProbeResult]] = field(default_factory=dict)
    collective: Collective | None = None
    shared: Sequence[SharedStorage] = ()
    again: Path | None = None
    before: Path | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A host's outcome, and of its run no more than the figures."""

    outcome: NodeOutcome
    scores: dict[str, float] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    started_at: str = ""


def join(folder: Path, expected: Sequence[str], by: Judgement, known: Known, *, newest: bool = False) -> Fleet:
    """The fleet document. ``newest``: of several runs of a host the newest counts; without it two are a duplicate."""
    sorter, keys = Sorter(expected, known.hostnames), Keys()
    came: dict[str, list[Judged]] = defaultdict(list)
    strangers: list[str] = []
    gc.disable()  # figures hold no cycles, and the collector would walk through all of them again and again
    try:
        for path in files(folder):
            host, run = sorter.place(path, read(path))
            if host is not None:
                came[host].append(_judged(host, run, by, keys, known.found.get(host, ())))
            elif len(strangers) < _MOST_STRANGERS:
                strangers.append(str(run))
    finally:
        gc.enable()
    found = _no_machine_twice([_one(host, came[host], known, newest) for host in expected])
    return _document(folder.resolve().name, found, strangers, by, known)


def _judged(host: str, run: Run | str, by: Judgement, keys: Keys, found: Sequence[ProbeResult] = ()) -> Judged:
    """A file that came for that host, with what was measured of it beside others: alone, it measures its loopback."""
    if isinstance(run, str):
        return Judged(NodeOutcome(host=host, state=State.BAD_RESULT, reason=f"bad_result: {run}"))
    beside = {result.probe for result in found}
    whole = run.model_copy(update={"results": (*(r for r in run.results if r.probe not in beside), *found)})
    verdicts = [judge(whole, profile, by.owners, by.spread_of) for profile in by.profiles]
    kind = rules.node_class(run.node.facts)
    outcome = NodeOutcome(
        host=host,
        state=rules.STATE_OF[decide(verdicts)],
        hostname=run.node.hostname,
        machine=machine(run),
        node_class=kind,
        run=run.id,
        decisions={verdict.profile: verdict.decision for verdict in verdicts},
        score=min((verdict.score for verdict in verdicts), default=0.0),
        failed=rules.failed_gates(verdicts),
    )
    scores = {verdict.profile: verdict.score for verdict in verdicts}
    return Judged(outcome, scores, tuple(figures(host, kind, run.measurements(), keys, by.metrics)), run.started_at)


def _one(host: str, found: Sequence[Judged], known: Known, newest: bool) -> Judged:
    """The one true outcome of a host that has none, one or several files. Copies of one and the same run are one."""
    usable = [one for one in found if one.outcome.state in ANSWERED]
    attempt, told = known.attempts.get(host, 1), known.states.get(host)
    taken = told is not None and told[0] is State.DUPLICATE
    if usable and not taken and (newest or all(one == usable[0] for one in usable)):
        chosen = max(usable, key=lambda one: one.started_at)
        return replace(chosen, outcome=chosen.outcome.model_copy(update={"attempt": attempt}))
    if usable and not taken:
        runs = ", ".join(one.outcome.run or "" for one in usable[:3])
        told = State.DUPLICATE, f"duplicate: {len(usable)} runs came from it ({runs}); none counts"
    elif told is None and found:
        told = State.BAD_RESULT, found[0].outcome.reason or "bad_result"
    state, reason = told or (State.LOST, "no_result: no file of it came")
    hostname = known.hostnames.get(host)
    return Judged(NodeOutcome(host=host, state=state, reason=reason[:4000], hostname=hostname, attempt=attempt))


def _no_machine_twice(found: Sequence[Judged]) -> list[Judged]:
    """Two names of one machine, or one run under two names: the first counts, the others are duplicates of it."""
    seen: dict[str, str] = {}
    kept = []
    for one in found:
        outcome = one.outcome
        marks = [mark for mark in (outcome.machine, outcome.run and f"run {outcome.run}") if mark]
        if first := next((seen[mark] for mark in marks if mark in seen), None):
            reason = f"duplicate: is the same machine, or the same run, as {first}"
            kept.append(Judged(NodeOutcome(host=outcome.host, state=State.DUPLICATE, reason=reason)))
        else:
            seen |= dict.fromkeys(marks, outcome.host)
            kept.append(one)
    return kept


def _document(fleet_id: str, found: Sequence[Judged], strangers: Sequence[str], by: Judgement, known: Known) -> Fleet:
    nodes = tuple(one.outcome for one in found)
    runs = {node.run for node in nodes}
    measured = (_measured_in(place, found, by, known) for place in (known.again, known.before))
    again, before = ([one for one in other if one.outcome.run not in runs] for other in measured)
    deviating = [*_outliers(found, again, by), *ports(known.pairs)]
    moved = shifts(_table(found), _table(before), by.metrics, _table(again)) if before else []
    holes = rules.pair_holes(known.pairs)
    if known.collective is not None and known.collective.state is not State.PASS:
        holes.append(f"collective: {known.collective.state.value}: {known.collective.reason or 'no figure'}")
    holes += rules.shared_holes(known.shared)
    verdicts = []
    for profile in by.profiles:
        scores = {one.outcome.host: one.scores[profile.name] for one in found if profile.name in one.scores}
        verdicts.append(rules.verdict(profile.name, profile.digest, nodes, scores, deviating, holes, moved))
    return Fleet(
        id=fleet_id,
        joined_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        measured_at=min((one.started_at for one in found if one.started_at), key=_moment, default=None),
        bench_version=__version__,
        nodes=nodes,
        strangers=tuple(strangers),
        pairs=tuple(known.pairs),
        collective=known.collective,
        shared=tuple(known.shared),
        outliers=tuple(deviating),
        shifts=tuple(moved),
        verdicts=tuple(verdicts),
        decision=worst_of(verdict.decision for verdict in verdicts),
        reasons=tuple(dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons)),
    )


def _moment(text: str) -> float:
    """Seconds since the epoch; what is no time is older than all, so that nothing passes for fresh by it."""
    try:
        return seconds_of(text)
    except ValueError:
        return float("-inf")


def _outliers(found: Sequence[Judged], again: Sequence[Judged], by: Judgement) -> list[Outlier]:
    """By the first measurement; confirmed where the second, with the first of those who have none, says the same."""
    second = {one.outcome.host: one for one in again}
    both = [second.get(one.outcome.host, one) for one in found]
    marks = {_mark(o) for o in outliers(_table(both), by.metrics) if o.level == "act" and o.host in second}
    first = outliers(_table(found), by.metrics)
    return [o.model_copy(update={"confirmed": True}) if _mark(o) in marks else o for o in first]


def _measured_in(folder: Path | None, found: Sequence[Judged], by: Judgement, known: Known) -> list[Judged]:
    """What the same hosts measured at another time; of several runs of a host the last that came."""
    if folder is None or not folder.is_dir():
        return []
    sorter, keys = Sorter([one.outcome.host for one in found], known.hostnames), Keys()
    placed = (sorter.place(path, read(path)) for path in files(folder))
    other = [_judged(host, run, by, keys) for host, run in placed if host is not None]
    return list({one.outcome.host: one for one in sorted(other, key=lambda one: one.started_at)}.values())


def _table(found: Iterable[Judged]) -> Table:
    table: Table = defaultdict(list)
    for one in found:
        for key, sample in one.figures:
            table[key].append(sample)
    return table


def _mark(outlier: Outlier) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
    return outlier.host, outlier.part, outlier.metric, tuple(sorted(outlier.labels.items()))
