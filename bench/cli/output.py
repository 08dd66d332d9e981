"""Standard output, for people and for programs. A reader that goes away does not change the verdict's status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.judge.profile import Profile
    from bench.model import Run


def emit(text: str) -> None:
    """Write ``text`` and a newline to standard output."""
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit_run(run: Run, profiles: Sequence[Profile], *, quiet: bool = False, all_gates: bool = False) -> None:
    """The verdicts for a person: one screen, or one line a profile."""
    from bench.show import wording as words
    from bench.show.terminal import screen

    if quiet:
        emit("\n".join(f"{v.decision.value} {v.profile} score {words.score(v.score)}" for v in run.verdicts))
    else:
        screen.show(run, all_gates=all_gates, descriptions={p.name: p.description for p in profiles})


def note(text: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(text + "\n")
