"""Foreign text made safe, and text laid out in terminal cells.

Host names, paths, tool output and probe reasons come from outside. Before any of it reaches a terminal, Markdown or
XML it goes through `clean`: an escape sequence could rewrite the verdict on the screen, a bidi override could turn a
file name around, a lone surrogate would stop the program when it is printed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]?"  # the rest
)
#: Letters and marks that are "printable" but show nothing: fillers, joiners, variation selectors, the braille blank.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
#: A number stays with its unit: "50" at the end of one line and "ms" on the next is hard to read.
_NUMBER_UNIT = re.compile(r"(?<=\d) (?=(?:%|x|[mµnp]?s|[kMGTPE]?B(?:/s)?|op/s|W|J|°C)(?:\W|$))")
_SPACE = re.compile(r"\s+")
#: A word of a command as a shell reads it: blanks in quotes are part of it.
_SHELL_WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|\\.|[^\s'"\\])+""")


def clean(text: str, longest: int | None = None) -> str:
    """One printable line: no controls (C0, C1), escape sequences, bidi overrides, zero-width characters, surrogates.

    White space of any kind becomes one space; ``longest`` cuts to that many characters, the last three being dots.
    """
    shown = _INVISIBLE.sub("", _ESCAPES.sub("", text))
    line = _SPACE.sub(" ", "".join(c for c in shown if c.isprintable() or c.isspace())).strip()
    return line if longest is None or len(line) <= longest else line[: max(longest - 3, 0)] + "..."


def signs(text: str) -> str:
    """``<= 10 %`` as people write it."""
    return text.replace("<=", "≤").replace(">=", "≥")


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def cells(text: str) -> int:
    """How many columns of a terminal the text takes (East Asian wide characters two, combining marks none)."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def pad(text: str, width: int) -> str:
    """The text, filled up with spaces to that many cells; unchanged when it is longer."""
    return text + " " * max(0, width - cells(text))


def fold(text: str, width: int) -> list[str]:
    """The text in lines of at most ``width`` cells, broken at spaces, and within a word only when it is too long."""
    lines: list[str] = []
    line = ""
    for word in _NUMBER_UNIT.sub("\0", text).split(" "):
        word = word.replace("\0", " ")
        joined = f"{line} {word}" if line else word
        if cells(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        line = word
        if cells(word) > width:
            from rich.cells import chop_cells

            *whole, line = chop_cells(word, max(width, 2))
            lines += whole
    return [*lines, line]


def fold_command(command: str, width: int) -> list[str]:
    """The command in lines that a shell reads as one: a word stays whole, also where it is wider than the line."""
    lines: list[str] = []
    for word in _SHELL_WORD.findall(command):
        if lines and cells(f"{lines[-1]} {word} \\") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def hang(text: str, width: int, indent: int = 2) -> list[str]:
    """The text folded to ``width`` cells: the first line behind ``indent`` spaces, the others behind two more."""
    first, *rest = fold(text, width - indent - 2)
    return [" " * indent + first, *(" " * (indent + 2) + line for line in rest)]
