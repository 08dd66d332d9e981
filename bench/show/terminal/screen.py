"""One screen: what the node may do, why, what the accelerator waited for, what could not be measured and what mends it.

Words carry the meaning; colour only repeats it. The layout is plain characters without boxes, so that it reads the
same on a terminal, in a log and in an e-mail. All foreign text goes through `clean`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TextIO

from bench.model import Code, Decision, Finding, Run, Status, Verdict, code_of
from bench.show import wording
from bench.show.text import cells, clean, fold, hang, pad
from bench.units import human

#: The styles have rich's names.
_DECISION = {Decision.GO: "bold green", Decision.NO_GO: "bold red", Decision.INCONCLUSIVE: "bold yellow"}
_STATUS = {Status.PASS: "green", Status.FAIL: "red", Status.NO_DATA: "yellow", Status.UNDECIDED: "yellow"}
_NARROW, _WIDE = 40, 160
_MOST_WARNINGS = 5
_MOST_REMEDIES = 6
_GAP = "  "


def is_colourful(stream: TextIO) -> bool:
    """A terminal that can, unless NO_COLOR is set to anything (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def render(
    run: Run,
    *,
    width: int | None = None,
    colour: bool | None = None,
    all_gates: bool = False,
    descriptions: Mapping[str, str] | None = None,
) -> str:
    """The screen as text that ends with a newline.

    ``width`` in columns, the terminal's by default. ``colour`` adds ANSI colours; by default as standard output can.
    ``all_gates`` gives passes and gates without data a line each. ``descriptions`` of the profiles by name.
    """
    columns = min(max(width or shutil.get_terminal_size((80, 24)).columns, _NARROW), _WIDE)
    paint = _painter(is_colourful(sys.stdout) if colour is None else colour)
    screen = _Screen(run, columns, all_gates, paint)
    end = [*screen.to_do(), *screen.not_measured(), *screen.warnings()]
    parts = [screen.head(), *screen.verdicts(descriptions or {}), screen.starvation(), end]
    return "\n\n".join("\n".join(line.rstrip() for line in part) for part in parts if part) + "\n"


def _painter(wanted: bool) -> Callable[[str, str], str]:
    """Puts a style on a text, by rich's styles and none of its markup: ``[`` in a host name is a bracket."""
    if not wanted:
        return lambda text, _: text
    from rich.color import ColorSystem
    from rich.style import Style

    return lambda text, style: Style.parse(style).render(text, color_system=ColorSystem.STANDARD)


def _widest(texts: Iterable[str]) -> int:
    return max(map(cells, texts), default=0)


class _Screen:
    """The parts of the screen, each as lines. All verdicts share the widths of the columns, as narrow as can be."""

    def __init__(self, run: Run, width: int, all_gates: bool, paint: Callable[[str, str], str]) -> None:
        self.run, self.width, self.all_gates, self.paint = run, width, all_gates, paint
        findings = [finding for verdict in run.verdicts for finding in verdict.findings]
        rows = [finding for finding in findings if self.has_row(finding)]
        self.status = _widest(wording.STATUS[finding.status] for finding in findings)
        self.measured = _widest(map(wording.observed, rows))
        self.needs = _widest(wording.needed(f.limit, f.metric) for f in rows)
        self.indent = self.status + 2 * len(_GAP)
        figures = self.measured + self.needs + _widest(map(wording.margin, rows)) + 3 * len(_GAP)
        self.name = width - self.indent - figures
        # where the worst was: only where several were asked for
        self.places = all_gates or len(run.request.storage) > 1 or len(run.request.peers) > 1

    def has_row(self, finding: Finding) -> bool:
        """Failing and undecided gates have a line each; the rest is folded by what they share."""
        return self.all_gates or finding.status in (Status.FAIL, Status.UNDECIDED)

    # --- the node

    def head(self) -> list[str]:
        run = self.run
        effort = f"effort {run.request.effort.value}"
        first = [clean(run.node.hostname, 60), wording.when(run.started_at), effort, f"run {clean(run.id, 40)}"]
        lines = [*self.styled(fold("  ".join(first), self.width), "bold"), *fold(self.accelerator(), self.width)]
        if run.replay_of:
            text = f"replayed from {clean(run.replay_of, 60)}: nothing was measured now"
            lines += self.styled(fold(text, self.width), "yellow")
        if run.interrupted_by is not None:
            text = f"interrupted by signal {run.interrupted_by}: what was finished is shown"
            lines.append(self.paint(text, "yellow"))
        return lines

    def accelerator(self) -> str:
        found = wording.gpus(self.run)
        named = [f"{found.count(name)} x {name}" if found.count(name) > 1 else name for name in dict.fromkeys(found)]
        asked = clean(self.run.request.accelerator, 60)
        stood_in = wording.stand_ins(self.run)
        shown = asked if asked != "auto" else ", ".join(named) or "no GPU found"
        return f"accelerator: {shown}" + (f"  stand-ins: {', '.join(stood_in)}" if stood_in else "")

    # --- the verdicts

    def verdicts(self, descriptions: Mapping[str, str]) -> list[list[str]]:
        """Of each its title, every gate in one of the lines, and what else its decision rests on."""
        if not self.run.verdicts:
            return [self.labelled("Not judged yet; judge it with: ", f"bench gate {clean(self.run.id, 40)}")]
        return [
            [
                *self.title(verdict, clean(descriptions.get(verdict.profile, ""))),
                *self.gates(wording.worst_first(verdict.findings)),
                *(line for text in wording.proved(self.run, verdict) for line in self.hanging(None, text)),
            ]
            for verdict in self.run.verdicts
        ]

    def title(self, verdict: Verdict, described: str) -> list[str]:
        decision = verdict.decision.value
        head = f"{decision} {clean(verdict.profile, 60)}, score {wording.scored(verdict)}"
        first, *rest = hang(f"{head}: {described}" if described else head, self.width, 0)
        word = self.paint(decision, _DECISION[verdict.decision])
        return [word + self.paint(first[len(decision) :], "bold"), *self.styled(rest, "bold")]

    def gates(self, findings: Sequence[Finding]) -> list[str]:
        """Those with a row; those without data by reason, as an absent probe has many gates; the passes."""
        lines = [line for finding in findings if self.has_row(finding) for line in self.row(finding)]
        folded = [finding for finding in findings if not self.has_row(finding)]
        whys: dict[str, list[str]] = {}
        for finding in (f for f in folded if f.status is Status.NO_DATA and wording.asked(f)):
            whys.setdefault(_why_no_data(finding), []).append(_with_figure(finding))
        for why, names in whys.items():
            lines += self.hanging(Status.NO_DATA, f"{', '.join(names)}: {why}")
        passes = [finding for finding in folded if finding.status is Status.PASS]
        if passes:
            closest = wording.margin(min(passes, key=wording.closeness))
            far = f": {'closest ' if len(passes) > 1 else ''}{closest}" if closest else ""
            lines += self.hanging(Status.PASS, ", ".join(map(wording.gate_name, passes)) + far)
        return lines

    def row(self, finding: Finding) -> list[str]:
        name, style = wording.gate_name(finding), _STATUS[finding.status]
        need = wording.needed(finding.limit, finding.metric)
        figures = f"{pad(wording.observed(finding), self.measured)}{_GAP}{pad(need, self.needs)}"
        if self.name < 0:  # a very narrow terminal
            words = ", ".join(text for text in (f"{name} {figures}".rstrip(), wording.margin(finding)) if text)
            return self.hanging(finding.status, " ".join(words.split()))
        mark = self.paint(_GAP + pad(wording.STATUS[finding.status], self.status) + _GAP, style)
        end = _GAP + figures + _GAP + self.paint(wording.margin(finding), style)
        if cells(name) <= self.name:
            return [mark + pad(name, self.name) + end, *self.reason(finding)]
        first, *rest = self.hanging(None, name)
        return [mark + first.lstrip(), *rest, " " * (self.indent + self.name) + end, *self.reason(finding)]

    def reason(self, finding: Finding) -> list[str]:
        """Why, where the figures do not say it already: in parentheses it says where the worst was."""
        reason = clean(finding.reason or "")
        said = reason.startswith("(") or (code_of(reason) is Code.STRADDLES_LIMIT and ", because " not in reason)
        if not reason or (said and not self.places):
            return []
        return self.hanging(None, reason if self.all_gates else clean(reason, self.width - self.indent))

    def hanging(self, status: Status | None, text: str) -> list[str]:
        """The text behind the status, or below the text of the line above."""
        first, *rest = fold(text, self.width - self.indent)
        below = " " * self.indent
        mark = self.paint(pad(_GAP + wording.STATUS[status], self.indent), _STATUS[status]) if status else below
        return [mark + first, *(below + line for line in rest)]

    def starvation(self) -> list[str]:
        found = self.run.attribution
        if found is None:
            return []
        notes = [] if found.valid else ["does not count"]
        notes += [f"stand-in: {clean(found.stand_in)}"] if found.stand_in else []
        label = f"Starvation ({', '.join(notes)}): " if notes else "Starvation: "
        return self.labelled(label, clean(found.explanation))

    # --- what to do

    def to_do(self) -> list[str]:
        todo = wording.to_do(self.run, wording.bare_name)
        texts = (f"{', '.join(names)}: {remedy}" for remedy, names in todo.items())
        return self.section("What to do", [hang(text, self.width) for text in texts], _MOST_REMEDIES)

    def not_measured(self) -> list[str]:
        """Each hole once, with the command that mends it; holes with the same mend stand together.

        A gate without data that nothing is known to mend stands with its verdict only.
        """
        by_mend: dict[str, list[str]] = {}
        for number, hole in enumerate(wording.holes(self.run)):
            what = f"{', '.join(hole.names)} {hole.state}"
            if hole.state == wording.STATUS[Status.NO_DATA]:
                if not hole.mend:
                    continue
                what = hole.names[0] if len(hole.names) == 1 else wording.plural(len(hole.names), "gate")
            by_mend.setdefault(hole.mend or f"\0{number}", []).append(f"{what}: {hole.why}")
        items = [self.mended("; ".join(texts), "" if mend[0] == "\0" else mend) for mend, texts in by_mend.items()]
        return self.section("Not measured", items, len(items))

    def mended(self, text: str, mend: str) -> list[str]:
        """What is missing, and the command that mends it: on a line of its own, so that it can be copied."""
        whole = hang(f"{text}; mend: {mend}" if mend else text, self.width)
        if not mend or len(whole) == 1:
            return whole
        return [*hang(text, self.width), *hang(f"mend: {mend}", self.width, 4)]

    def warnings(self) -> list[str]:
        items = [hang(doubt, self.width) for doubt in dict.fromkeys(wording.doubts(self.run))]
        return self.section("Warnings", items, _MOST_WARNINGS)

    # --- building blocks

    def section(self, title: str, items: Sequence[Sequence[str]], most: int) -> list[str]:
        if not items:
            return []
        more = f"  and {len(items) - most} more: bench explain {clean(self.run.id, 40)}"
        lines = [line for item in items[:most] for line in item] + ([more] if len(items) > most else [])
        return [self.paint(f"{title}:", "bold"), *lines]

    def labelled(self, label: str, text: str) -> list[str]:
        first, *rest = fold(label + text, self.width)
        return [self.paint(first[: len(label)], "bold") + first[len(label) :], *rest]

    def styled(self, lines: Iterable[str], style: str) -> list[str]:
        return [self.paint(line, style) for line in lines]


def _why_no_data(finding: Finding) -> str:
    """In short: the probe's own reason stands once, under "Not measured"."""
    code = code_of(finding.reason)
    if code is Code.STAND_IN:
        return "a stand-in does not count"
    if code in wording.OF_A_PROBE:
        return " ".join(code.split("_")[1:])
    return wording.reason_text(finding.reason) or "no reason was given"


def _with_figure(finding: Finding) -> str:
    """A stand-in's number is shown with what it would have to be; it decides nothing."""
    if finding.observed is None:
        return wording.gate_name(finding)
    shown, need = human(finding.observed, finding.metric), wording.needed(finding.limit, finding.metric)
    return f"{wording.gate_name(finding)} {shown} ({need})"
