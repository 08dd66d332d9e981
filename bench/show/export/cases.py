"""A judged run or a joined fleet as test cases: what JUnit and CTRF write.

Of a run one suite a profile, with one case for the verdict and one a gate. Of a fleet the verdicts, every named host,
every pair, who is slower than its siblings, the collective, shared storage, what moved on all nodes. The contract:
pass, failure for NO-GO, error for what is missing, undecided or suspected by a single measurement; never skipped,
because a skipped test is green everywhere. What does not decide passes as a case and is told beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from bench.judge.fleet.model import (
    Collective,
    Fleet,
    FleetVerdict,
    NodeOutcome,
    Outlier,
    PairOutcome,
    SharedStorage,
    Shift,
    State,
)
from bench.model import Finding, Run, Status, Verdict
from bench.show import wording
from bench.show.terminal import fleet_screen
from bench.show.text import clean

CaseState = Literal["pass", "failure", "error"]
#: Every other word is an error.
_STATES: dict[str, CaseState] = {"GO": "pass", "pass": "pass", "warn": "pass"}
_STATES |= dict.fromkeys(("NO-GO", "fail", "outlier", "regressed"), "failure")
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Case:
    """``raw`` is our own word (``NO-GO``, ``no_data``); ``message`` is one line; ``details`` are lines.

    What never ``decides`` passes.
    """

    name: str
    raw: str
    message: str
    details: Sequence[str] = ()
    decides: bool = True

    @property
    def state(self) -> CaseState:
        return _STATES.get(self.raw, "error") if self.decides else "pass"


@dataclass(frozen=True, slots=True)
class Suite:
    """Cases that belong together; ``notes`` are lines on what did not decide."""

    name: str
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()

    def count(self, state: CaseState) -> int:
        return sum(case.state == state for case in self.cases)


@dataclass(frozen=True, slots=True)
class Report:
    """All suites of a document and where they come from. But for the suites, every text may be foreign.

    ``seconds`` is how long the probes took, all together; JUnit writes the ``properties``, CTRF the ``environment``.
    """

    suites: Sequence[Suite]
    began: datetime | None
    ended: datetime | None
    version: str | None
    properties: Mapping[str, str]
    environment: Mapping[str, str]
    host: str = ""
    seconds: float = 0.0


def report_of(document: Run | Fleet) -> Report:
    return _of_run(document) if isinstance(document, Run) else _of_fleet(document)


def _suite(name: str, cases: Iterable[Case], notes: Iterable[str] = ()) -> Suite:
    """Two gates on one metric have one name in CI: the second is told apart by its number."""
    seen: dict[str, int] = {}
    apart = []
    for case in cases:
        number = seen[case.name] = seen.get(case.name, 0) + 1
        apart.append(case if number == 1 else replace(case, name=f"{case.name} #{number}"))
    return Suite(name, tuple(apart), tuple(notes))


def _labels(labels: Mapping[str, str]) -> list[str]:
    return [f"label: {key}={clean(value, 200)}" for key, value in sorted(labels.items())]


def _of_run(run: Run) -> Report:
    """A run that nobody judged is one suite with one error."""
    unjudged = Case("verdict", "INCONCLUSIVE", f"not judged; judge it with: bench gate {clean(run.id, 40)}")
    about = {
        "run": run.id,
        "started_at": wording.when(run.started_at),
        "effort": run.request.effort.value,
        "accelerator": run.request.accelerator,
        "fingerprint": run.node.fingerprint,
        "bench_version": run.bench_version or "unknown",
    }
    found = run.attribution
    return Report(
        suites=[_profile(verdict) for verdict in run.verdicts] or [Suite("bench", (unjudged,))],
        began=wording.moment(run.started_at),
        ended=wording.ended(run),
        version=run.bench_version,
        properties=about | ({"bottleneck": found.bottleneck, "explanation": found.explanation} if found else {}),
        environment={"hostname": run.node.hostname}
        | {name: about[name] for name in ("run", "fingerprint", "accelerator", "effort")},
        host=run.node.hostname,
        seconds=sum(result.duration_seconds for result in run.results),
    )


def _profile(verdict: Verdict) -> Suite:
    missed = [f for f in verdict.findings if not f.required and f.status is not Status.PASS and wording.asked(f)]
    notes = (f"optional, does not decide: {wording.gate_name(f)}: {_said(f)}" for f in missed)
    return _suite(clean(verdict.profile, 200) or "profile", (_whole(verdict), *map(_gate, verdict.findings)), notes)


def _whole(verdict: Verdict) -> Case:
    required = [f for f in verdict.findings if f.required]
    bad = [f for f in required if f.status is not Status.PASS]
    message = f"{verdict.decision.value}, score {wording.scored(verdict)}"
    if bad:
        message += f": {len(bad)} of {wording.plural(len(required), 'required gate')} did not pass"
    lines = [f"{wording.gate_name(f)}: {_said(f)}" for f in bad]
    return Case("verdict", verdict.decision.value, message, lines)


def _gate(f: Finding) -> Case:
    return Case(wording.gate_name(f), f.status.value, _said(f), tuple(_details(f)), decides=f.required)


def _said(finding: Finding) -> str:
    """``38 %, needs <= 10 %, 280 % over``, and why."""
    far = wording.margin(finding)
    text = wording.against_limit(finding) + (f", {far}" if far else "")
    return f"{text}; {clean(finding.reason, _LONGEST)}" if finding.reason else text


def _details(finding: Finding) -> Iterator[str]:
    yield f"metric: {finding.metric}"
    yield from _labels(finding.labels)
    yield f"observed: {'not measured' if finding.observed is None else repr(finding.observed)}"
    if finding.interval:
        yield f"95 % interval: {finding.interval[0]!r} to {finding.interval[1]!r}"
    for word, limit in (("min", finding.limit.min), ("max", finding.limit.max)):
        if limit is not None:
            yield f"{word}: {limit!r}"
    for name, text in (("stand-in", finding.stand_in), ("source", finding.source), ("remedy", finding.remedy)):
        if text:
            yield f"{name}: {clean(text)}"


def _of_fleet(fleet: Fleet) -> Report:
    """Suites for which there is anything to say; the first two always."""
    shifts = [(shift, consequence(shift)) for shift in fleet.shifts]
    unjudged = Case("verdict", "INCONCLUSIVE", f"not judged: {wording.plural(len(fleet.nodes), 'node')}")
    suites = [
        _suite("fleet", [_verdict(v) for v in fleet.verdicts] or [unjudged]),
        _suite("nodes", map(_node, fleet.nodes)),
        _suite("pairs", map(_pair, fleet.pairs)),
        _suite(
            "siblings",
            map(_outlier, fleet.outliers),
            [f"warns, does not decide: {fleet_screen.outlier_line(o)}" for o in fleet.outliers if o.level == "warn"],
        ),
        _suite("collective", [_collective(fleet.collective)] if fleet.collective else []),
        _suite("shared storage", map(_shared, fleet.shared)),
        _suite(
            "whole fleet",
            [_shift(shift, word) for shift, word in shifts if word != "moved"],
            [f"moved, does not decide: {fleet_screen.shift_line(s)}" for s, word in shifts if word == "moved"],
        ),
    ]
    about = {
        "fleet": fleet.id,
        "decision": fleet.decision.value,
        "measured_at": fleet.measured_at,
        "joined_at": fleet.joined_at,
        "bench_version": fleet.bench_version,
    }
    known = {name: value for name, value in about.items() if value}
    return Report(
        suites=[suite for suite in suites if suite.cases or suite.notes],
        began=wording.moment(fleet.measured_at or fleet.joined_at),
        ended=wording.moment(fleet.joined_at),
        version=fleet.bench_version,
        properties=known,
        environment=known,
    )


def consequence(found: Outlier | Shift) -> str:
    """What follows: ``outlier`` or ``regressed`` (NO-GO), ``suspect`` (INCONCLUSIVE), ``warn`` or ``moved`` (nothing).

    A shift that only moved may have moved for the better.
    """
    sure, idle = ("outlier", "warn") if isinstance(found, Outlier) else ("regressed", "moved")
    return idle if found.level != "act" else sure if found.confirmed else "suspect"


def _verdict(verdict: FleetVerdict) -> Case:
    message = f"{verdict.decision.value}, score {wording.score(verdict.score)}: {fleet_screen.counts(verdict)}"
    reasons = [clean(reason) for reason in verdict.reasons]
    return Case(clean(verdict.profile, 200) or "profile", verdict.decision.value, message, reasons)


def _node(node: NodeOutcome) -> Case:
    said = [f"{clean(profile, 60)} {decision.value}" for profile, decision in node.decisions.items()]
    message = ", ".join(said) if said else clean(node.reason or "no result", _LONGEST)
    about = {"hostname": node.hostname, "class": node.node_class, "run": node.run, "reason": node.reason}
    details = [f"{word}: {clean(text)}" for word, text in about.items() if text]
    details += [f"did not pass: {clean(text)}" for text in node.failed]
    return Case(_host(node.host), node.state.value, message, details)


def _pair(pair: PairOutcome) -> Case:
    rates = (("send", pair.send_bytes_per_second), ("receive", pair.receive_bytes_per_second))
    figures = [f"{word} {wording.pair_rate(rate)}" for word, rate in rates if rate is not None]
    message = ", ".join(figures) if pair.state is State.PASS else clean(pair.reason or "no figure", _LONGEST)
    details = [f"{word}: {rate!r} bytes per second" for word, rate in rates if rate is not None]
    return Case(f"{_host(pair.client)} - {_host(pair.server)}", pair.state.value, message, details)


def _outlier(o: Outlier) -> Case:
    figures = (f"observed: {o.observed!r}", f"expected: {o.expected!r}", f"modified z: {o.modified_z:.1f}")
    details = (f"metric: {o.metric}", *_labels(o.labels), *figures)
    return Case(f"{_host(o.host)}: {clean(o.part, 100)}", consequence(o), fleet_screen.outlier_line(o), details)


def _collective(found: Collective) -> Case:
    lines = [f"{_host(host)}: {state.value}{f': {clean(why)}' if why else ''}" for host, state, why in found.rows]
    return Case("all-reduce", found.state.value, fleet_screen.collective_line(found), lines)


def _shared(one: SharedStorage) -> Case:
    """An error when anyone has no figure."""
    lines = [f"{_host(host)}: {rate!r} bytes per second with all at once" for host, rate in one.together.items()]
    lines += [f"{_host(host)}: no figure" for host in one.missing]
    status = Status.NO_DATA if one.missing or not one.together else Status.PASS
    return Case(clean(one.path, 200) or "?", status.value, fleet_screen.shared_line(one), lines)


def _shift(shift: Shift, word: str) -> Case:
    name = f"{shift.metric} {' '.join(f'{k}={clean(v, 60)}' for k, v in sorted(shift.labels.items()))}".strip()
    details = (f"class: {clean(shift.node_class)}", f"nodes: {shift.nodes}", f"shift: {shift.shift_ratio!r}")
    return Case(name, word, fleet_screen.shift_line(shift), details)


def _host(name: str) -> str:
    return clean(name, 255) or "?"
