"""A run against a profile: one finding a gate, one decision, one score.

What could not be measured never passes: a required gate without data, with only stand-ins, with an invalid number or
with an interval on both sides of its limit makes the verdict INCONCLUSIVE, with a reason that begins with one of the
words in `REASONS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from bench.judge.attribution import RATE
from bench.judge.decoding import HEADROOM
from bench.judge.hardware import RDMA_PORTS, accelerators, has_rdma
from bench.judge.latency_budget import told_apart
from bench.judge.profile import Gate, Profile
from bench.judge.sessions import SpreadOf, alone, interval_of
from bench.model import Code, Decision, Finding, Limit, Measurement, Outcome, Run, Status, Verdict, code_of
from bench.units import human

#: The machine-readable first words of a finding's reason; a colon and a sentence follow.
REASONS = (
    *(Code.PROBE_SKIPPED, Code.PROBE_UNSUPPORTED, Code.PROBE_FAILED, Code.PROBE_TIMED_OUT),
    *(Code.NOT_MEASURED, Code.NOT_APPLICABLE, Code.STAND_IN, Code.INVALID, Code.STRADDLES_LIMIT),
)
#: The option of a request that holds what was expected of the node.
EXPECTATION = "expectation"
#: The option of a request that names a real server, which has the node's cards for itself.
ENDPOINT = "endpoint"
#: What a gate accepts that accepts a stand-in. A CPU's appetite, or its all-reduce, says nothing of the real thing.
_ACCEPTABLE = ("emulated", "loopback")
_WORST_FIRST = (Status.FAIL, Status.UNDECIDED, Status.PASS)
_REAL_THING = {
    "loopback": "start `bench peer` on another node and name it with --peer HOST",
    "emulated": "run it on a node with the accelerator",
    "cpu": "run it on a node with the accelerator",
}
#: Asked of every profile where the site said what the node should be: no workload suits a node that is another one.
AS_EXPECTED = Gate(
    metric="node_mismatches",
    max=0.0,
    source="What this site expects of the node (--expect, or [expect] in bench.toml)",
    remedy="Find the missing or wrong part (bench doctor, nvidia-smi -L, dmesg), or mend the expectation.",
)
#: Without it there is no demand that a supply is held against.
_DEMAND = Gate(metric=RATE, labels={"stage": "resident"}, min=0.0, source="What a supply is held against")
_WHY_NOT = {
    "rdma": "this node has no RDMA",
    "no_rdma": "this node has RDMA, which training uses in its place",
    "endpoint": "no server was named",
    "no_endpoint": "the cards are the server's (--endpoint), and it is judged in place of our own load",
}
_COUNT = "install the NVIDIA driver so that the cards can be counted, or name them: --accelerator emulated:NAME*N"
_FIX = "mend what made the measurement invalid, then measure again"
_REPEAT = "measure again on a quiet node with --effort thorough"
_NIGHTS = "this session alone would decide, but sessions differ: measure with --effort thorough, and on seven nights"
#: What to do about a figure that something else than the thing itself held back (its label ``limited_by``).
_HELD = {"cpu": "use iperf3 3.16 or newer on both ends, which has a thread a stream, and measure on an idle node"}


def judge(run: Run, profile: Profile, probes: Mapping[str, str] | None = None, spread_of: SpreadOf = alone) -> Verdict:
    """The profile's answer for a run.

    ``probes`` maps a metric to the probe that declares it, so that the finding of a gate without data can quote that
    probe's own reason and remedy. ``spread_of`` says how far a series' sessions lie apart (`bench.judge.sessions`);
    without it every figure is a fact of its session alone. An interrupted run is judged by what it measured.
    """
    gates = (*profile.gates, AS_EXPECTED) if EXPECTATION in run.request.options else profile.gates
    judged = [judge_gate(run, gate, probes or {}, spread_of) for gate in gates]
    findings = tuple(told_apart(run, finding) for finding, _ in judged)
    measured = [score for finding, score in judged if stands_on(finding)]
    return Verdict(
        profile=profile.name,
        digest=profile.digest,
        decision=decision_of(findings),
        score=profile_score((finding.required, score) for finding, score in judged),
        required=sum(finding.required for finding in findings),
        measured=len(measured),
        weakest_measured_score=min(measured, default=None),
        findings=findings,
    )


def stands_on(finding: Finding) -> bool:
    """Whether a verdict stands on a figure of this gate: a required one, with a figure that counts."""
    counts = finding.status is not Status.NO_DATA and code_of(finding.reason) is not Code.INVALID
    return finding.required and finding.observed is not None and counts


def judge_gate(run: Run, gate: Gate, probes: Mapping[str, str], spread_of: SpreadOf = alone) -> tuple[Finding, float]:
    """One gate against every measurement that has its metric and at least its labels; the worst decides.

    Returns the finding, with the interval that decided, and its score, 0..100.
    """
    if (asked := applies(run, gate)) is not True:
        return _not_asked(run, gate, asked, probes), 0.0
    number, whole = accelerators(run) if gate.per else None, of_node(run, gate)
    matching = run.find(gate.metric, **gate.labels)
    measured = [m for m in matching if counts_for(m, gate)]
    of = sum(m.invalid is None for m in measured)
    counted = [deciding(m, whole.limit, spread_of, of) for m in measured]
    finding = _found(run, whole, matching, counted, probes)
    straddles = code_of(finding.reason) is Code.STRADDLES_LIMIT
    if straddles and Status.UNDECIDED not in {status_of(m, whole.limit) for m in measured}:
        finding = finding.model_copy(update={"remedy": _NIGHTS})
    if gate.per:
        finding = _per_accelerator(finding, gate, number)
    return finding, gate_score(finding.status, [share(m.value, whole.limit) for m in counted])


def of_node(run: Run, gate: Gate) -> Gate:
    """The gate with the limit that it has for this node: a ``min`` per accelerator once for each that is known."""
    number = accelerators(run) if gate.per else None
    return gate.model_copy(update={"min": min(gate.min * number, _LARGEST)}) if gate.min and number else gate


def counts_for(measurement: Measurement, gate: Gate) -> bool:
    """Whether a measurement is of the real thing, or of a stand-in that the gate accepts."""
    return accepts(gate, measurement.stand_in)


def accepts(gate: Gate, stand_in: str | None) -> bool:
    """Whether the gate accepts that stand-in; always, where nothing stands in."""
    return stand_in is None or (gate.accept_stand_in and stand_in in _ACCEPTABLE)


def applies(run: Run, gate: Gate) -> bool | None:
    """Whether the gate asks this node at all; None where that is not known."""
    if gate.when is None:
        return True
    if gate.when in ("endpoint", "no_endpoint"):
        named = ENDPOINT in run.request.options
        beside = gate.when == "no_endpoint" and bool(run.find(gate.metric, **gate.labels))  # asked for by --probe
        return beside or named is (gate.when == "endpoint")
    rdma = has_rdma(run)
    return None if rdma is None else rdma is (gate.when == "rdma")


def worst_of(decisions: Iterable[Decision]) -> Decision:
    """NO-GO before INCONCLUSIVE before GO; INCONCLUSIVE for none."""
    found = set(decisions)
    if Decision.NO_GO in found:
        return Decision.NO_GO
    return Decision.GO if found == {Decision.GO} else Decision.INCONCLUSIVE


def decide(verdicts: Iterable[Verdict]) -> Decision:
    """One decision for several profiles: the worst of them."""
    return worst_of(verdict.decision for verdict in verdicts)


def exit_status(decision: Decision) -> int:
    """0 GO, 1 NO-GO, 3 INCONCLUSIVE (contract, section 4)."""
    return {Decision.GO: 0, Decision.NO_GO: 1, Decision.INCONCLUSIVE: 3}[decision]


def status_of(measurement: Measurement, limit: Limit) -> Status:
    """Pass or fail when the whole interval is on one side of the limit; else, and for an invalid one, undecided."""
    if measurement.invalid is not None:
        return Status.UNDECIDED
    kept = [keeps(bound, limit) for bound in measurement.interval]
    if all(kept):
        return Status.PASS
    return Status.UNDECIDED if any(kept) else Status.FAIL


def deciding(measurement: Measurement, limit: Limit, spread_of: SpreadOf, of: int = 1) -> Measurement:
    """The measurement, one of ``of``, with the interval that decides it: whole on one side of the limit, or on both.

    It passes at its own level and fails at that of the worst of so many.
    """
    if measurement.invalid is not None:
        return measurement
    spread = spread_of(measurement)
    decides = interval_of(measurement, spread)
    if not any(keeps(bound, limit) for bound in decides):
        decides = interval_of(measurement, spread, of)
    return measurement.model_copy(update={"interval": decides})


def decision_of(findings: Iterable[Finding]) -> Decision:
    """NO-GO when a required gate failed, GO when all of them passed."""
    required = {finding.status for finding in findings if finding.required}
    if Status.FAIL in required:
        return Decision.NO_GO
    return Decision.GO if required == {Status.PASS} else Decision.INCONCLUSIVE


def _not_asked(run: Run, gate: Gate, asked: bool | None, probes: Mapping[str, str]) -> Finding:
    """The gate does not ask this node, and decides nothing; or nobody knows whether it does."""
    if asked is None:
        why = _nothing(run, Gate(metric=RDMA_PORTS, min=1.0, source=gate.source), probes)
        return _finding(gate, Status.NO_DATA, None, why.reason, why.remedy)
    reason = f"{Code.NOT_APPLICABLE}: {_WHY_NOT[gate.when or '']}"
    return _finding(gate.model_copy(update={"required": False}), Status.NO_DATA, None, reason)


def _per_accelerator(finding: Finding, gate: Gate, number: int | None) -> Finding:
    """For how many of the node's accelerators it is enough; without their number what passes for one is undecided."""
    if finding.observed is None or finding.status not in (Status.PASS, Status.FAIL):
        return finding
    if number is None and finding.status is Status.PASS:
        reason = f"{Code.NOT_MEASURED}: it is enough for one accelerator, and how many this node has is not known"
        return finding.model_copy(update={"status": Status.UNDECIDED, "reason": reason, "remedy": _COUNT})
    enough = math.floor(10.0 * max(0.0, finding.observed) / (gate.min or 1.0)) / 10.0
    text = f"enough for {enough:g} of {number or 1} accelerator{'' if number in (1, None) else 's'}"
    return finding.model_copy(update={"reason": f"{text} {finding.reason or ''}".rstrip()})


