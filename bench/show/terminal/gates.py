"""The gates of one verdict as lines: failing and undecided first, one line each; the rest folded by what they share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.model import Code, Finding, Status, Verdict, code_of
from bench.show.text import cells, clean, fold, pad
from bench.show.wording import (
    OF_A_PROBE,
    STATUS,
    closeness,
    gate_name,
    margin,
    needed,
    observed,
    reason_text,
    split_reason,
)
from bench.units import human

#: (text, style); a line is a sequence of them. The style is rich's name, and only ever repeats what a word says.
Span = tuple[str, str]
Line = tuple[Span, ...]

STYLE = {Status.PASS: "green", Status.FAIL: "red", Status.NO_DATA: "yellow", Status.UNDECIDED: "yellow"}
_ORDER = (Status.FAIL, Status.UNDECIDED, Status.NO_DATA, Status.PASS)
_GAP = "  "
_SPACES = re.compile(" +")


@dataclass(frozen=True, slots=True)
class Columns:
    """The widths, in cells, that all verdicts of a screen share, so that they stand in line."""

    width: int
    status: int
    measured: int
    needs: int
    margin: int
    places: bool  # say where the worst was: only where several were asked for
    all_gates: bool  # a line for each gate, and reasons in full in place of their first line

    @property
    def name(self) -> int:
        used = self.status + self.measured + self.needs + self.margin + 5 * len(_GAP)
        return self.width - used

    @property
    def indent(self) -> int:
        return len(_GAP) + self.status + len(_GAP)


def columns(verdicts: Iterable[Verdict], width: int, all_gates: bool, places: bool = False) -> Columns:
    """As narrow as what they hold."""
    findings = [finding for verdict in verdicts for finding in verdict.findings]
    rows = [finding for finding in findings if _own_line(finding, all_gates)]

    def widest(texts: Iterable[str]) -> int:
        return max(map(cells, texts), default=0)

    return Columns(
        width=width,
        status=widest(STATUS[finding.status] for finding in findings),
        measured=widest(map(observed, rows)),
        needs=widest(needed(f.limit, f.metric) for f in rows),
        margin=widest(map(margin, rows)),
        places=places or all_gates,
        all_gates=all_gates,
    )


def lines(verdict: Verdict, shape: Columns, proved: Sequence[str] = ()) -> list[Line]:
    """Every gate of the verdict is in one of the lines; after them ``proved``, what else its decision rests on."""
    found: list[Line] = []
    for status in _ORDER:
        same = sorted((f for f in verdict.findings if f.status is status), key=lambda f: not f.required)
        rows = [f for f in same if _own_line(f, shape.all_gates)]
        found += [line for finding in rows for line in _row(finding, shape)]
        folded = [f for f in same if not _own_line(f, shape.all_gates)]
        found += _passes(folded, shape) if status is Status.PASS else _no_data(folded, shape)
    return [*found, *(line for text in proved for line in _hanging("", "", text, shape.indent, shape.width))]


def _own_line(finding: Finding, all_gates: bool) -> bool:
    return all_gates or finding.status in (Status.FAIL, Status.UNDECIDED)


def _row(finding: Finding, shape: Columns) -> list[Line]:
    name, style = gate_name(finding), STYLE[finding.status]
    mark = (_GAP + pad(STATUS[finding.status], shape.status) + _GAP, style)
    figures = _GAP.join(
        (pad(observed(finding), shape.measured), pad(needed(finding.limit, finding.metric), shape.needs))
    )
    end: Line = ((figures + _GAP, ""), (margin(finding), style))
    if cells(name) <= shape.name:
        return [(mark, (pad(name, shape.name) + _GAP, ""), *end), *_reason(finding, shape)]
    if shape.name < 0:  # a very narrow terminal
        words = ", ".join(text for text in (f"{name} {figures}".rstrip(), margin(finding)) if text)
        return [*_hanging(mark[0][len(_GAP) :], style, _SPACES.sub(" ", words), shape.indent, shape.width)]
    first, *rest = fold(name, shape.width - shape.indent)
    folded: list[Line] = [((" " * shape.indent + text, ""),) for text in rest]
    figured: Line = ((" " * (shape.indent + shape.name + len(_GAP)), ""), *end)
    return [(mark, (first, "")), *folded, figured, *_reason(finding, shape)]


def _reason(finding: Finding, shape: Columns) -> list[Line]:
    """Why, where the figures do not say it already: a reason without a code says where the worst was."""
    reason = clean(finding.reason or "")
    if not reason or (split_reason(reason)[0] in ("", Code.STRADDLES_LIMIT) and not shape.places):
        return []
    room = shape.width - shape.indent
    return _hanging("", "", reason if shape.all_gates else clean(reason, room), shape.indent, shape.width)


def _passes(findings: Sequence[Finding], shape: Columns) -> list[Line]:
    if not findings:
        return []
    closest = min(findings, key=closeness)
    text = ", ".join(map(gate_name, findings))
    if margin(closest):
        text += f": {'closest ' if len(findings) > 1 else ''}{margin(closest)}"
    return _hanging(pad(STATUS[Status.PASS], shape.status), STYLE[Status.PASS], text, shape.indent, shape.width)


def _no_data(findings: Sequence[Finding], shape: Columns) -> list[Line]:
    """Folded by reason: one probe that is absent takes the data from all of its gates."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(_why_no_data(finding), []).append(finding)
    found: list[Line] = []
    for why, same in groups.items():
        names = ", ".join(_with_figure(finding) for finding in same)
        mark = pad(STATUS[Status.NO_DATA], shape.status)
        found += _hanging(mark, STYLE[Status.NO_DATA], f"{names}: {why}", shape.indent, shape.width)
    return found


def _why_no_data(finding: Finding) -> str:
    """In short: the probe's own reason stands once, under "Not measured"."""
    code = code_of(finding.reason)
    if code is Code.STAND_IN:
        return "a stand-in does not count"
    if code in OF_A_PROBE:
        return " ".join(code.split("_")[1:])
    return reason_text(finding.reason) or "no reason was given"


def _with_figure(finding: Finding) -> str:
    """A stand-in's number is shown with what it would have to be; it decides nothing."""
    if finding.observed is None:
        return gate_name(finding)
    shown, need = human(finding.observed, finding.metric), needed(finding.limit, finding.metric)
    return f"{gate_name(finding)} {shown} ({need})"


def _hanging(mark: str, style: str, text: str, indent: int, width: int) -> list[Line]:
    first, *rest = fold(text, width - indent)
    head: Line = ((pad(_GAP + mark, indent), style), (first, ""))
    return [head, *(((" " * indent + line, ""),) for line in rest)]
