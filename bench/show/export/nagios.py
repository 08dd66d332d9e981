"""Nagios, Icinga, Naemon and Sensu plugin output: one line, performance data, then the gates that did not pass.

Monitoring Plugins Development Guidelines: ``SERVICE STATUS: text | 'label'=value[UOM];[warn];[crit]``; status 0 OK, 2
CRITICAL, 3 UNKNOWN. By the contract GO is 0, NO-GO 2, INCONCLUSIVE and no verdict 3. Ranges: ``0.1`` alarms above,
``2147483648:`` below. UOM has no rate, so figures a second stand without one.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.judge.gate import FULL, share
from bench.model import Decision, Finding, Run, Status, Verdict
from bench.show.export import Export
from bench.show.text import clean
from bench.show.wording import STATUS, bare_name, gate_name, needed, observed, reason_text, score
from bench.units import unit_of

STATE = {Decision.GO: "OK", Decision.NO_GO: "CRITICAL", Decision.INCONCLUSIVE: "UNKNOWN"}
_UOM = {"seconds": "s", "bytes": "B"}


def render(export: Export) -> str:
    if export.stale:
        return unknown(export.stale)
    decision, text = headline(export.run)
    first = f"BENCH {STATE[decision]}: {text}"
    figures = " ".join(_figures(export.run))
    lines = [plain(first) + (f" | {figures}" if figures else ""), *map(plain, _more(export.run))]
    return "\n".join(lines) + "\n"


def unknown(why: str, service: str = "BENCH") -> str:
    return f"{service} UNKNOWN: {plain(why)}\n"


def plain(text: str) -> str:
    """``|`` begins the performance data, so it may not stand in text."""
    return clean(text).replace("|", "/")


def _more(run: Run) -> Iterator[str]:
    if run.verdicts:
        yield scores(run)
    for verdict in run.verdicts:
        for finding in verdict.findings:
            if finding.required and finding.status is not Status.PASS:
                yield _line(clean(verdict.profile, 60), finding)


def _line(profile: str, finding: Finding) -> str:
    text = f"{profile}: {STATUS[finding.status]}: {gate_name(finding)}: {observed(finding)}"
    text += f", needs {needed(finding.limit, finding.metric)}"
    return f"{text}; {reason_text(finding.reason)}" if finding.reason else text


def _figures(run: Run) -> Iterator[str]:
    """One a gate that has a number; a metric that several gates name is told once for each different limit."""
    seen = set()
    for verdict in run.verdicts:
        for finding in verdict.findings:
            if finding.observed is None:
                continue
            figure = (
                f"'{_label(finding)}'={finding.observed!r}{_UOM.get(unit_of(finding.metric), '')};;{_range(finding)}"
            )
            if figure not in seen:
                seen.add(figure)
                yield figure


def _label(finding: Finding) -> str:
    values = [value for key, value in sorted(finding.labels.items()) if key != "stand_in"]
    text = clean(".".join([finding.metric, *values]), 200)
    return text.replace("'", "").replace("=", "").replace("|", "/")


def _range(finding: Finding) -> str:
    if finding.limit.min is not None:
        return f"{finding.limit.min!r}:"
    return "" if finding.limit.max is None else f"{finding.limit.max!r}"


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
