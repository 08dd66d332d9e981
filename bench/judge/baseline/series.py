"""Runs -> what this node normally measures; a run against it -> one `Regression` a series, and what they make of a
verdict.

A *series* is one metric with its labels on one node, in one *epoch* (`bench.judge.baseline.comparison`). A *night* is
one stored run; a run that was made to confirm another belongs to that one's night. Nights that were judged NO-GO for
the profile, were interrupted, or whose measurement is invalid (a contended host, say) are never part of what is normal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from bench.judge.baseline.detector import SEVERITY, Night, SeriesCall, SeriesState, Track
from bench.judge.baseline.prediction import Policy, prior_of
from bench.judge.baseline.scale import Scale, ScaleKind, scale_of
from bench.judge.gate import ALMOST, applies, counts_for, decision_of
from bench.judge.profile import Gate, Profile
from bench.model import Code, Decision, Finding, Frozen, Measurement, Metric, Run, Status, Verdict

Labels = tuple[tuple[str, str], ...]
#: A series of the node: the metric's name and its labels, sorted.
Key = tuple[str, Labels]

#: A later run within so many seconds is a second measurement of the same night.
SAME_NIGHT_SECONDS = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One stored run, as far as a baseline needs to know it. ``at`` is its start in seconds since the epoch (UTC).

    ``sound``: measured to its end and no replay. ``confirms``: the id of the run that it was made to confirm.
    ``decisions``: (profile, digest, decision) of each stored verdict.
    """

    run: str
    at: float
    sound: bool = True
    confirms: str | None = None
    decisions: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """What the store knows that matters for one run: the node's runs of its epoch, oldest first, and their values.

    ``runs`` holds the run itself and what came within `SAME_NIGHT_SECONDS` of it too. ``values[key]`` maps a run's
    id to the series' value; an invalid measurement is not in it. ``siblings[key]`` has the values of each other node.
    ``pinned[key]``: the acceptance nights. ``opened``: what changed when the epoch began, in words.
    """

    runs: tuple[StoredRun, ...] = ()
    values: Mapping[Key, Mapping[str, float]] = field(default_factory=dict)
    siblings: Mapping[Key, Sequence[Sequence[float]]] = field(default_factory=dict)
    pinned: Mapping[Key, Sequence[float]] = field(default_factory=dict)
    opened: str = ""


class Regression(Frozen):
    """One series of a run against what is normal: an entry of ``regressions`` in ``bench gate --json``.

    ``expected`` is the centre of the nights in the metric's own unit. ``drop_ratio`` is how much worse the run is, as a
    share of it (negative: better); for shares whose healthy value is near 0 (starvation, loss) the difference itself,
    and for counts how many more there are. ``nights`` are those that it was compared with. ``gating`` is False beyond
    the eight series that a profile is gated by: shown, never decides.
    """

    metric: str
    labels: dict[str, str]
    observed: float
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


def key_of(measurement: Measurement | Regression) -> Key:
    """The series that a measurement belongs to."""
    return measurement.metric, tuple(sorted(measurement.labels.items()))


def gating(run: Run, profile: Profile, metrics: Mapping[str, Metric]) -> list[tuple[int, Measurement]]:
    """The run's measurements that a profile gates on, with the index of their gate; each gate's first before any's
    second, so that the eight that decide are spread over the gates. Only required gates, only what counts for them.
    """
    queues = [
        [(index, m) for m in sorted(run.find(gate.metric, **gate.labels), key=key_of) if _counts(m, gate, metrics)]
        for index, gate in enumerate(profile.gates)
        if gate.required and applies(run, gate)
    ]
    chosen: dict[Key, tuple[int, Measurement]] = {}
    for index, m in filter(None, chain.from_iterable(zip_longest(*queues))):
        chosen.setdefault(key_of(m), (index, m))
    return list(chosen.values())


def _counts(measurement: Measurement, gate: Gate, metrics: Mapping[str, Metric]) -> bool:
    metric = metrics.get(measurement.metric)
    if metric is None or metric.better == "none" or measurement.invalid is not None:
        return False
    return counts_for(measurement, gate)


def regressions(
    run: Run, profile: Profile, history: History, metrics: Mapping[str, Metric], policy: Policy | None = None
) -> tuple[Regression, ...]:
    """Every series that the profile gates on, against its nights; not those whose metric no probe here declares."""
    policy = policy or Policy()
    return tuple(
        judge_series(run, measurement, profile, history, metrics[measurement.metric], policy).model_copy(
            update={"gate": gate, "gating": place < policy.most_series}
        )
        for place, (gate, measurement) in enumerate(gating(run, profile, metrics))
    )


def informative(run: Run, profiles: Sequence[Profile], metrics: Mapping[str, Metric]) -> list[Measurement]:
    """The run's valid measurements of a better and a worse that gate none of the profiles."""
    decisive = {key_of(m) for profile in profiles for _, m in gating(run, profile, metrics)}
    directed = [m for m in run.measurements() if m.metric in metrics and metrics[m.metric].better != "none"]
    return [m for m in directed if m.invalid is None and key_of(m) not in decisive]


def judge_series(
    run: Run, measurement: Measurement, profile: Profile, history: History, metric: Metric, policy: Policy
) -> Regression:
    """One measurement of the run against the nights of its series."""
    key = key_of(measurement)
    known = history.values.get(key, {})
    values = {**known, run.id: measurement.value}
    scale = scale_of(metric, values.values())
    siblings = [[scale.of(v) for v in nights if _fits(v, scale)] for nights in history.siblings.get(key, ())]
    track = Track(policy, scale, prior_of(siblings, scale.floor(policy.scale_floor), policy.fewest))
    first, tonight = _tonight(run, history, values, scale)
    for _, night in _nights(history.runs, first, known, profile, scale):
        track.enter(night)
    call = track.judge(tonight, [scale.of(value) for value in history.pinned.get(key, ())])
    return _regression(measurement, call, scale, history)