def _found(
    run: Run, gate: Gate, matching: list[Measurement], counted: list[Measurement], probes: Mapping[str, str]
) -> Finding:
    if not matching:
        return _nothing(run, gate, probes)
    if not counted:
        worst = _worst(matching, gate.limit)
        what = worst.stand_in or ""
        reason = f"{Code.STAND_IN}: {what} in place of the real thing, which this gate does not accept"
        return _finding(gate, Status.NO_DATA, worst, reason, _REAL_THING.get(what))
    worst = _worst(counted, gate.limit)
    status = status_of(worst, gate.limit)
    which = _which(worst, gate) if len(counted) > 1 else ""
    if status is Status.FAIL:
        return _finding(gate, status, worst, which or None)
    if doubtful := next((m for m in counted if m.invalid is not None), None):
        return _finding(gate, Status.UNDECIDED, doubtful, f"{Code.INVALID}: {doubtful.invalid}", _FIX)
    if status is Status.UNDECIDED:
        low, high, needed = (human(value, gate.metric, 4) for value in (*worst.interval, gate.min or gate.max or 0.0))
        reason = f"{Code.STRADDLES_LIMIT}: {low} to {high} lies on both sides of {needed} {which}".rstrip()
        if worst.wide:
            reason += f", because {worst.wide}"
        return _finding(gate, status, worst, reason, _HELD.get(worst.labels.get("limited_by", ""), _REPEAT))
    if hole := _hole(run, counted):
        return _finding(gate, Status.NO_DATA, worst, f"{Code.NOT_MEASURED}: {hole}")
    return _finding(gate, status, worst, which or None)


