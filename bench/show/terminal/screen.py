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

from bench.model import Decision, Run, Status, Verdict
from bench.show.terminal import gates
from bench.show.terminal.gates import Line
from bench.show.text import clean, fold, hang
from bench.show.wording import STATUS, Hole, bare_name, doubts, gpus, holes, plural, proved, score, stand_ins, when

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
    return "".join((_coloured if wanted else _plain)(line) + "\n" for line in lines)


def _plain(line: Line) -> str:
    return "".join(text for text, _ in line).rstrip()


def _coloured(line: Line) -> str:
    """With rich's styles and none of its markup: ``[`` in a host name is a bracket."""
    from rich.color import ColorSystem
    from rich.style import Style

    return "".join(Style.parse(style).render(text, color_system=ColorSystem.STANDARD) for text, style in line)


def _screen(run: Run, width: int, all_gates: bool, descriptions: Mapping[str, str]) -> list[Line]:
    warnings = [hang(doubt, width) for doubt in dict.fromkeys(doubts(run))]
    lists = [*_to_do(run, width), *_not_measured(run, width), *_section("Warnings", warnings, _MOST_WARNINGS, run)]
    parts = [_head(run, width), *_verdicts(run, width, all_gates, descriptions), _starvation(run, width), lists]
    lines: list[Line] = []
    for part in parts:
        lines += [((("", "")),), *part] if part and lines else part
    return lines


# --- the node


def _head(run: Run, width: int) -> list[Line]:
    effort = f"effort {run.request.effort.value}"
    first = [clean(run.node.hostname, 60), when(run.started_at), effort, f"run {clean(run.id, 40)}"]
    lines = [*_styled(fold("  ".join(first), width), "bold"), *_styled(fold(_accelerator(run), width))]
    if run.replay_of:
        text = f"replayed from {clean(run.replay_of, 60)}: nothing was measured now"
        lines += _styled(fold(text, width), "yellow")
    if run.interrupted_by is not None:
        lines += _styled([f"interrupted by signal {run.interrupted_by}: what was finished is shown"], "yellow")
    return lines


def _accelerator(run: Run) -> str:
    found = gpus(run.node)
    named = [f"{found.count(name)} x {name}" if found.count(name) > 1 else name for name in dict.fromkeys(found)]
    asked = clean(run.request.accelerator, 60)
    stood_in = stand_ins(run)
    shown = asked if asked != "auto" else ", ".join(named) or "no GPU found"
    return f"accelerator: {shown}" + (f"  stand-ins: {', '.join(stood_in)}" if stood_in else "")


# --- the verdicts


def _verdicts(run: Run, width: int, all_gates: bool, descriptions: Mapping[str, str]) -> list[list[Line]]:
    if not run.verdicts:
        return [_labelled("Not judged yet; judge it with: ", f"bench gate {clean(run.id, 40)}", width)]
    several = len(run.request.storage) > 1 or len(run.request.peers) > 1
    shape = gates.columns(run.verdicts, width, all_gates, several)
    return [
        [*_title(verdict, descriptions, width), *gates.lines(verdict, shape, proved(run, verdict))]
        for verdict in run.verdicts
    ]


def _title(verdict: Verdict, descriptions: Mapping[str, str], width: int) -> list[Line]:
    decision = verdict.decision.value
    head = f"{decision} {clean(verdict.profile, 60)}, score {score(verdict.score)}"
    described = clean(descriptions.get(verdict.profile, ""))
    first, *rest = hang(f"{head}: {described}" if described else head, width, 0)
    return [((decision, _DECISION[verdict.decision]), (first[len(decision) :], "bold")), *_styled(rest, "bold")]


def _starvation(run: Run, width: int) -> list[Line]:
    if run.attribution is None:
        return []
    notes = [] if run.attribution.valid else ["does not count"]
    notes += [f"stand-in: {clean(run.attribution.stand_in)}"] if run.attribution.stand_in else []
    label = f"Starvation ({', '.join(notes)}): " if notes else "Starvation: "
    return _labelled(label, clean(run.attribution.explanation), width)


# --- what to do


def _to_do(run: Run, width: int) -> list[Line]:
    """The remedies of what failed or is undecided, each once, with the gates that it mends."""
    gates_of: dict[str, list[str]] = {}
    for finding in (finding for verdict in run.verdicts for finding in verdict.findings):
        if finding.status in (Status.FAIL, Status.UNDECIDED) and finding.remedy and finding.required:
            gates_of.setdefault(clean(finding.remedy), []).append(bare_name(finding))
    items = [hang(f"{', '.join(dict.fromkeys(names))}: {remedy}", width) for remedy, names in gates_of.items()]
    return _section("What to do", items, _MOST_REMEDIES, run)


def _not_measured(run: Run, width: int) -> list[Line]:
    """Each hole once, with the command that mends it; holes with the same mend stand together."""
    by_mend: dict[str, list[str]] = {}
    for number, hole in enumerate(holes(run)):
        by_mend.setdefault(hole.mend or f"\0{number}", []).append(_hole(hole))
    items = [_mended("; ".join(texts), "" if mend[0] == "\0" else mend, width) for mend, texts in by_mend.items()]
    return _section("Not measured", items, len(items), run)


def _hole(hole: Hole) -> str:
    if hole.state != STATUS[Status.NO_DATA]:
        return f"{', '.join(hole.names)} {hole.state}: {hole.why}"
    return f"{hole.names[0] if len(hole.names) == 1 else plural(len(hole.names), 'gate')}: {hole.why}"


def _mended(text: str, mend: str, width: int) -> list[str]:
    """What is missing, and the command that mends it: on a line of its own, so that it can be copied."""
    whole = hang(f"{text}; mend: {mend}" if mend else text, width)
    return whole if not mend or len(whole) == 1 else [*hang(text, width), *hang(f"mend: {mend}", width, 4)]


# --- building blocks


def _section(title: str, items: Sequence[Sequence[str]], most: int, run: Run) -> list[Line]:
    if not items:
        return []
    lines = [line for item in items[:most] for line in item]
    if len(items) > most:
        lines.append(f"  and {len(items) - most} more: bench explain {clean(run.id, 40)}")
    return [((f"{title}:", "bold"),), *_styled(lines)]


def _labelled(label: str, text: str, width: int) -> list[Line]:
    first, *rest = fold(label + text, width)
    return [((first[: len(label)], "bold"), (first[len(label) :], "")), *_styled(rest)]


def _styled(lines: Iterable[str], style: str = "") -> list[Line]:
    return [((line, style),) for line in lines]
