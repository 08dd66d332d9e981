"""Expected hosts x the files that came -> the fleet document and one verdict, whoever launched them.

Every run is judged here, by the same profiles and from its measurements; a node's own verdict counts for nothing.
Only figures are kept of a run, so that ten thousand of them fit into memory.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from bench import __version__
from bench.fleet.join.collect import Answer, Sorter, files, machine, read
from bench.judge.fleet import verdict as rules
from bench.judge.fleet.model import (
    ANSWERED,
    Collective,
    Fleet,
    NodeOutcome,
    Outlier,
    PairOutcome,
    SharedStorage,
    Shift,
    State,
)
from bench.judge.fleet.outliers import Figure, Keys, Table, outliers, shifts
from bench.judge.fleet.outliers import figures as figures_of
from bench.judge.fleet.ports import ports
from bench.judge.gate import decide, judge, worst_of
from bench.judge.profile import Profile
from bench.model import Measurement, Metric, Outcome, ProbeResult, Run
from bench.store.index import seconds_of

_MOST_STRANGERS = 20


@dataclass(frozen=True, slots=True)
class Judgement:
    """By what the fleet is judged. ``owners``: metric -> its probe; ``metrics``: those declared, by name."""

    profiles: Sequence[Profile]
    metrics: Mapping[str, Metric]
    owners: Mapping[str, str]


@dataclass(slots=True)
class Known:
    """What a launcher knows beyond the files. A host without a file has its state from here, else it is lost.

    ``network`` holds what a host's pairs say of its network, which counts in place of what its sweep said of it.
    ``again`` is the folder of a second, separate measurement: an outlier, or a shift, is confirmed when it is one there
    too. ``before`` is that of an earlier run of the same hosts, which tells what moved on all of them.
    """

    states: dict[str, tuple[State, str]] = field(default_factory=dict)
    hostnames: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    pairs: Sequence[PairOutcome] = ()
    network: Mapping[str, Sequence[Measurement]] = field(default_factory=dict)
    collective: Collective | None = None
    shared: Sequence[SharedStorage] = ()
    again: Path | None = None
    before: Path | None = None
    holes: Sequence[str] = ()


def join(
    folder: Path,
    expected: Sequence[str],
    by: Judgement,
    known: Known | None = None,
    *,
    fleet_id: str | None = None,
    newest: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Fleet:
    """The fleet document. ``newest``: of several runs of a host the newest counts; without it two are a duplicate."""
    known = known or Known()
    sorter, keys = Sorter(expected, known.hostnames), Keys()
    weighed: dict[str, list[Weighed]] = {}
    strangers: list[str] = []
    with _without_collection():
        for number, path in enumerate(files(folder), 1):
            host, answer = sorter.place(read(path))
            if host is not None:
                weighed.setdefault(host, []).append(weigh_answer(host, answer, by, keys, known.network.get(host, ())))
            elif len(strangers) < _MOST_STRANGERS:
                strangers.append(answer.trouble or f"{path}: cannot be used")
            progress(number)
    chosen = [_one(host, weighed.get(host, []), known, newest) for host in expected]
    return _document(fleet_id or folder.resolve().name, _no_machine_twice(chosen), strangers, by, known)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Figures hold no cycles, and the collector would walk through all of them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _one(host: str, found: Sequence[Weighed], known: Known, newest: bool) -> Weighed:
    """The one true outcome of a host that has none, one or several files."""
    usable = [w for w in found if w.outcome.state in ANSWERED]
    chosen = _newest_or_same(usable, newest)
    told = known.states.get(host)
    if told is not None and told[0] is State.DUPLICATE:
        return _hole(host, *told, known)
    if chosen is not None:
        attempt = known.attempts.get(host, 1)
        return replace(chosen, outcome=chosen.outcome.model_copy(update={"attempt": attempt}))
    if usable:
        runs = ", ".join(w.outcome.run or "" for w in usable[:3])
        return _hole(host, State.DUPLICATE, f"duplicate: {len(usable)} runs came from it ({runs}); none counts", known)
    if told is not None:
        return _hole(host, *told, known)
    if found:
        return _hole(host, State.BAD_RESULT, found[0].outcome.reason or "bad_result", known)
    return _hole(host, State.LOST, "no_result: no file of it came", known)


def _newest_or_same(usable: Sequence[Weighed], newest: bool) -> Weighed | None:
    """The newest if that is wanted; else the only one, where copies of one and the same run are one."""
    if not usable or (len(usable) > 1 and not newest and any(not _same(w, usable[0]) for w in usable)):
        return None
    return max(usable, key=lambda w: w.started_at)


def _same(one: Weighed, other: Weighed) -> bool:
    return one.outcome == other.outcome and one.figures == other.figures and one.started_at == other.started_at


def _hole(host: str, state: State, reason: str, known: Known) -> Weighed:
    hostname = known.hostnames.get(host)
    attempt = known.attempts.get(host, 1)
    return Weighed(NodeOutcome(host=host, state=state, reason=reason[:4000], hostname=hostname, attempt=attempt))


def _no_machine_twice(found: Sequence[Weighed]) -> list[Weighed]:
    """Two names of one machine, or one run under two names: the first counts, the others are duplicates of it."""
    seen: dict[str, str] = {}
    kept = []
    for weighed in found:
        outcome = weighed.outcome
        marks = [mark for mark in (outcome.machine, outcome.run and f"run {outcome.run}") if mark]
        first = next((seen[mark] for mark in marks if mark in seen), None)
        if first is not None:
            reason = f"duplicate: is the same machine, or the same run, as {first}"
            kept.append(Weighed(NodeOutcome(host=outcome.host, state=State.DUPLICATE, reason=reason)))
            continue
        seen |= dict.fromkeys(marks, outcome.host)
        kept.append(weighed)
    return kept


def _document(fleet_id: str, found: Sequence[Weighed], strangers: Sequence[str], by: Judgement, known: Known) -> Fleet:
    nodes = tuple(weighed.outcome for weighed in found)
    accused, moved = accused_of(found, by, known)
    holes = [*known.holes, *rules.pair_holes(known.pairs), *_collective_hole(known.collective)]
    holes += rules.shared_holes(known.shared)
    verdicts = tuple(
        rules.verdict(
            profile.name,
            profile.digest,
            nodes,
            {w.outcome.host: w.scores[profile.name] for w in found if profile.name in w.scores},
            accused,
            holes,
            moved,
        )
        for profile in by.profiles
    )
    return Fleet(
        id=fleet_id,
        joined_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        measured_at=min((w.started_at for w in found if w.started_at), key=_moment, default=None),
        bench_version=__version__,
        nodes=nodes,
        strangers=tuple(strangers),
        pairs=tuple(known.pairs),
        collective=known.collective,
        shared=tuple(known.shared),
        outliers=tuple(accused),
        shifts=tuple(moved),
        verdicts=verdicts,
        decision=worst_of(verdict.decision for verdict in verdicts),
        reasons=tuple(dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons)),
    )


def _moment(text: str) -> float:
    """Seconds since the epoch; what is no time is older than all, so that nothing passes for fresh by it."""
    try:
        return seconds_of(text)
    except ValueError:
        return float("-inf")


def _collective_hole(collective: Collective | None) -> list[str]:
    if collective is None or collective.state is State.PASS:
        return []
    return [f"collective: {collective.state.value}: {collective.reason or 'no figure'}"]


def accused_of(found: Sequence[Weighed], by: Judgement, known: Known) -> tuple[list[Outlier], list[Shift]]:
    """Outliers of the sweep and of the pairs, and what moved on the whole fleet."""
    runs = {weighed.outcome.run for weighed in found}
    again = [w for w in _measured_in(known.again, found, by, known) if w.outcome.run not in runs]
    before = [w for w in _measured_in(known.before, found, by, known) if w.outcome.run not in runs]
    moved = shifts(_table(found), _table(before), by.metrics, _table(again)) if before else []
    return [*_outliers(found, again, by), *ports(known.pairs)], moved


def _outliers(found: Sequence[Weighed], second: Sequence[Weighed], by: Judgement) -> list[Outlier]:
    """By the first measurement; confirmed where the second, with the first of those who have none, says the same."""
    again = {weighed.outcome.host: weighed for weighed in second}
    both = [again.get(weighed.outcome.host, weighed) for weighed in found]
    marks = {_mark(o) for o in outliers(_table(both), by.metrics) if o.level == "act" and o.host in again}
    first = outliers(_table(found), by.metrics)
    return [o.model_copy(update={"confirmed": True}) if _mark(o) in marks else o for o in first]


def _measured_in(folder: Path | None, found: Sequence[Weighed], by: Judgement, known: Known) -> list[Weighed]:
    """What the same hosts measured at another time; of several runs of a host the last that came."""
    if folder is None or not folder.is_dir():
        return []
    sorter, keys = Sorter([weighed.outcome.host for weighed in found], known.hostnames), Keys()
    placed = (sorter.place(read(path)) for path in files(folder))
    weighed = [weigh_answer(host, answer, by, keys) for host, answer in placed if host is not None]
    return list({one.outcome.host: one for one in sorted(weighed, key=lambda one: one.started_at)}.values())


def _table(found: Iterable[Weighed]) -> Table:
    table: Table = {}
    for weighed in found:
        for key, sample in weighed.figures:
            table.setdefault(key, []).append(sample)
    return table


def _mark(outlier: Outlier) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
    return outlier.host, outlier.part, outlier.metric, tuple(sorted(outlier.labels.items()))


@dataclass(frozen=True, slots=True)
class Weighed:
    """A run with all but its figures thrown away; or, with ``outcome.state`` bad-result, why it is none."""

    outcome: NodeOutcome
    scores: dict[str, float] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    started_at: str = ""


def weigh_answer(host: str, answer: Answer, by: Judgement, keys: Keys, network: Sequence[Measurement] = ()) -> Weighed:
    """A file that came for that host, whatever is in it."""
    if answer.run is None:
        reason = f"bad_result: {answer.trouble}"
        return Weighed(NodeOutcome(host=host, state=State.BAD_RESULT, reason=reason))
    return weigh(host, answer.run, by, keys, network)


def weigh(host: str, run: Run, by: Judgement, keys: Keys, network: Sequence[Measurement] = ()) -> Weighed:
    """One run, judged, with what its pairs say of its network. An interrupted run counts by what it measured."""
    whole = with_network(run, network, by.owners)
    verdicts = [judge(whole, profile, by.owners) for profile in by.profiles]
    kind = rules.node_class(run.node.facts)
    outcome = NodeOutcome(
        host=host,
        state=rules.state_of(decide(verdicts)),
        hostname=run.node.hostname,
        machine=machine(run),
        node_class=kind,
        run=run.id,
        decisions={verdict.profile: verdict.decision for verdict in verdicts},
        score=min((verdict.score for verdict in verdicts), default=0.0),
        failed=rules.failed_gates(verdicts),
    )
    scores = {verdict.profile: verdict.score for verdict in verdicts}
    return Weighed(outcome, scores, tuple(figures_of(host, kind, run.measurements(), keys)), run.started_at)


def with_network(run: Run, network: Sequence[Measurement], owners: Mapping[str, str]) -> Run:
    """The run with its network result from the pairs; alone, a node measures only its loopback."""
    if not network:
        return run
    owner = owners.get(network[0].metric, "network")
    pairs = ProbeResult(probe=owner, outcome=Outcome.OK, measurements=tuple(network))
    return run.model_copy(update={"results": (*(r for r in run.results if r.probe != owner), pairs)})