def _worst(measurements: list[Measurement], limit: Limit) -> Measurement:
    """A fail before an undecided before a pass; of equals the one with the worst number."""
    sign = 1.0 if limit.min is not None else -1.0
    return min(measurements, key=lambda m: (_WORST_FIRST.index(status_of(m, limit)), sign * m.value))


def _hole(run: Run, counted: list[Measurement]) -> str | None:
    """A storage path or peer that was asked for and that none of the measurements is of.

    Counted, not compared by name, because a label may spell a path in full that the request gave in short. Metrics
    without that label are not concerned.
    """
    asked = (("path", "storage path", run.request.storage), ("peer", "peer", run.request.peers))
    for label, what, wanted in asked:
        found = {m.labels[label] for m in counted if label in m.labels}
        if found and len(found) < len(set(wanted)):
            return f"only {', '.join(sorted(found))} of {len(set(wanted))} {what}s that were asked for"
    return None


def _nothing(run: Run, gate: Gate, probes: Mapping[str, str]) -> Finding:
    """Nobody measured it: quote the probe that should have."""
    probe = probes.get(gate.metric)
    if probe is None:
        return _finding(gate, Status.NO_DATA, None, f"{Code.NOT_MEASURED}: this run has no {_name(gate)}")
    results = [result for result in run.results if result.probe == probe]
    if not results:
        reason = f"{Code.NOT_MEASURED}: the probe {probe} did not run"
        return _finding(gate, Status.NO_DATA, None, reason, f"add --probe {probe}")
    if failed := next((r for r in results if r.outcome is not Outcome.OK), None):
        return _finding(gate, Status.NO_DATA, None, f"probe_{failed.outcome}: {failed.reason}", failed.remedy)
    if gate.metric == HEADROOM and not run.find(RATE, stage="resident"):
        return _finding(gate, Status.NO_DATA, None, (why := _nothing(run, _DEMAND, probes)).reason, why.remedy)
    reason = f"{Code.NOT_MEASURED}: the probe {probe} ran, and measured no {_name(gate)}"
    return _finding(gate, Status.NO_DATA, None, reason, results[0].remedy or gate.remedy)


