"""One screen: the run's matrix on a terminal, in a log or in an e-mail.

Words carry the meaning; colour only repeats it. What does not fit beside each other stands below each other, in the
same order: 100 columns hold everything, 40 are enough. Rich lays it out and is loaded only then.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from bench.measure.probe import Probe
from bench.model import Decision, Run
from bench.show.absent import NOT_ASKED
from bench.show.matrix import Answer, Cell, Mark, Matrix, Row
from bench.show.terminal.console import console, is_colourful
from bench.show.text import cells, clean, fold, fold_command, hang, signs
from bench.show.wording import plural

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_DECISION = {Decision.GO: "bold green", Decision.NO_GO: "bold red", Decision.INCONCLUSIVE: "bold yellow"}
_MARK = {Mark.PASS: "green", Mark.FAIL: "bold red", Mark.OPEN: "yellow", Mark.ABSENT: "dim"}
_NARROW, _WIDE = 40, 160
#: Columns that a gate's name needs beside its figures, and a gate beside its marks; else they stand below it.
_LEAST_NAME, _LEAST_GATE = 16, 26
_LEAST_REASON = 40
_MARK_CELLS = 6
_GAP = 2
_NOTE_LINES, _NOTE = 2, "Note: "
_STEP = 5
_LONGEST_CAUSE = 34
_MEANING = {Mark.OPEN: "? undecided or not measured", Mark.ABSENT: "- needs what is not here"}
_ASCII = str.maketrans({"≤": "<=", "≥": ">=", "·": ".", "µ": "u", "°": "", "–": "-", "…": "..."})


def render(
    run: Run,
    probes: Sequence[Probe] = (),
    *,
    width: int | None = None,
    colour: bool | None = None,
    ascii_only: bool | None = None,
    all_gates: bool = False,
) -> str:
    """The screen as text that ends with a newline. ``probes`` know the next commands.

    ``width`` in columns, the terminal's by default; ``colour`` adds ANSI colours, ``ascii_only`` leaves out what is not
    ASCII: by default as standard output can. ``all_gates`` gives gates without a figure a line each.
    """
    columns = min(max(width or shutil.get_terminal_size((80, 24)).columns, _NARROW), _WIDE)
    screen = Screen(Matrix(run, probes), columns, all_gates=all_gates)
    colours = is_colourful(sys.stdout) if colour is None else colour
    return drawn([screen.whole()], columns, colours, knows_only_ascii(sys.stdout) if ascii_only is None else ascii_only)


def knows_only_ascii(stream: TextIO) -> bool:
    return not (stream.encoding or "ascii").lower().startswith("utf")


def drawn(parts: Iterable[RenderableType], width: int, colours: bool, ascii_only: bool) -> str:
    """Parts of a screen as text, each line without blanks at its end."""
    drawing = console(io.StringIO(), width, colours=colours)
    with drawing.capture() as captured:
        drawing.print(*parts, sep="\n", crop=False)
    text = captured.get().replace("\xa0", " ")
    text = text.translate(_ASCII) if ascii_only else text
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


class Screen:
    """The parts of the screen, as rich draws them: on a console that records, they can be exported as a picture."""

    def __init__(self, found: Matrix, width: int, *, all_gates: bool = False) -> None:
        self.found, self.width, self.all_gates = found, width, all_gates
        rows = [row for row in found.rows if all_gates or not row.cause]
        # In the figure's place why there is none, as far as it fits there.
        self.rows = [row._replace(measured=clean(row.cause, _LONGEST_CAUSE)) if row.cause else row for row in rows]

    def whole(self) -> RenderableType:
        from rich.console import Group

        below = [*self.sentences(), *self.steps(), *self.missing(), *self.notes()]
        parts: list[list[RenderableType]] = [[*self.answers()], [*self.gates()], below]
        return Group(*self.head(), *(line for part in parts if part for line in ("", *part)))

    def head(self) -> Iterator[RenderableType]:
        """Each line's phrases beside each other as far as they fit."""
        for at, phrases in enumerate(self.found.head):
            yield _lines(_flow(phrases, self.width), "bold" if at == 0 else "" if at == 1 else "yellow")

    def answers(self) -> Iterator[RenderableType]:
        answers = self.found.answers
        if not answers:
            yield _lines(fold("Not judged yet: bench gate judges it.", self.width))
            return
        heads = (max(cells(answer.profile) for answer in answers), max(len(answer.decision) for answer in answers))
        room = self.width - sum(heads) - 3 * _GAP
        if room >= _LEAST_REASON:
            table = _table(header=False)
            for answer in answers:
                table.add_row(_lines([answer.profile], "bold"), _decision(answer), _lines([_reason(answer, room)]))
            yield table
            return
        for answer in answers:
            title = _lines(["  "]).append_text(_decision(answer)).append(f"  {clean(answer.profile, 40)}", "bold")
            yield title if title.cell_len <= self.width else _lines(hang(title.plain.strip(), self.width), "bold")
            yield _lines(hang(_reason(answer, self.width - 2 * _GAP), self.width, 2 * _GAP))

    def gates(self) -> Iterator[RenderableType]:
        """All of a gate on one line; or its interval below its figure; or both below its name; or the marks as well."""
        if not self.rows:
            return
        marks = sum(max(_MARK_CELLS, cells(answer.column)) + _GAP for answer in self.found.answers)
        needed = max(cells(signs(row.needed)) for row in self.rows)
        room = self.width - marks - needed - 3 * _GAP
        if room - max(cells(_measured(row)) for row in self.rows) >= _LEAST_NAME:
            rows = ([row.name, _measured(row), signs(row.needed)] for row in self.rows)
            yield self._matrix(["", "measured", "needed"], rows)
        elif room - max(max(cells(row.measured), cells(row.interval) + 2) for row in self.rows) >= _LEAST_NAME:
            rows = ([row.name, _measured(row, "\n"), signs(row.needed)] for row in self.rows)
            yield self._matrix(["", "measured", "needed"], rows)
        elif (room := self.width - marks - _GAP) >= _LEAST_GATE:
            rows = (["\n".join([*fold(row.name, room), *hang(_figures(row), room)])] for row in self.rows)
            yield self._matrix([""], rows)
        else:
            yield from map(self._below, self.rows)
        yield from self._legend()

    def _matrix(self, titles: Sequence[str], gates: Iterable[Sequence[str]]) -> RenderableType:
        table = _table(header=True)
        for at, title in enumerate((*titles, *(answer.column for answer in self.found.answers))):
            table.add_column(_lines([title]), overflow="fold", no_wrap=at > 0)
        for row, gate in zip(self.rows, gates, strict=True):
            table.add_row(*(_lines([text]) for text in gate), *map(_mark, row.cells))
        return table

    def _below(self, row: Row) -> RenderableType:
        marks = [f"{cell} {answer.column}" for cell, answer in zip(row.cells, self.found.answers, strict=True) if cell]
        lines = [*hang(row.name, self.width), *hang(_figures(row), self.width, 2 * _GAP)]
        return _lines([*lines, *(" " * 2 * _GAP + line for line in _flow(marks, self.width - 2 * _GAP))])

    def _legend(self) -> Iterator[RenderableType]:
        """What the marks mean that are no words, as far as they are there."""
        shown = [cell for row in self.rows for cell in row.cells if cell]
        meant = [text for mark, text in _MEANING.items() if any(cell.mark is mark for cell in shown)]
        meant += ["( ) never decides"] if any(not cell.required for cell in shown) else []
        if meant:
            yield _lines([f"  {line}" for line in _flow(meant, self.width - _GAP)], "dim")

    def sentences(self) -> Iterator[RenderableType]:
        for sentence in (self.found.starvation, self.found.accelerator, self.found.answer, *self.found.proved):
            if sentence:
                yield _lines(fold(sentence, self.width))

    def steps(self) -> Iterator[RenderableType]:
        if self.found.steps:
            yield _lines(["Next"], "bold")
        for number, step in enumerate(self.found.steps, 1):
            head, *rest = fold_command(step.command, self.width - _STEP)
            command = _lines([f"  {number}. {head}", *(" " * _STEP + line for line in rest)], "bold")
            command.no_wrap, command.overflow = True, "ignore"
            yield command
            yield _lines([" " * _STEP + line for line in fold(step.told, self.width - _STEP)])

    def missing(self) -> Iterator[RenderableType]:
        """By cause; of the gates that do not ask this node only how many, and why."""
        found = () if self.all_gates else self.found.missing
        if found:
            yield _lines(["Not measured"], "bold")
        asked = [one for one in found if not one.cause.startswith(NOT_ASKED)]
        for one in asked:
            yield _lines(hang(f"{one.cause}: {', '.join(one.names)}", self.width))
            if one.mend:
                yield _lines(hang(f"fix: {one.mend}", self.width, 2 * _GAP))
        if others := [one for one in found if one not in asked]:
            gates = plural(sum(len(one.names) for one in others), "gate")
            whys = "; ".join(one.cause.removeprefix(NOT_ASKED).strip(" ()") for one in others)
            yield _lines(hang(f"not asked of this node: {gates} ({whys})", self.width))

    def notes(self) -> Iterator[RenderableType]:
        """Whole ones, as many as fit into two lines; the first in any case, cut where it is a page."""
        lines: list[str] = []
        for at, note in enumerate(self.found.notes):
            text = note if self.all_gates else clean(note, 3 * _WIDE)
            folded = hang(f"{_NOTE}{text}", self.width, 0)
            if lines and len(lines) + len(folded) > _NOTE_LINES and not self.all_gates:
                lines += hang(f"{plural(len(self.found.notes) - at, 'more note')}: --all-gates", self.width, 0)
                break
            lines += folded
        if lines:
            yield _lines(lines)


