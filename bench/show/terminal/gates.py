"""The gates of one verdict as lines: failing and undecided first, one line each; the rest folded by what they share."""

from __future__ import annotations

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
    worst_first,
)
from bench.units import human

#: (text, style); a line is a sequence of them. The style is rich's name, and only ever repeats what a word says.
Span = tuple[str, str]
Line = tuple[Span, ...]

STYLE = {Status.PASS: "green", Status.FAIL: "red", Status.NO_DATA: "yellow", Status.UNDECIDED: "yellow"}
_OWN_LINE = (Status.FAIL, Status.UNDECIDED)
_GAP = "  "


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
    rows = [finding for finding in findings if all_gates or finding.status in _OWN_LINE]

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
    ordered = worst_first(verdict.findings)
    rows = [f for f in ordered if shape.all_gates or f.status in _OWN_LINE]
    folded = [] if shape.all_gates else [f for f in ordered if f.status not in _OWN_LINE]
    found = [line for finding in rows for line in _row(finding, shape)]
    for text, same in _groups(folded).items():
        found += _hanging(same[0].status, text, shape)
    return [*found, *(line for text in proved for line in _hanging(None, text, shape))]


def _row(finding: Finding, shape: Columns) -> list[Line]:
    name, style = gate_name(finding), STYLE[finding.status]
    figures = f"{pad(observed(finding), shape.measured)}{_GAP}{pad(needed(finding.limit, finding.metric), shape.needs)}"
    if shape.name < 0:  # a very narrow terminal
        words = ", ".join(text for text in (f"{name} {figures}".rstrip(), margin(finding)) if text)
        return _hanging(finding.status, " ".join(words.split()), shape)
    mark = (_GAP + pad(STATUS[finding.status], shape.status) + _GAP, style)
    end: Line = ((figures + _GAP, ""), (margin(finding), style))
    if cells(name) <= shape.name:
        return [(mark, (pad(name, shape.name) + _GAP, ""), *end), *_reason(finding, shape)]
    first, *rest = fold(name, shape.width - shape.indent)
    folded: list[Line] = [((" " * shape.indent + text, ""),) for text in rest]
    figured: Line = ((" " * (shape.indent + shape.name + len(_GAP)), ""), *end)
    return [(mark, (first, "")), *folded, figured, *_reason(finding, shape)]


def _reason(finding: Finding, shape: Columns) -> list[Line]:
    """Why, where the figures do not say it already: a reason without a code says where the worst was."""
    reason = clean(finding.reason or "")
    if not reason or (split_reason(reason)[0] in ("", Code.STRADDLES_LIMIT) and not shape.places):
        return []
    return _hanging(None, reason if shape.all_gates else clean(reason, shape.width - shape.indent), shape)


def _groups(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Text -> gates: without data by reason, as one absent probe takes the data from all its gates; then the passes."""
    whys: dict[str, list[Finding]] = {}
    passes: list[Finding] = []
    for finding in findings:
        (passes if finding.status is Status.PASS else whys.setdefault(_why_no_data(finding), [])).append(finding)
    found = {f"{', '.join(map(_with_figure, same))}: {why}": same for why, same in whys.items()}
    if passes:
        closest = margin(min(passes, key=closeness))
        far = f": {'closest ' if len(passes) > 1 else ''}{closest}" if closest else ""
        found[", ".join(map(gate_name, passes)) + far] = passes
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


def _hanging(status: Status | None, text: str, shape: Columns) -> list[Line]:
    """The text behind the status, or below the text of the line above."""
    mark, style = (STATUS[status], STYLE[status]) if status else ("", "")
    first, *rest = fold(text, shape.width - shape.indent)
    head: Line = ((pad(_GAP + mark, shape.indent), style), (first, ""))
    return [head, *(((" " * shape.indent + line, ""),) for line in rest)]
