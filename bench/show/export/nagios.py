"""Nagios, Icinga, Naemon and Sensu plugin output: one line, performance data, then what did not pass, or every host.

Monitoring Plugins Development Guidelines: ``SERVICE STATUS: text | 'label'=value[UOM];[warn];[crit]``; status 0 OK, 2
CRITICAL, 3 UNKNOWN. By the contract GO is 0, NO-GO 2, INCONCLUSIVE and no verdict 3. Ranges: ``0.1`` alarms above,
``2147483648:`` below. UOM has no rate, so figures a second stand without one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from bench.judge.fleet.model import Fleet, FleetVerdict, State
from bench.judge.gate import FULL, decide, share
from bench.model import Decision, Finding, Run, Status, Verdict, unit_of
from bench.show.export import Export
from bench.show.text import clean
from bench.show.wording import STATUS, against_limit, bare_name, bound_of, gate_name, plural, reason_text, score

_STATE = {Decision.GO: "OK", Decision.NO_GO: "CRITICAL", Decision.INCONCLUSIVE: "UNKNOWN"}
_UOM = {"seconds": "s", "bytes": "B"}
#: The statuses that a decision rests on, the gravest first.
_DECIDES = {
    Decision.NO_GO: (Status.FAIL,),
    Decision.INCONCLUSIVE: (Status.UNDECIDED, Status.NO_DATA, Status.FAIL),
    Decision.GO: (),
}


def render(export: Export) -> str:
    document = export.document
    if isinstance(document, Run):
        service, (decision, text) = "BENCH", headline(document)
        figures, more = _run_figures(document), _run_lines(document)
    else:
        service, decision, text = "FLEET", document.decision, _fleet_headline(document)
        figures, more = _fleet_figures(document), _fleet_lines(document)
    if export.stale:
        return unknown(export.stale, service)
    first = _plain(f"{service} {_STATE[decision]}: {text}")
    data = " ".join(figures)
    return "\n".join([f"{first} | {data}" if data else first, *map(_plain, more)]) + "\n"


def unknown(why: str, service: str = "BENCH") -> str:
    return f"{service} UNKNOWN: {_plain(why)}\n"


def _plain(text: str) -> str:
    """``|`` begins the performance data, so it may not stand in text."""
    return clean(text).replace("|", "/")


def _scores(verdicts: Iterable[Verdict | FleetVerdict]) -> str:
    """``distributed-training NO-GO 15, batch-inference GO 100``."""
    return ", ".join(f"{clean(v.profile, 60)} {v.decision.value} {score(v.score)}" for v in verdicts)


# --- a run


def headline(run: Run) -> tuple[Decision, str]:
    """The decision of the whole run and its line; a run that was never judged is INCONCLUSIVE."""
    if not run.verdicts:
        return Decision.INCONCLUSIVE, "INCONCLUSIVE not judged"
    decision = decide(run.verdicts)
    guilty = [verdict for verdict in run.verdicts if verdict.decision is decision]
    if decision is Decision.GO:
        return decision, f"GO {', '.join(clean(v.profile, 60) for v in guilty)}"
    worst = min(guilty, key=lambda v: v.score)
    why = _why(worst)
    return decision, f"{decision.value} {clean(worst.profile, 60)}" + (f": {why}" if why else "")


def _why(verdict: Verdict) -> str:
    """The required gate that counted most, in few words; empty where no gate says why."""
    order = _DECIDES[verdict.decision]
    found = [f for f in verdict.findings if f.required and f.status in order]
    if not found:
        return ""
    worst = min(found, key=lambda f: (order.index(f.status), _reached(f)))
    if worst.status is Status.NO_DATA:
        return f"{bare_name(worst)} not measured"
    if worst.observed is None:
        return bare_name(worst)
    return f"{bare_name(worst)} {against_limit(worst.model_copy(update={'interval': None}))}"


def _reached(finding: Finding) -> float:
    """The share of its requirement, so that gates of both kinds compare; what has no number comes last."""
    return FULL if finding.observed is None else share(finding.observed, finding.limit)


def _run_figures(run: Run) -> Iterator[str]:
    """One a gate that has a number; a metric that several gates name is told once for each different limit."""
    findings = (f for verdict in run.verdicts for f in verdict.findings)
    measured = (f for f in findings if f.observed is not None)
    figures = (f"'{_label(f)}'={f.observed!r}{_UOM.get(unit_of(f.metric), '')};;{_range(f)}" for f in measured)
    yield from dict.fromkeys(figures)


def _label(finding: Finding) -> str:
    values = [value for key, value in sorted(finding.labels.items()) if key != "stand_in"]
    text = clean(".".join([finding.metric, *values]), 200)
    return text.replace("'", "").replace("=", "").replace("|", "/")


def _range(finding: Finding) -> str:
    bound, limit = bound_of(finding.limit)
    return "" if limit is None else f"{limit!r}{':' if bound == 'min' else ''}"


def _run_lines(run: Run) -> Iterator[str]:
    if run.verdicts:
        yield _scores(run.verdicts)
    for verdict in run.verdicts:
        for f in verdict.findings:
            if f.required and f.status is not Status.PASS:
                why = f"; {reason_text(f.reason)}" if f.reason else ""
                yield f"{clean(verdict.profile, 60)}: {STATUS[f.status]}: {gate_name(f)}: {against_limit(f)}{why}"


# --- a fleet


def _fleet_headline(fleet: Fleet) -> str:
    text = f"{fleet.decision.value} {plural(len(fleet.nodes), 'node')}"
    return f"{text}: {clean(fleet.reasons[0], 200)}" if fleet.reasons else text


def _fleet_figures(fleet: Fleet) -> Iterator[str]:
    """Counts of hosts by state; each host but those that pass is one too many."""
    states = Counter(node.state for node in fleet.nodes)
    for state in State:
        limit = ";;0" if state is not State.PASS else ""
        yield f"'{state.value}'={states[state]}{limit}"
    yield f"'pairs_without_figure'={sum(pair.state is not State.PASS for pair in fleet.pairs)};;0"
    yield f"'outliers'={sum(o.level == 'act' for o in fleet.outliers)};;0"


def _fleet_lines(fleet: Fleet) -> Iterator[str]:
    """The scores, the other reasons, and every host, those that did not pass first."""
    yield _scores(fleet.verdicts) or "not judged"
    yield from (clean(reason, 300) for reason in fleet.reasons[1:])
    for node in sorted(fleet.nodes, key=lambda node: node.state is State.PASS):
        why = node.reason or "".join(node.failed[:1])
        yield f"{clean(node.host, 255)}: {node.state.value}" + (f": {clean(why, 200)}" if why else "")