def normal_runs(key: Key, history: History, profile: Profile, metric: Metric, policy: Policy) -> list[str]:
    """The runs of the nights that were normal for this series, oldest first: not suspect, regressed or judged bad."""
    values = history.values.get(key, {})
    scale = scale_of(metric, values.values())
    track = Track(policy, scale)
    nights = _nights(history.runs, None, values, profile, scale)
    judged = [(run, track.enter(night).state, night.usable) for run, night in nights]
    return [run for run, state, fit in judged if fit and state not in (SeriesState.SUSPECT, SeriesState.REGRESSED)]


def _nights(
    runs: Sequence[StoredRun], before: str | None, values: Mapping[str, float], profile: Profile, scale: Scale
) -> Iterable[tuple[str, Night]]:
    """The sound nights that measured the series, each with its run's id and its second measurement."""
    again = {s.confirms: scale.of(values[s.run]) for s in runs if s.sound and s.confirms and s.run in values}
    for stored in runs:
        if stored.run == before:
            return
        value = values.get(stored.run)
        if stored.sound and stored.confirms is None and value is not None:
            usable = _fits(value, scale) and not judged_bad(stored, profile)
            yield stored.run, Night(scale.of(value), again.get(stored.run), usable)


def judged_bad(stored: StoredRun, profile: Profile) -> bool:
    """Was the run NO-GO for this profile? Where it was never judged by it: for any.

    A run without verdicts counts as good, and so does an INCONCLUSIVE one: what it did measure was measured.
    """
    own = [d for name, digest, d in stored.decisions if profile.digest == digest or profile.name == name]
    return "NO-GO" in (own or [decision for _, _, decision in stored.decisions])


def _fits(value: float, scale: Scale) -> bool:
    """A rate or a time of nothing at all is a fault, not a night to learn from."""
    return scale.kind is not ScaleKind.RATIO or value > 0.0


def _tonight(run: Run, history: History, values: Mapping[str, float], scale: Scale) -> tuple[str, Night]:
    """The id of the run's own night: that of the run which it confirms, where that one measured the series too."""
    own = next((stored for stored in history.runs if stored.run == run.id), None)
    confirmed = own.confirms if own else run.confirms
    if confirmed is not None and confirmed != run.id and confirmed in values:
        return confirmed, Night(scale.of(values[confirmed]), scale.of(values[run.id]))
    second = _second(run.id, history, values)
    return run.id, Night(scale.of(values[run.id]), None if second is None else scale.of(second))


def _second(run: str, history: History, values: Mapping[str, float]) -> float | None:
    """The separate measurement of the same night: of the run made to confirm it, else of the next run within hours."""
    runs = [s for s in history.runs if s.sound or s.run == run]
    confirming = [s.run for s in runs if s.confirms == run]
    own = next((s for s in runs if s.run == run), None)
    later = runs[runs.index(own) + 1 :] if own else []
    near = [s.run for s in later if own and s.at - own.at <= SAME_NIGHT_SECONDS and s.confirms is None]
    return next((values[found] for found in (*confirming, *near) if found in values), None)


def _regression(measurement: Measurement, call: SeriesCall, scale: Scale, history: History) -> Regression:
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
        reason=_reason(call, ratio, least, scale, history),
    )


def _reason(call: SeriesCall, ratio: float | None, least: float | None, scale: Scale, history: History) -> str:
    normal = "the pinned nights" if call.pinned else f"the last {call.nights} nights"
    if call.state is SeriesState.WARMING:
        since = f" since {history.opened}" if history.opened else ""
        return f"{Code.WARMING}: {call.nights}/{Policy().fewest} nights{since}"
    if call.state is SeriesState.UNDETECTABLE:
        seen = f"a drop of less than {_amount(least, scale)} would not be seen"
        return f"{Code.UNDETECTABLE}: {seen}, so noisy are {normal}"
    if call.state is SeriesState.SUSPECT:
        return f"{Code.SUSPECT}: {_amount(ratio, scale)} worse than {normal}, measured once"
    if call.state is SeriesState.REGRESSED and call.since > 1:
        return f"{Code.REGRESSED}: worse than {normal} for {call.since} nights in the mean"
    if call.state is SeriesState.REGRESSED:
        return f"{Code.REGRESSED}: {_amount(ratio, scale)} worse than {normal}, in two separate measurements"
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
        same[key_of(entry)].append(entry)
    return [max(entries, key=lambda entry: (entry.gating, SEVERITY.index(entry.status))) for entries in same.values()]


# --- what regressions make of a verdict: they only ever make it worse

_STATUS = {
    SeriesState.REGRESSED: Status.FAIL,
    SeriesState.SUSPECT: Status.UNDECIDED,
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


def _with_worst(finding: Finding, found: Sequence[Regression]) -> Finding:
    """The finding, made as bad as the worst of the regressions of its gate, with that one's reason."""
    if not found:
        return finding
    entry = max(found, key=lambda one: SEVERITY.index(one.status))
    status = _STATUS[entry.status]
    if _WORSE.index(status) <= _WORSE.index(finding.status):
        return finding
    return finding.model_copy(
        update={"status": status, "reason": entry.reason, "labels": entry.labels, "observed": entry.observed}
        | ({} if entry.observed == finding.observed else {"interval": None})
    )
