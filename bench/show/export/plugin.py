"""What the monitoring plugins say in one line: the worst decision, and the gate that made it so."""

from __future__ import annotations

from bench.judge.score import FULL, share
from bench.model import Decision, Finding, Run, Status, Verdict
from bench.show.text import clean
from bench.show.wording import bare_name, needed, observed, score

_WORST = (Decision.NO_GO, Decision.INCONCLUSIVE, Decision.GO)
_DECIDES = {
    Decision.NO_GO: (Status.FAIL,),
    Decision.INCONCLUSIVE: (Status.UNDECIDED, Status.NO_DATA, Status.FAIL),
    Decision.GO: (),
}


def headline(run: Run) -> tuple[Decision, str]:
    """The decision of the whole run and its line; a run that was never judged is INCONCLUSIVE."""
    if not run.verdicts:
        return Decision.INCONCLUSIVE, "INCONCLUSIVE not judged"
    decision = next(d for d in _WORST if any(v.decision is d for v in run.verdicts))
    guilty = [verdict for verdict in run.verdicts if verdict.decision is decision]
    if decision is Decision.GO:
        return decision, f"GO {', '.join(clean(v.profile, 60) for v in guilty)}"
    worst = min(guilty, key=lambda v: v.score)
    reason = why(worst)
    return decision, f"{decision.value} {clean(worst.profile, 60)}" + (f": {reason}" if reason else "")


def why(verdict: Verdict) -> str:
    """The required gate that counted most, in few words; empty where no gate says why."""
    for status in _DECIDES[verdict.decision]:
        found = [f for f in verdict.findings if f.required and f.status is status]
        if found:
            return _gate(min(found, key=_reached))
    return ""


def _reached(finding: Finding) -> float:
    """The share of its requirement, so that gates of both kinds compare; what has no number comes last."""
    return FULL if finding.observed is None else share(finding.observed, finding.limit)


def _gate(finding: Finding) -> str:
    if finding.status is Status.NO_DATA:
        return f"{bare_name(finding)} not measured"
    if finding.observed is None:
        return bare_name(finding)
    short = finding.model_copy(update={"interval": None})
    return f"{bare_name(finding)} {observed(short)}, needs {needed(finding.limit, finding.metric)}"


def scores(run: Run) -> str:
    """``distributed-training NO-GO 15, batch-inference GO 100``."""
    return ", ".join(f"{clean(v.profile, 60)} {v.decision.value} {score(v.score)}" for v in run.verdicts)
