"""What regressions make of a verdict: NO-GO when one is confirmed, INCONCLUSIVE when one is suspected or could not be
seen. They only ever make it worse.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.judge.baseline.detector import State
from bench.judge.baseline.series import Regression
from bench.judge.gate import ALMOST
from bench.model import Decision, Finding, Status, Verdict

_STATUS = {
    State.REGRESSED: Status.FAIL,
    State.SUSPECT: Status.UNDECIDED,
    State.UNDETECTABLE: Status.UNDECIDED,
}
_WORSE = (Status.PASS, Status.NO_DATA, Status.UNDECIDED, Status.FAIL)
_ORDER = (State.REGRESSED, State.SUSPECT, State.UNDETECTABLE)


def with_regressions(verdict: Verdict, found: Sequence[Regression]) -> Verdict:
    """The verdict with the regressions of its profile in its findings. ``found`` is of the same profile."""
    decisive = [entry for entry in found if entry.gating and entry.status in _STATUS]
    if not decisive:
        return verdict
    findings = tuple(
        _finding(finding, [entry for entry in decisive if entry.gate == index])
        for index, finding in enumerate(verdict.findings)
    )
    shares = [100.0 * min(1.0, 1.0 - (entry.drop_ratio or 0.0)) for entry in decisive]
    score = max(0.0, min(verdict.score, ALMOST, *shares))
    return verdict.model_copy(update={"findings": findings, "decision": _decision(findings), "score": score})


def doubted(verdict: Verdict, reason: str) -> Verdict:
    """The verdict of a run that can decide nothing any more (it is stale): INCONCLUSIVE, every finding undecided."""
    findings = tuple(
        finding.model_copy(update={"status": Status.UNDECIDED, "reason": reason}) for finding in verdict.findings
    )
    score = min(verdict.score, ALMOST)
    return verdict.model_copy(update={"findings": findings, "decision": Decision.INCONCLUSIVE, "score": score})


def _finding(finding: Finding, found: Sequence[Regression]) -> Finding:
    """The finding, made as bad as the worst of the regressions of its gate, with that one's reason."""
    if not found:
        return finding
    entry = min(found, key=lambda one: _ORDER.index(one.status))
    status = _STATUS[entry.status]
    if _WORSE.index(status) <= _WORSE.index(finding.status):
        return finding
    return finding.model_copy(
        update={"status": status, "reason": entry.reason, "labels": entry.labels, "observed": entry.observed}
        | ({} if entry.observed == finding.observed else {"interval": None})
    )


def _decision(findings: Sequence[Finding]) -> Decision:
    statuses = {finding.status for finding in findings if finding.required}
    if Status.FAIL in statuses:
        return Decision.NO_GO
    return Decision.GO if statuses == {Status.PASS} else Decision.INCONCLUSIVE
