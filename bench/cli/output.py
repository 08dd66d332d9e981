"""Standard output, for people and for programs. A reader that goes away does not change the verdict's status."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.store.errors import one_line

if TYPE_CHECKING:
    from bench.judge.fleet.model import FleetVerdict
    from bench.measure.probe import Probe
    from bench.model import Run, Verdict


@contextmanager
def _writing() -> Iterator[None]:
    """Around what is written there. A reader that went away (``| head``) is no error; UserError for a full disk."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:  # without this, Python would fail again when it flushes the stream at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UserError(f"standard output cannot be written: {error.strerror}") from error


def emit(text: str) -> None:
    """Write ``text`` and a newline to standard output. What its encoding cannot hold is shown as ``?``."""
    encoding = sys.stdout.encoding or "utf-8"
    with _writing():
        sys.stdout.write((text if text.endswith("\n") else text + "\n").encode(encoding, "replace").decode(encoding))


def emit_json(value: Any, indent: int = 2) -> None:
    """Write one JSON document. Raises ValueError for a number that JSON does not have."""
    emit(json.dumps(value, indent=indent, allow_nan=False))


def emit_lines(lines: Iterable[str], longest: int = 400) -> None:
    """Write each as one printable line."""
    emit("\n".join(one_line(line, longest) for line in lines))


def emit_verdicts(verdicts: Sequence[Verdict | FleetVerdict]) -> None:
    """One line a profile."""
    from bench.show import wording

    emit("\n".join(f"{v.decision.value} {v.profile} score {wording.scored(v)}" for v in verdicts))


def emit_run(run: Run, probes: Sequence[Probe], *, quiet: bool = False, all_gates: bool = False) -> None:
    """The verdicts for a person: one screen, with what the probes may do next, or one line a profile."""
    from bench.show.terminal import screen

    if quiet:
        emit_verdicts(run.verdicts)
    else:
        emit(screen.render(run, probes, all_gates=all_gates))


def write(data: bytes, output: Path | None, format: str) -> None:  # noqa: A002
    """Write a document of that format to the file, or to standard output.

    Raises UserError when it cannot be written there, or is not for a terminal and standard output is one.
    """
    from bench.show.export import BINARY

    if output is not None and str(output) != "-":
        from bench.store.atomic import write_atomically

        try:
            write_atomically(output, data)
        except OSError as error:
            raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error
    elif format not in BINARY:
        emit(data.decode())
    elif sys.stdout.isatty():
        raise UserError(f"{format} is not for a terminal: give a file with -o FILE")
    else:
        with _writing():
            sys.stdout.buffer.write(data)
