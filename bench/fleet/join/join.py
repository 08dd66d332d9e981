"""Expected hosts x the files that came -> the fleet document and one verdict, whoever launched them.

Every run is judged here, by the same profiles and from its measurements; a node's own verdict counts for nothing.
Only figures are kept of a run, so that ten thousand of them fit into memory.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from bench import __version__
from bench.fleet.accuse import accused_of
from bench.fleet.join.collect import Sorter, files, read
from bench.fleet.weigh import Weighed, weigh_answer
from bench.judge.fleet import verdict as rules
from bench.judge.fleet.model import ANSWERED, Collective, Fleet, NodeOutcome, PairOutcome, SharedStorage, State
from bench.judge.fleet.outliers import Keys
from bench.judge.profile import Profile
from bench.model import Measurement, Metric
from bench.store.indexing import seconds_of

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
        decision=rules.worst(verdict.decision for verdict in verdicts),
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
