"""What several commands take on the command line, and the values that their words stand for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from bench.errors import UserError

Word = str | None
Words = list[str] | None
File = Path | None

RunArgument = Annotated[
    Word, Argument(metavar="[RUN]", help="A run file, an id or its beginning; default: this node's newest.")
]
Results = Annotated[File, Option(envvar="BENCH_RESULTS", help="Where runs are stored.")]
NodeOption = Annotated[
    Word, Option("--node", "--host", help="Host name of the node; default: this one, or the only one stored.")
]
Output = Annotated[File, Option("--output", "-o", help="File to put in place, atomically; default: standard output.")]
Json = Annotated[bool, Option("--json", help="One JSON document on standard output.")]
Quiet = Annotated[bool, Option("--quiet", help="One line a profile.")]
AllGates = Annotated[bool, Option("--all-gates", help="A line for every gate, passes too.")]
ExitZero = Annotated[bool, Option("--exit-zero", help="Status 0 whatever the verdict.")]
Profiles = Annotated[Words, Option(envvar="BENCH_PROFILE", help="Profile by name or file; again for more.")]
Directories = Annotated[list[Path] | None, Option(envvar="BENCH_STORAGE", help="Directory to measure; again for more.")]
Peers = Annotated[Words, Option(envvar="BENCH_PEER", help="HOST[:PORT] of a `bench peer`; again for more.")]
Accelerator = Annotated[Word, Option(envvar="BENCH_ACCELERATOR", help="auto, cuda, cpu or emulated[:NAME].")]

# --- of `bench fleet join` and `export`

Expect = Annotated[Word, Option(help="The hosts that were named: a file with one a line, or HOST,HOST,...")]
Newest = Annotated[bool, Option("--newest", help="Of several runs of a host the newest counts.")]
Against = Annotated[File, Option(metavar="DIR", help="An earlier fleet run: judge what moved on all nodes together.")]
Again = Annotated[File, Option(metavar="DIR", help="A second measurement of the same hosts, which confirms.")]

# --- what the words stand for

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)?")
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def duration(text: str, option: str) -> float:
    """``26h``, ``10m``, ``90`` (seconds) as seconds. Raises UserError that names the option."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise UserError(f"{option} {text}: must be a number with s, m, h, d or w behind it, 26h say")
    return float(found[1]) * _SECONDS[found[2] or "s"]


def age(max_age: str | None) -> float | None:
    """What --max-age stands for, in seconds."""
    return None if max_age is None else duration(max_age, "--max-age")


def paths(words: Words) -> str | None:
    """Several paths as the text of one option: a JSON list of absolute ones. Raises UserError for what is no path."""
    for word in words or []:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UserError(f"{word!a}: a path that is no UTF-8 cannot be named in a run; give it by a link")
    return json.dumps([str(Path(word).absolute()) for word in words]) if words else None


def ratio(text: str, option: str) -> float:
    """``20%`` or ``0.2`` as 0.2. Raises UserError that names the option."""
    try:
        value = float(text.rstrip("% ")) / (100.0 if text.rstrip().endswith("%") else 1.0)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1.0:
        raise UserError(f"{option} {text}: must be a share between 0 and 1, 3% or 0.03 say")
    return value
