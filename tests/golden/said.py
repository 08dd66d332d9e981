"""What a command says: run in this process, with the width, the encoding and the settings that the goldens have."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cli.app import run

_ENDS = "ends.json"
#: No settings of this machine, and a screen of 100 columns without colour.
_UNSET = ("BENCH_RESULTS", "BENCH_PROFILE", "BENCH_STORAGE", "BENCH_PEER", "BENCH_EFFORT", "BENCH_ACCELERATOR", "LINES")
_SET = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}


@dataclass(frozen=True, slots=True)
class Said:
    """The answer of a command: its exit status and all that it wrote, on standard output as bytes."""

    status: int
    out: bytes
    err: str

    def text(self) -> str:
        return self.out.decode("utf-8")


@contextlib.contextmanager
def _settings(folder: Path, where: Path) -> Iterator[None]:
    before = dict(os.environ)
    for name in _UNSET:
        os.environ.pop(name, None)
    os.environ |= {**_SET, "XDG_CONFIG_HOME": str(where / "config"), "XDG_CACHE_HOME": str(where / "cache")}
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def said(words: Sequence[str], folder: Path, where: Path) -> Said:
    """Run ``bench`` with these words in ``folder``; ``where`` is the place of its settings and its cache."""
    out, err = io.BytesIO(), io.BytesIO()
    screen, errors = io.TextIOWrapper(out, "utf-8", newline=""), io.TextIOWrapper(err, "utf-8", newline="")
    kept = sys.stdout, sys.stderr
    try:
        with _settings(folder, where), contextlib.redirect_stdout(screen), contextlib.redirect_stderr(errors):
            status = run(words)
            screen.flush()
            errors.flush()
    finally:
        sys.stdout, sys.stderr = kept
    return Said(status, out.getvalue(), err.getvalue().decode("utf-8"))


def page(text: str) -> str:
    """A page without what the drawing library decides: of a picture only its words; and without the style sheet."""
    plain = re.sub(r"<style.*?</style>", "<style/>", text, flags=re.S)
    flat = re.sub(r"<svg x=.*?</svg>", lambda found: f"<text>{_words(found[0])}</text>", plain, flags=re.S)  # a mark
    return re.sub(r"<svg.*?</svg>", lambda found: f"<svg>{_words(found[0])}</svg>", flat, flags=re.S)


def _words(picture: str) -> str:
    return " | ".join(filter(None, re.findall(r"<(?:title|text)[^>]*>(.*?)</", picture, re.S)))


def table(parquet: bytes) -> str:
    """A Parquet file as text: its columns with their types, then a line of JSON a row."""
    import pyarrow.parquet

    found = pyarrow.parquet.read_table(io.BytesIO(parquet))
    lines = [f"{field.name}: {field.type}" for field in found.schema]
    return "\n".join([*lines, *(json.dumps(row, ensure_ascii=False, default=str) for row in found.to_pylist())]) + "\n"


def ends(folder: Path) -> dict[str, list[object]]:
    """The exit status and the standard error of each golden of a folder, by the file's name."""
    found: dict[str, list[object]] = json.loads((folder / _ENDS).read_text(encoding="utf-8"))
    return found


def write(folder: Path, found: Mapping[str, tuple[Said, str]]) -> None:
    """Put the goldens of a folder there anew: file name -> the answer, and its text as it is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, (_, text) in found.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    lines = {name: [answer.status, answer.err] for name, (answer, _) in found.items()}
    (folder / _ENDS).write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