def _which(measurement: Measurement, gate: Gate) -> str:
    """Where the worst of several was measured: the labels that the gate leaves open."""
    more = [f"{key}={value}" for key, value in measurement.labels.items() if key not in gate.labels]
    return f"(the worst was at {', '.join(more)})" if more else ""


def _name(gate: Gate) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in gate.labels.items())
    return f"{gate.metric} with {labels}" if labels else gate.metric


def _finding(
    gate: Gate, status: Status, shown: Measurement | None, reason: str | None = None, remedy: str | None = None
) -> Finding:
    """What a gate shows: its own labels, the number that decided it, and why it is not plainly pass or fail."""
    return Finding(
        metric=gate.metric,
        labels=gate.labels,
        observed=shown.value if shown else None,
        interval=shown.interval if shown else None,
        limit=gate.limit,
        status=status,
        required=gate.required,
        source=gate.source,
        remedy=remedy or ("" if status is Status.NO_DATA else gate.remedy),
        reason=reason[:4000] if reason else None,
        stand_in=shown.stand_in if shown else None,
    )


FULL = 100.0
_LARGEST = math.nextafter(math.inf, 0.0)
#: The most that a gate has which did not pass: what is not shown is never full.
ALMOST = math.nextafter(FULL, 0.0)


def share(observed: float, limit: Limit) -> float:
    """The share of its requirement that a number reached: 0..100, and 100 if and only if it keeps the limit.

    ``100 * observed / min`` or ``100 * max / observed``. Where no ratio has a meaning (a limit of zero or less, a
    number of zero or less against a ``min``), what breaks the limit has 0. Never falls when the number gets better.
    """
    if keeps(observed, limit):
        return FULL
    if limit.min is not None:
        part = observed / limit.min if limit.min > 0.0 and observed > 0.0 else 0.0
    else:
        part = limit.max / observed if limit.max is not None and limit.max > 0.0 else 0.0
    return min(FULL * part, ALMOST)


def keeps(observed: float, limit: Limit) -> bool:
    """Limits are inclusive: the limit itself is kept."""
    if limit.min is not None and observed < limit.min:
        return False
    return limit.max is None or observed <= limit.max


def gate_score(status: Status, shares: Iterable[float]) -> float:
    """One gate's score from the shares of the measurements that count for it.

    A pass is full, nothing measured is nothing shown, and all else has its smallest share, under 100.
    """
    if status is Status.PASS:
        return FULL
    if status is Status.NO_DATA:
        return 0.0
    return min(min(shares, default=0.0), ALMOST)


def profile_score(gates: Iterable[tuple[bool, float]]) -> float:
    """The weakest required gate's score, from (required, score) of each; 0 without a required gate."""
    return min((score for required, score in gates if required), default=0.0)


def margin(finding: Finding) -> float | None:
    """By how much of the limit it is kept (positive) or broken (negative); None without a number or a limit but 0."""
    limit = finding.limit.min if finding.limit.min is not None else finding.limit.max
    if finding.observed is None or not limit:
        return None
    distance = finding.observed - limit if finding.limit.min is not None else limit - finding.observed
    ratio = distance / abs(limit)
    return ratio if math.isfinite(ratio) else None
