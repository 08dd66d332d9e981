"""Runs -> what this node normally measures; a run against it -> one `Regression` a series, and what they make of a
verdict.

A *series* is one metric on one node with the labels that say what was measured, in one *epoch*
(`bench.judge.baseline.epoch`). A *night* is the runs that began within 20 h of its first, as the median of what they
measured: runs of one afternoon share its noise. A run that was made to confirm another belongs to that one's night.
Runs that were judged NO-GO for the profile, were interrupted, or whose measurement is invalid (a contended host, say)
are never part of what is normal.

Nothing vanishes by itself: while a new epoch warms up its nights are compared with those of the epoch before as well,
and a series that was there night after night is missing until it is measured again or no longer asked for.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, takewhile, zip_longest
from typing import NamedTuple

from bench.judge.baseline.detector import SEVERITY, Night, SeriesCall, SeriesState, Track
from bench.judge.baseline.epoch import Circumstances, Labels
from bench.judge.baseline.prediction import Policy, prior_of
from bench.judge.baseline.scale import Scale, ScaleKind, scale_of
from bench.judge.gate import ALMOST, accepts, applies, counts_for, decision_of, keeps, of_node
from bench.judge.profile import STAND_IN, Gate, Profile
from bench.judge.statistics import median
from bench.model import Code, Decision, Finding, Frozen, Limit, Measurement, Metric, Run, Status, Verdict, code_of
from bench.units import series_name

#: A series of the node: the metric's name and the labels that say what was measured, sorted.
Key = tuple[str, Labels]

#: Under this share of a `max` a regression decides nothing (contract, section 8).
_FAR = 0.1
#: A later run within so many seconds is a second measurement of the same night.
SAME_NIGHT_SECONDS = 6 * 3600.0
#: A night's runs begin within so many seconds of its first: a timer that is 90 min late or early still makes one each.
NIGHT_SECONDS = 20 * 3600.0
#: A series is one of the node's when it was there on so many of so many nights.
_THERE, _OF_NIGHTS = 5, 7


class StoredRun(NamedTuple):
    """One stored run, as far as a baseline needs to know it. ``at`` is its start in seconds since the epoch (UTC).

    ``sound``: measured to its end and no replay. ``confirms``: the id of the run that it was made to confirm.
    ``decisions``: (profile, digest, decision) of each stored verdict. ``within``: what it was made under, one object
    for all runs that were made under the same.
    """

    run: str
    at: float
    sound: bool = True
    confirms: str | None = None
    decisions: tuple[tuple[str, str, str], ...] = ()
    within: Circumstances | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What the store knows that matters for one run: the node's runs, oldest first, and their values.

    ``runs`` also holds the run itself and what came within `SAME_NIGHT_SECONDS` of it. ``values[key]`` maps the id of
    each run of the series' epoch to its valid value. ``before[key]``: the same for each earlier epoch, oldest first;
    ``opened[key]``: what changed since the last of them, in words. ``siblings[key]``: the nights of each other node;
    ``pinned[key]``: the acceptance nights. ``asked[key]``, for a series that the run lacks: the earlier runs that asked
    for it as this one does, each with its value or None.
    """

    runs: tuple[StoredRun, ...] = ()
    values: Mapping[Key, Mapping[str, float]] = field(default_factory=dict)
    before: Mapping[Key, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    opened: Mapping[Key, str] = field(default_factory=dict)
    siblings: Mapping[Key, Sequence[Sequence[float]]] = field(default_factory=dict)
    pinned: Mapping[Key, Sequence[float]] = field(default_factory=dict)
    asked: Mapping[Key, Mapping[str, float | None]] = field(default_factory=dict)


class Regression(Frozen):
    """One series of a run against what is normal: an entry of ``regressions`` in ``bench gate --json``.

    ``observed`` is None for a series that is missing. ``expected`` is the centre of the nights in the metric's own
    unit. ``drop_ratio`` is how much worse the run is, as a share of it (negative: better); for shares whose healthy
    value is near 0 (starvation, loss) the difference itself, and for counts how many more there are. ``nights`` are
    those that it was compared with. ``gating`` is False for what decides nothing: series of no required gate,
    what is only slower, and where no drop that could hide breaks a limit.
    """

    metric: str
    labels: dict[str, str]
    observed: float | None
    expected: float | None
    drop_ratio: float | None
    minimum_detectable_drop_ratio: float | None
    nights: int
    status: SeriesState
    gating: bool = True
    gate: int = 0
    reason: str = ""

    def public(self) -> dict[str, object]:
        """The entry as the contract prints it, with the reason and whether it gates beside it."""
        return self.model_dump(mode="json", exclude={"gate"})


def key_of(measurement: Measurement, metric: Metric | None) -> Key:
    """The series that a measurement of that metric belongs to; None where no probe here declares it."""
    labels = metric.identity(measurement.labels) if metric else measurement.labels
    return measurement.metric, tuple(sorted(labels.items()))


def by_night(runs: Iterable[StoredRun]) -> list[list[StoredRun]]:
    """Runs, oldest first, as nights: what begins within `NIGHT_SECONDS` of a night's first run belongs to it."""
    nights: list[list[StoredRun]] = []
    for run in runs:
        if nights and run.at - nights[-1][0].at < NIGHT_SECONDS:
            nights[-1].append(run)
        else:
            nights.append([run])
    return nights


def one_a_night(runs: Iterable[StoredRun], values: Mapping[str, float]) -> list[float]:
    """One value a night, oldest first: the median of its runs that measured the series by themselves."""
    nights = by_night(stored for stored in runs if stored.run in values and stored.sound and stored.confirms is None)
    return [median([values[stored.run] for stored in night]) for night in nights]


def gating(run: Run, profile: Profile, metrics: Mapping[str, Metric]) -> list[tuple[int, Measurement]]:
    """The run's measurements that a profile gates on, with the index of their gate: each gate's worst first, before any
    gate's second. Only required gates, only what counts for them; none of `max = 0`, where the limit says all.
    """
    queues = [
        [(index, m) for m in _worst_first(run.find(gate.metric, **gate.labels), gate) if _counts(m, gate, metrics)]
        for index, gate in enumerate(profile.gates)
        if gate.required and gate.max != 0.0 and applies(run, gate)
    ]
    chosen: dict[Key, tuple[int, Measurement]] = {}
    for index, m in filter(None, chain.from_iterable(zip_longest(*queues))):
        chosen.setdefault(key_of(m, metrics[m.metric]), (index, m))
    return list(chosen.values())


def _worst_first(found: Iterable[Measurement], gate: Gate) -> list[Measurement]:
    sign = 1.0 if gate.max is None else -1.0
    return sorted(found, key=lambda m: (sign * m.value, m.metric, sorted(m.labels.items())))


def _counts(measurement: Measurement, gate: Gate, metrics: Mapping[str, Metric]) -> bool:
    metric = metrics.get(measurement.metric)
    if metric is None or metric.better == "none" or measurement.invalid is not None:
        return False
    return counts_for(measurement, gate)


def regressions(
    run: Run, profile: Profile, history: History, metrics: Mapping[str, Metric], policy: Policy | None = None
) -> tuple[Regression, ...]:
    """Every series that the profile gates on, against its nights; not those whose metric no probe here declares.

    All of them decide. False alarms are bounded as for `most_series`: their levels are shared out over the gates evenly
    and in a gate over its series, so that no series keeps another from being looked at.
    """
    measured, policy = gating(run, profile, metrics), policy or Policy()
    series = Counter(gate for gate, _ in measured)
    found = []
    for gate, measurement in measured:
        own, limits = policy.shared(len(series) * series[gate]), _limits(run, measurement, profile)
        entry = judge_series(run, measurement, profile, history, metrics[measurement.metric], own, limits)
        found.append(entry.model_copy(update={"gate": gate}))
    return (*found, *missing(run, profile, history))


def missing(run: Run, profile: Profile, history: History) -> Iterator[Regression]:
    """The series of required gates that were there night after night and are not in the run, which asked for them.

    All of them decide: it takes no statistics to say that seven devices are not eight.
    """
    for index, gate in enumerate(profile.gates if run.confirms is None else ()):
        for key, asked in history.asked.items() if gate.required else ():
            labels = dict(key[1])
            looked_for = key[0] == gate.metric and gate.labels.items() <= labels.items()
            if looked_for and accepts(gate, labels.get(STAND_IN)) and (entry := _missing(key, asked, history.runs)):
                yield entry.model_copy(update={"gate": index})


def _missing(key: Key, asked: Mapping[str, float | None], runs: Sequence[StoredRun]) -> Regression | None:
    """Was it there on most of the nights until it was last seen? Then it has not come back since."""
    nights = [[asked[one.run] for one in night] for night in by_night(one for one in runs if one.run in asked)]
    seen = [[value for value in night if value is not None] for night in nights]
    last = max((number for number, values in enumerate(seen) if values), default=-1)
    window = seen[max(0, last + 1 - _OF_NIGHTS) : last + 1]
    there = [median(values) for values in window if values]
    if len(there) < _THERE:
        return None
    since = f", not for {gone} nights" if (gone := len(seen) - last) > 1 else ", not tonight"
    return Regression(
        metric=key[0], labels=dict(key[1]), observed=None, expected=median(there), drop_ratio=None,
        minimum_detectable_drop_ratio=None, nights=len(there), status=SeriesState.MISSING,
        reason=f"{Code.MISSING}: measured on {len(there)} of {len(window)} nights{since}",
    )  # fmt: skip


def _limits(run: Run, measurement: Measurement, profile: Profile) -> list[Limit]:
    """What the profile asks of the measurement."""
    asking = [gate for gate in profile.gates if gate.required and gate.metric == measurement.metric]
    return [of_node(run, gate).limit for gate in asking if gate.labels.items() <= measurement.labels.items()]


def informative(run: Run, profiles: Sequence[Profile], metrics: Mapping[str, Metric]) -> list[Measurement]:
    """The run's valid measurements of a better and a worse that gate none of the profiles."""
    decisive = {key_of(m, metrics[m.metric]) for profile in profiles for _, m in gating(run, profile, metrics)}
    directed = [m for m in run.measurements() if m.metric in metrics and metrics[m.metric].better != "none"]
    return [m for m in directed if m.invalid is None and key_of(m, metrics[m.metric]) not in decisive]


def judge_series(
    run: Run,
    measurement: Measurement,
    profile: Profile,
    history: History,
    metric: Metric,
    policy: Policy,
    limits: Sequence[Limit] = (),
) -> Regression:
    """One measurement of the run against the nights of its series, and against what is asked of it."""
    key = key_of(measurement, metric)
    values, before = {**history.values.get(key, {}), run.id: measurement.value}, history.before.get(key, ())
    scale = scale_of(metric, [*values.values(), *chain.from_iterable(epoch.values() for epoch in before)])
    siblings = [[scale.of(v) for v in nights if scale.fits(v)] for nights in history.siblings.get(key, ())]
    prior = prior_of(siblings, scale.floor(policy.scale_floor), policy.fewest)
    own, tonight = _tonight(run, history, values, scale)
    track = Track(policy, scale, prior, [scale.of(value) for value in history.pinned.get(key, ())])
    _Nights(history.runs, values, profile, scale).teach(track, own)
    call = track.judge(tonight)
    found = _regression(measurement, call, scale, history.opened.get(key, ""))
    if before and call.state not in _BAD:
        epochs = [_Nights(history.runs, epoch, profile, scale) for epoch in before]
        older, ended = _taught(epochs, own, lambda: Track(policy, scale, prior))
        worse = older.judge(tonight)
        if worse.state in _BAD and (call.state is SeriesState.WARMING or ended is SeriesState.REGRESSED):
            told = _regression(measurement, worse, scale, "")
            reason = _worse_than_before(told, found, ended, scale, history.opened.get(key, ""))
            found = told.model_copy(update={"status": SeriesState.SUSPECT, "reason": reason})
    return _bearing(found, call, tonight, scale, limits) if limits else found


_BAD = (SeriesState.SUSPECT, SeriesState.REGRESSED)


def _taught(epochs: Sequence[_Nights], own: str, fresh: Callable[[], Track]) -> tuple[Track, SeriesState | None]:
    """What tonight is compared with of the epochs before, and what the last night of them was.

    It is the last epoch by itself, unless an earlier one ended regressed and no good night came since: however often
    the node changed, bad nights are not normal for that.
    """
    older, ended = fresh(), None
    for epoch in epochs:
        alone = fresh()
        state = epoch.teach(alone, own)
        if ended is not SeriesState.REGRESSED or epoch.teach(older, own) is not SeriesState.REGRESSED:
            older, ended = alone, state
    return older, ended


def _worse_than_before(
    told: Regression, found: Regression, ended: SeriesState | None, scale: Scale, opened: str
) -> str:
    """Worse than the nights before the epoch: what changed may be why, so it is a suspicion until the new one is warm.

    One that was regressed when the epoch ended is not well for that: a change is no mend, only a good night is.
    """
    was = ", regressed then and not mended" if ended is SeriesState.REGRESSED else ""
    normal = f"the {told.nights} nights before {opened or 'the node changed'}{was}"
    since = f"; {found.nights}/{Policy().fewest} nights since" if found.status is SeriesState.WARMING else ""
    return f"{Code.SUSPECT}: {_amount(told.drop_ratio, scale)} worse than {normal}{since}"


def normal_runs(key: Key, history: History, profile: Profile, metric: Metric, policy: Policy) -> list[str]:
    """The runs of the nights that were normal for this series, oldest first: not suspect, regressed or judged bad."""
    values = history.values.get(key, {})
    nights = _Nights(history.runs, values, profile, scale_of(metric, values.values()))
    track, found = Track(policy, nights.scale), []
    for night in by_night(nights.until(None)):
        made = nights.night(night)
        if track.enter(made).state not in _BAD and made.usable:
            found += [stored.run for stored in night if nights.usable(stored)]
    return found


@dataclass(frozen=True)
class _Nights:
    """The nights of one series: the node's runs, and what those of an epoch measured."""

    runs: Sequence[StoredRun]
    values: Mapping[str, float]
    profile: Profile
    scale: Scale

    def teach(self, track: Track, own: str) -> SeriesState | None:
        """Enter the nights before the run ``own``; what the last of them was.

        What was measured earlier in the run's own night is not part of what is normal, but a bad value of it is known:
        a second one confirms it.
        """
        nights = by_night(self.until(own))
        at = next((stored.at for stored in self.runs if stored.run == own), math.inf)
        same = nights.pop() if nights and at - nights[-1][0].at < NIGHT_SECONDS else []
        state = None
        for night in nights:
            state = track.enter(self.night(night)).state
        for earlier in (self.night([stored]) for stored in same):
            if track.judge(earlier).state in _BAD:
                state = track.enter(earlier).state
        return state

    def until(self, own: str | None) -> Iterator[StoredRun]:
        """The sound runs before ``own`` that measured the series by themselves."""
        for stored in takewhile(lambda one: one.run != own, self.runs):
            if stored.sound and stored.confirms is None and stored.run in self.values:
                yield stored

    def night(self, runs: Sequence[StoredRun]) -> Night:
        """The median of a night's runs, of its usable ones where there are any, with their further measurements."""
        usable = [stored for stored in runs if self.usable(stored)]
        counted = [stored.run for stored in usable or runs]
        again = [self._again[run] for run in counted if run in self._again]
        thirds = [later[1] for later in again if len(later) > 1]
        value = median([self.scale.of(self.values[run]) for run in counted])
        second = median([later[0] for later in again]) if again else None
        return Night(value, second, median(thirds) if thirds else None, usable=bool(usable))

    def usable(self, stored: StoredRun) -> bool:
        return self.scale.fits(self.values[stored.run]) and not judged_bad(stored, self.profile)

    @cached_property
    def _again(self) -> Mapping[str, list[float]]:
        """Run id -> its further measurements, on the scale."""
        found: dict[str, list[float]] = defaultdict(list)
        for stored in self.runs:
            if stored.sound and stored.confirms and stored.run in self.values:
                found[stored.confirms].append(self.scale.of(self.values[stored.run]))
        return found


def judged_bad(stored: StoredRun, profile: Profile) -> bool:
    """Was the run NO-GO for this profile? Where it was never judged by it: for any.

    A run without verdicts counts as good, and so does an INCONCLUSIVE one: what it did measure was measured.
    """
    own = [d for name, digest, d in stored.decisions if profile.digest == digest or profile.name == name]
    return "NO-GO" in (own or [decision for _, _, decision in stored.decisions])


def _tonight(run: Run, history: History, values: Mapping[str, float], scale: Scale) -> tuple[str, Night]:
    """The id of the run's own night: that of the run which it confirms, where that one measured the series too."""
    own = next((stored for stored in history.runs if stored.run == run.id), None)
    confirmed = own.confirms if own else run.confirms
    if confirmed is not None and confirmed != run.id and confirmed in values:
        until = takewhile(lambda one: one != run.id, _later(confirmed, history, values))
        return confirmed, _night([confirmed, *until, run.id], values, scale)
    return run.id, _night([run.id, *_later(run.id, history, values)], values, scale)


def _night(runs: Sequence[str], values: Mapping[str, float], scale: Scale) -> Night:
    """Of its runs, in their order: three measurements at most decide."""
    first, again, third, *_ = *(scale.of(values[run]) for run in runs), None, None
    return Night(first, again, third)


def _later(run: str, history: History, values: Mapping[str, float]) -> list[str]:
    """The separate measurements of the same night: of runs made to confirm it, then of the next runs within hours."""
    runs = [s for s in history.runs if s.sound or s.run == run]
    confirming = [s.run for s in runs if s.confirms == run]
    own = next((s for s in runs if s.run == run), None)
    later = runs[runs.index(own) + 1 :] if own else []
    near = [s.run for s in later if own and s.at - own.at <= SAME_NIGHT_SECONDS and s.confirms is None]
    return [found for found in (*confirming, *near) if found in values]


def _bearing(found: Regression, call: SeriesCall, tonight: Night, scale: Scale, limits: Sequence[Limit]) -> Regression:
    """What the call means for the limits. Far below a `max`, worse is only slower; a drop that might hide decides only
    where it would break a limit.
    """
    far = all(limit.max is not None and scale.back(min(tonight.measured)) < _FAR * limit.max for limit in limits)
    if far and found.status in _BAD:
        why = f"{found.reason.partition(': ')[2]}, and still under a tenth of the limit"
        return found.model_copy(
            update={"status": SeriesState.SLOWER, "gating": False, "reason": f"{Code.SLOWER}: {why}"}
        )
    if found.status is SeriesState.UNDETECTABLE and call.hidden is not None:
        hidden = scale.back(call.hidden)
        return found.model_copy(update={"gating": not all(keeps(hidden, limit) for limit in limits)})
    return found


def _regression(measurement: Measurement, call: SeriesCall, scale: Scale, opened: str) -> Regression:
    ratio = None if call.centre is None or call.drop is None else scale.ratio(call.centre, call.drop)
    least = None if call.centre is None or call.least is None else scale.ratio(call.centre, call.least)
    return Regression(
        metric=measurement.metric,
        labels=measurement.labels,
        observed=measurement.value,
        expected=None if call.centre is None else scale.back(call.centre),
        drop_ratio=ratio,
        minimum_detectable_drop_ratio=least,
        nights=call.nights,
        status=call.state,
        reason=_reason(call, ratio, least, scale, opened),
    )


_TIMES = ("", "once", "twice", "three times")


def _reason(call: SeriesCall, ratio: float | None, least: float | None, scale: Scale, opened: str) -> str:
    normal = "the pinned nights" if call.pinned else f"the last {call.nights} nights"
    if call.state is SeriesState.WARMING:
        since = f" since {opened}" if opened else ""
        return f"{Code.WARMING}: {call.nights}/{Policy().fewest} nights{since}"
    if call.state is SeriesState.UNDETECTABLE:
        seen = f"a drop of less than {_amount(least, scale)} would not be seen"
        return f"{Code.UNDETECTABLE}: {seen}, so noisy are {normal}"
    if call.state is SeriesState.SUSPECT:
        return f"{Code.SUSPECT}: {_amount(ratio, scale)} worse than {normal}, measured {_TIMES[call.measured]}"
    if call.unmended:
        return f"{Code.REGRESSED}: worse than {normal} for {call.unmended} nights, and no good night since"
    if call.declined:
        return f"{Code.REGRESSED}: {_amount(ratio, scale)} lost little by little over the last {call.nights} nights"
    if call.state is SeriesState.REGRESSED and call.since > 1:
        return f"{Code.REGRESSED}: worse than {normal} for {call.since} nights in the mean"
    if call.state is SeriesState.REGRESSED:
        separate = "three" if call.measured > 2 else "two"
        return f"{Code.REGRESSED}: {_amount(ratio, scale)} worse than {normal}, in {separate} separate measurements"
    return ""


def _amount(ratio: float | None, scale: Scale) -> str:
    if ratio is None:
        return "an unknown amount"
    if scale.kind is ScaleKind.EVENTS:
        return f"{ratio:.0f} events"
    return f"{100 * ratio:.1f} {'points' if scale.kind is ScaleKind.POINTS else '%'}"


def worst(found: Iterable[Sequence[Regression]]) -> list[Regression]:
    """One entry a series where several profiles gate on it: the most severe one, in the order they came."""
    same: dict[Key, list[Regression]] = defaultdict(list)
    for entry in chain.from_iterable(found):
        same[entry.metric, tuple(sorted(entry.labels.items()))].append(entry)
    return [max(entries, key=lambda entry: (entry.gating, SEVERITY.index(entry.status))) for entries in same.values()]


# --- what regressions make of a verdict: they only ever make it worse

_STATUS = {
    SeriesState.REGRESSED: Status.FAIL,
    SeriesState.SUSPECT: Status.UNDECIDED,
    SeriesState.MISSING: Status.UNDECIDED,
    SeriesState.UNDETECTABLE: Status.UNDECIDED,
}
_WORSE = (Status.PASS, Status.NO_DATA, Status.UNDECIDED, Status.FAIL)


def with_regressions(verdict: Verdict, found: Sequence[Regression]) -> Verdict:
    """The verdict with the regressions of its profile in its findings. ``found`` is of the same profile."""
    decisive = [entry for entry in found if entry.gating and entry.status in _STATUS]
    if not decisive:
        return verdict
    findings = tuple(
        _with_worst(finding, [entry for entry in decisive if entry.gate == index])
        for index, finding in enumerate(verdict.findings)
    )
    shares = [100.0 * min(1.0, 1.0 - (entry.drop_ratio or 0.0)) for entry in decisive]
    verdict = verdict.model_copy(update={"required": sum(finding.required for finding in findings)})
    return _lowered(verdict, findings, decision_of(findings), min(ALMOST, *shares))


def doubted(verdict: Verdict, reason: str) -> Verdict:
    """The verdict of a run that can decide nothing any more (it is stale): INCONCLUSIVE, every finding undecided."""
    findings = tuple(
        finding.model_copy(update={"status": Status.UNDECIDED, "reason": reason}) for finding in verdict.findings
    )
    return _lowered(verdict, findings, Decision.INCONCLUSIVE, ALMOST)


def _lowered(verdict: Verdict, findings: tuple[Finding, ...], decision: Decision, most: float) -> Verdict:
    """The verdict with these findings, and no score of it above ``most``."""
    scores = {"score": verdict.score, "weakest_measured_score": verdict.weakest_measured_score}
    lower = {name: None if score is None else max(0.0, min(score, most)) for name, score in scores.items()}
    return verdict.model_copy(update={"findings": findings, "decision": decision, **lower})


def _with_missing(finding: Finding, entry: Regression) -> Finding:
    """The finding of a gate of which a series is missing: what it measured it keeps, and it does not pass by that.

    A gate without data says already what is not there, and why; one that asks only nodes with such hardware asks this
    one, which had it.
    """
    asked = code_of(finding.reason) is not Code.NOT_APPLICABLE
    if finding.status is not Status.PASS and asked:
        return finding
    reason = f"{Code.MISSING}: {series_name(entry.metric, entry.labels)}{entry.reason.partition(':')[2]}"
    return finding.model_copy(update={"status": Status.UNDECIDED, "required": True, "reason": reason})


def _with_worst(finding: Finding, found: Sequence[Regression]) -> Finding:
    """The finding, made as bad as the worst of the regressions of its gate, with that one's reason."""
    if not found:
        return finding
    entry = max(found, key=lambda one: SEVERITY.index(one.status))
    status = _STATUS[entry.status]
    if entry.status is SeriesState.MISSING:
        return _with_missing(finding, entry)
    if _WORSE.index(status) <= _WORSE.index(finding.status):
        return finding
    return finding.model_copy(
        update={"status": status, "reason": entry.reason, "labels": entry.labels, "observed": entry.observed}
        | ({} if entry.observed == finding.observed else {"interval": None})
    )
