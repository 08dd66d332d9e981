"""One screen: what the node may do, why, what the accelerator waited for, what could not be measured and what mends it.

Words carry the meaning; colour only repeats it. The layout is plain characters without boxes, so that it reads the
same on a terminal, in a log and in an e-mail. All foreign text goes through `clean`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from bench.model import Decision, Finding, Outcome, Run, Status, Verdict
from bench.show.terminal import gates
from bench.show.terminal.gates import Line
from bench.show.text import clean, fold
from bench.show.wording import bare_name, for_the_record, plural, proved, reason_text, score, when

_DECISION = {Decision.GO: "bold green", Decision.NO_GO: "bold red", Decision.INCONCLUSIVE: "bold yellow"}
_NARROW, _WIDE = 40, 160
_MOST_WARNINGS = 5
_MOST_REMEDIES = 6


def show(
    run: Run,
    stream: TextIO | None = None,
    *,
    width: int | None = None,
    colour: bool | None = None,
    all_gates: bool = False,
    descriptions: Mapping[str, str] | None = None,
) -> None:
    """Write the screen to ``stream`` (standard output), as `render` makes it.

    What its encoding cannot hold is shown as ``?``. A reader that went away (``| head``) is no error.
    """
    stream = stream or sys.stdout
    wanted = is_colourful(stream) if colour is None else colour
    text = render(run, width=width, colour=wanted, all_gates=all_gates, descriptions=descriptions)
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except BrokenPipeError:  # without this, Python would fail again when it flushes the stream at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
    lines = _screen(run, columns, all_gates, descriptions or {})
    wanted = is_colourful(sys.stdout) if colour is None else colour
    return _coloured(lines) if wanted else "".join(_plain(line) + "\n" for line in lines)


def _plain(line: Line) -> str:
    return "".join(text for text, _ in line).rstrip()


def _coloured(lines: Sequence[Line]) -> str:
    """With rich, and its markup off: ``[`` in a host name is a bracket."""
    from io import StringIO

    from rich.console import Console
    from rich.text import Text

    console = Console(
        file=StringIO(), force_terminal=True, color_system="standard", no_color=False, width=10 * _WIDE,
        markup=False, highlight=False, emoji=False, legacy_windows=False,
    )  # fmt: skip
    with console.capture() as captured:
        for line in lines:
            console.print(Text.assemble(*line), no_wrap=True, crop=False, overflow="ignore")
    return captured.get()


def _screen(run: Run, width: int, all_gates: bool, descriptions: Mapping[str, str]) -> list[Line]:
    lists = [*_to_do(run, width), *_not_measured(run, width), *_warnings(run, width)]
    parts = [_head(run, width), *_verdicts(run, width, all_gates, descriptions), _starvation(run, width), lists]
    lines: list[Line] = []
    for part in parts:
        lines += [((("", "")),), *part] if part and lines else part
    return lines


# --- the node


def _head(run: Run, width: int) -> list[Line]:
    effort = f"effort {run.request.effort.value}"
    first = [clean(run.node.hostname, 60), when(run.started_at), effort, f"run {clean(run.id, 40)}"]
    lines: list[Line] = [((text, "bold"),) for text in fold("  ".join(first), width)]
    lines += [((text, ""),) for text in fold(_accelerator(run), width)]
    if run.replay_of:
        text = f"replayed from {clean(run.replay_of, 60)}: nothing was measured now"
        lines += [((line, "yellow"),) for line in fold(text, width)]
    if run.interrupted_by is not None:
        lines.append(((f"interrupted by signal {run.interrupted_by}: what was finished is shown", "yellow"),))
    return lines


def _accelerator(run: Run) -> str:
    gpus = run.node.facts.get("gpus")
    found = [clean(str(gpu), 60) for gpu in gpus] if isinstance(gpus, list | tuple) else []
    asked = clean(run.request.accelerator, 60)
    named = asked if asked != "auto" else ", ".join(_counted(found)) or "no GPU found"
    stood_in = sorted({clean(m.stand_in, 60) for m in run.measurements() if m.stand_in})
    return f"accelerator: {named}" + (f"  stand-ins: {', '.join(stood_in)}" if stood_in else "")


def _counted(names: list[str]) -> list[str]:
    return [f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]


# --- the verdicts


def _verdicts(run: Run, width: int, all_gates: bool, descriptions: Mapping[str, str]) -> list[list[Line]]:
    if not run.verdicts:
        return [_text("Not judged yet; judge it with: ", f"bench gate {clean(run.id, 40)}", width)]
    several = len(run.request.storage) > 1 or len(run.request.peers) > 1
    shape = gates.columns(run.verdicts, width, all_gates, several)
    return [
        [*_title(verdict, descriptions, width), *gates.lines(verdict, shape, all_gates, proved(run, verdict))]
        for verdict in run.verdicts
    ]


def _title(verdict: Verdict, descriptions: Mapping[str, str], width: int) -> list[Line]:
    decision, name = verdict.decision.value, clean(verdict.profile, 60)
    head = f"{decision} {name}, score {score(verdict.score)}"
    described = clean(descriptions.get(verdict.profile, ""))
    first, *rest = fold(f"{head}: {described}" if described else head, width - 2)
    line: Line = ((decision, _DECISION[verdict.decision]), (first[len(decision) :], "bold"))
    return [line, *(((f"  {text}", "bold"),) for text in rest)]


def _starvation(run: Run, width: int) -> list[Line]:
    if run.attribution is None:
        return []
    notes = [] if run.attribution.valid else ["does not count"]
    notes += [f"stand-in: {clean(run.attribution.stand_in)}"] if run.attribution.stand_in else []
    label = f"Starvation ({', '.join(notes)}): " if notes else "Starvation: "
    return _text(label, clean(run.attribution.explanation), width)


# --- what to do


def _to_do(run: Run, width: int) -> list[Line]:
    """The remedies of what failed or is undecided, each once, with the gates that it mends."""
    gates_of: dict[str, list[str]] = {}
    for finding in _findings(run, Status.FAIL, Status.UNDECIDED):
        if finding.remedy and finding.required:
            names = gates_of.setdefault(clean(finding.remedy), [])
            names += [bare_name(finding)] if bare_name(finding) not in names else []
    lines = [_item(f"{', '.join(names)}: {remedy}", width) for remedy, names in gates_of.items()]
    return _section("What to do", lines, _MOST_REMEDIES, run)


def _not_measured(run: Run, width: int) -> list[Line]:
    """Each hole once, with the command that mends it; holes with the same mend stand together."""
    by_mend: dict[str, list[str]] = {}
    for number, (hole, remedy) in enumerate((*_probe_holes(run), *_gate_holes(run))):
        by_mend.setdefault(clean(remedy) if remedy else f"\0{number}", []).append(hole)
    items = [_hole("; ".join(holes), None if mend.startswith("\0") else mend, width) for mend, holes in by_mend.items()]
    return _section("Not measured", items, len(items), run)


def _hole(text: str, mend: str | None, width: int) -> list[Line]:
    """What is missing, and the command that mends it: on a line of its own, so that it can be copied."""
    whole = text if mend is None else f"{text}; mend: {mend}"
    if mend is None or len(fold(whole, width - 4)) == 1:
        return _item(whole, width)
    return [*_item(text, width), *_item(f"mend: {mend}", width, indent=4)]


#: What is missing and why; what mends it, if that is known.
Hole = tuple[str, str | None]


def _probe_holes(run: Run) -> list[Hole]:
    """Probes that did not end well, those with the same fate together."""
    same: dict[tuple[Outcome, str, str | None], list[str]] = {}
    for result in run.results:
        if result.outcome is not Outcome.OK:
            same.setdefault((result.outcome, clean(result.reason or ""), result.remedy), []).append(result.probe)
    return [
        (f"{', '.join(dict.fromkeys(probes))} {outcome.value.replace('_', ' ')}: {reason_text(reason)}", remedy)
        for (outcome, reason, remedy), probes in same.items()
    ]


def _gate_holes(run: Run) -> list[Hole]:
    """Gates without data although their probe was ok: a stand-in that they do not accept, or a label never measured."""
    same: dict[tuple[str, str], set[str]] = {}
    for finding in _findings(run, Status.NO_DATA):
        reason = clean(finding.reason or "")
        if finding.remedy and not reason.startswith("probe_"):
            why = f"only by a stand-in ({clean(finding.stand_in or '')})" if finding.stand_in else reason_text(reason)
            same.setdefault((why, finding.remedy), set()).add(bare_name(finding))
    return [
        (f"{next(iter(names)) if len(names) == 1 else plural(len(names), 'gate')}: {why}", mend)
        for (why, mend), names in same.items()
    ]


def _findings(run: Run, *statuses: Status) -> Iterable[Finding]:
    return (finding for verdict in run.verdicts for finding in verdict.findings if finding.status in statuses)


def _warnings(run: Run, width: int) -> list[Line]:
    doubts = [f"{result.probe}: {clean(text)}" for result in run.results for text in result.warnings]
    doubts += [
        f"{result.probe}: {plural(len(same), 'measurement')} for the record only: {reason_text(same[0].invalid or '')}"
        for result in run.results
        for same in for_the_record(result).values()
    ]
    return _section("Warnings", [_item(doubt, width) for doubt in dict.fromkeys(doubts)], _MOST_WARNINGS, run)


# --- building blocks


def _section(title: str, items: list[list[Line]], most: int, run: Run) -> list[Line]:
    if not items:
        return []
    lines = [line for item in items[:most] for line in item]
    if len(items) > most:
        lines.append(((f"  and {len(items) - most} more: bench explain {clean(run.id, 40)}", ""),))
    return [((f"{title}:", "bold"),), *lines]


def _item(text: str, width: int, indent: int = 2) -> list[Line]:
    first, *rest = fold(text, width - indent - 2)
    return [((" " * indent + first, ""),), *(((" " * (indent + 2) + line, ""),) for line in rest)]


def _text(label: str, text: str, width: int) -> list[Line]:
    first, *rest = fold(label + text, width)
    return [((first[: len(label)], "bold"), (first[len(label) :], "")), *(((line, ""),) for line in rest)]
