"""A judged run as test cases, for the formats that CI systems read.

One case a profile ("verdict") and one a gate. The contract: pass, failure for NO-GO, error for what could not be
decided; never skipped, because a skipped test is green everywhere. A gate that is not required never decides, so it
passes as a case and what it missed is told beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from bench.model import Decision, Finding, Run, Status, Verdict
from bench.show.text import clean
from bench.show.wording import gate_name, margin, needed, observed, plural, score

CaseState = Literal["pass", "failure", "error"]
BY_DECISION: dict[Decision, CaseState] = {
    Decision.GO: "pass",
    Decision.NO_GO: "failure",
    Decision.INCONCLUSIVE: "error",
}
_BY_STATUS: dict[Status, CaseState] = {
    Status.PASS: "pass",
    Status.FAIL: "failure",
    Status.NO_DATA: "error",
    Status.UNDECIDED: "error",
}


@dataclass(frozen=True, slots=True)
class Case:
    """``raw`` is our own word (``NO-GO``, ``no_data``); ``message`` is one line; ``details`` are lines."""

    name: str
    state: CaseState
    raw: str
    message: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suite:
    """One profile."""

    name: str
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()

    def count(self, state: CaseState) -> int:
        return sum(case.state == state for case in self.cases)


def suites(run: Run) -> list[Suite]:
    """One suite a verdict; a run that nobody judged is one suite with one error."""
    found = [_suite(verdict) for verdict in run.verdicts]
    unjudged = Case("verdict", "error", "INCONCLUSIVE", f"not judged; judge it with: bench gate {clean(run.id, 40)}")
    return found or [Suite("bench", (unjudged,))]


def seconds(run: Run) -> float:
    """How long the probes took."""
    return sum(result.duration_seconds for result in run.results)


def _suite(verdict: Verdict) -> Suite:
    cases = (_whole(verdict), *numbered([_gate(finding) for finding in verdict.findings]))
    missed = [f for f in verdict.findings if not f.required and f.status is not Status.PASS]
    notes = tuple(f"optional, does not decide: {gate_name(f)}: {_said(f)}" for f in missed)
    return Suite(clean(verdict.profile, 200) or "profile", cases, notes)


def _whole(verdict: Verdict) -> Case:
    required = [f for f in verdict.findings if f.required]
    bad = [f for f in required if f.status is not Status.PASS]
    message = f"{verdict.decision.value}, score {score(verdict.score)}"
    if bad:
        message += f": {len(bad)} of {plural(len(required), 'required gate')} did not pass"
    lines = tuple(f"{gate_name(f)}: {_said(f)}" for f in bad)
    return Case("verdict", BY_DECISION[verdict.decision], verdict.decision.value, message, lines)


def _gate(finding: Finding) -> Case:
    state = _BY_STATUS[finding.status] if finding.required else "pass"
    return Case(gate_name(finding), state, finding.status.value, _said(finding), tuple(_details(finding)))


def _said(finding: Finding) -> str:
    """``measured 38 %, needs <= 10 %, 2.8 x over``."""
    far = margin(finding)
    text = f"{observed(finding)}, needs {needed(finding.limit, finding.metric)}" + (f", {far}" if far else "")
    return f"{text}; {clean(finding.reason, 300)}" if finding.reason else text


def _details(finding: Finding) -> Iterator[str]:
    yield f"metric: {finding.metric}"
    for key, value in sorted(finding.labels.items()):
        yield f"label: {key}={clean(value, 200)}"
    yield f"observed: {'not measured' if finding.observed is None else repr(finding.observed)}"
    if finding.interval:
        yield f"95 % interval: {finding.interval[0]!r} to {finding.interval[1]!r}"
    for word, limit in (("min", finding.limit.min), ("max", finding.limit.max)):
        if limit is not None:
            yield f"{word}: {limit!r}"
    for name, text in (("stand-in", finding.stand_in), ("source", finding.source), ("remedy", finding.remedy)):
        if text:
            yield f"{name}: {clean(text)}"


def numbered(cases: Sequence[Case]) -> Iterator[Case]:
    """Two gates on one metric have one name in CI: the second is told apart by its limit's number."""
    seen: dict[str, int] = {}
    for case in cases:
        seen[case.name] = seen.get(case.name, 0) + 1
        again = seen[case.name]
        yield case if again == 1 else Case(f"{case.name} #{again}", case.state, case.raw, case.message, case.details)


def moment(text: str | None) -> datetime | None:
    """An RFC 3339 time in UTC, or None for what is no time."""
    try:
        found = datetime.fromisoformat(text or "")
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def ended(run: Run) -> datetime | None:
    """When the run's figures were complete: its end, or its start where it has none."""
    return moment(run.finished_at) or moment(run.started_at)


def milliseconds(when: datetime | None) -> int:
    """Since the epoch; 0 for unknown."""
    return 0 if when is None else round(when.timestamp() * 1000)