def _lines(lines: Iterable[str], style: str = "") -> Text:
    """Foreign text is no markup: ``[`` in a host name is a bracket."""
    from rich.text import Text

    return Text("\n".join(lines), style=style, overflow="fold")


def _table(*, header: bool) -> Table:
    from rich.table import Table

    return Table(box=None, show_header=header, header_style="", padding=(0, 0, 0, _GAP))


def _decision(answer: Answer) -> Text:
    return _lines([answer.decision.value], _DECISION[answer.decision])


def _reason(answer: Answer, width: int) -> str:
    """What decided, and as much more as stands on the same line."""
    whole = answer.because
    for more in answer.more:
        whole = f"{whole}; {more}" if cells(f"{whole}; {more}") <= width else whole
    return whole


def _mark(cell: Cell | None) -> Text:
    return _lines(["·"], "dim") if cell is None else _lines([str(cell)], _MARK[cell.mark])


def _measured(row: Row, gap: str = " ") -> str:
    return f"{row.measured}{gap}({row.interval})" if row.interval else row.measured


def _figures(row: Row) -> str:
    """The need stays in one piece: its blanks do not break."""
    return f"{_measured(row)}, needs {signs(row.needed)}".replace("≤ ", "≤\xa0").replace("≥ ", "≥\xa0")


def _flow(phrases: Iterable[str], width: int) -> list[str]:
    """Lines of whole phrases, three blanks apart; a phrase that is too long has lines of its own."""
    lines: list[str] = []
    for phrase in phrases:
        if lines and cells(f"{lines[-1]}   {phrase}") <= width:
            lines[-1] += f"   {phrase}"
        else:
            lines += fold(phrase, width)
    return lines
