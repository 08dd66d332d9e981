"""Nagios, Icinga, Naemon and Sensu plugin output: one line, performance data, then the gates that did not pass.

Monitoring Plugins Development Guidelines: ``SERVICE STATUS: text | 'label'=value[UOM];[warn];[crit]``; status 0 OK, 2
CRITICAL, 3 UNKNOWN. By the contract GO is 0, NO-GO 2, INCONCLUSIVE and no verdict 3. Ranges: ``0.1`` alarms above,
``2147483648:`` below. UOM has no rate, so figures a second stand without one.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.model import Decision, Finding, Run, Status
from bench.show.export import Export
from bench.show.export.plugin import headline, scores
from bench.show.text import clean
from bench.show.wording import STATUS, gate_name, needed, observed, reason_text
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
