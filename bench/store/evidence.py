"""``RUN.intoto.json`` and ``RUN.intoto.json.sig`` beside a run, or in a fleet's folder: the statement, its signature.

The statement names every file that it is about by the sha256 of its bytes, as they lie there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bench.measure.regular_files import NotReadable, digest_below, read_below
from bench.store import atomic
from bench.store.errors import StoreError

STATEMENT, SIGNATURE = ".intoto.json", ".sig"
#: More than any raw output (`bench.measure.tools.MAX_OUTPUT_BYTES`), any log of a fleet, or any statement.
_MOST_BYTES = 512 << 20
_MOST_STATEMENT_BYTES, _MOST_SIGNATURE_BYTES = 32 << 20, 1 << 20
_MOST_FILES = 200_000
#: Made anew whenever a fleet is looked at, or no evidence.
_NOT_OF_A_FLEET = ("fleet.html", "stage")


def is_run_name(name: str) -> bool:
    """Whether a file of that name in the store is a run: the statement on one is none."""
    return name.endswith(".json") and not name.startswith(".") and not name.endswith(STATEMENT)


def statement_path(evidence: Path) -> Path:
    """Where the statement lies on the run in that file, or on the fleet in that folder."""
    return evidence / f"fleet{STATEMENT}" if evidence.is_dir() else evidence.with_name(evidence.stem + STATEMENT)


def is_signed(run: Path) -> bool:
    """Whether a statement and a signature lie beside the run; whose it is says `bench verify`."""
    path = statement_path(run)
    return path.is_file() and path.with_name(path.name + SIGNATURE).is_file()


def names_of(evidence: Path) -> list[str]:
    """All that a statement on that run, or fleet, is about: names below the run's own folder, or the fleet's."""
    if evidence.is_dir():
        return sorted(_below(evidence, "", (*_NOT_OF_A_FLEET, f"fleet{STATEMENT}", f"fleet{STATEMENT}{SIGNATURE}")))
    raw = f"{evidence.stem}.raw"
    return [evidence.name, *sorted(_below(evidence.parent, raw, ()))]


def _below(folder: Path, start: str, without: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for place, folders, names in os.walk(folder / start, followlinks=False):
        at = Path(place)
        links = [name for name in folders if (at / name).is_symlink()]
        folders[:] = [name for name in folders if name not in links and not (at == folder and name in without)]
        found += [str((at / name).relative_to(folder)) for name in (*names, *links)]
        if len(found) > _MOST_FILES:
            raise StoreError(f"{folder}: holds more than {_MOST_FILES} files, which no evidence does")
    return [name for name in found if name not in without and not Path(name).name.startswith(".")]


def digests(evidence: Path) -> dict[str, str]:
    """Name -> sha256 of all that a statement is to be about. Raises StoreError."""
    folder, found = (evidence if evidence.is_dir() else evidence.parent), {}
    for name in names_of(evidence):
        try:
            found[name] = digest_below(folder, name, _MOST_BYTES)
        except NotReadable as error:
            raise StoreError(f"{folder / name}: {error}, so it cannot be signed") from error
    return found


def changed(evidence: Path, subjects: Mapping[str, str]) -> list[str]:
    """How the files differ from what the statement is about, one line each."""
    folder, here = (evidence if evidence.is_dir() else evidence.parent), names_of(evidence)
    lines = []
    for name, digest in subjects.items():
        try:
            if digest_below(folder, name, _MOST_BYTES) != digest:
                lines.append(f"{name}: changed since it was signed")
        except NotReadable as error:
            lines.append(f"{name}: {error}")
    return [*lines, *(f"{name}: was added after it was signed" for name in here if name not in subjects)]


def publish(evidence: Path, statement: bytes, signature: bytes) -> Path:
    """Put both in place, of an earlier one too; the statement's path. Raises StoreError."""
    path = statement_path(evidence)
    with atomic.opened(path.parent, alone=True) as fd:
        atomic.replace(path.parent, fd, path.name, statement)
        atomic.replace(path.parent, fd, path.name + SIGNATURE, signature)
    return path


def read(evidence: Path) -> tuple[bytes, bytes]:
    """The statement and its signature. Raises NotReadable, with the name of the file."""
    path = statement_path(evidence)
    found = []
    for name, most in ((path.name, _MOST_STATEMENT_BYTES), (path.name + SIGNATURE, _MOST_SIGNATURE_BYTES)):
        try:
            found.append(read_below(path.parent, name, most))
        except NotReadable as error:
            raise NotReadable(f"{name}: {error}") from error
    return found[0], found[1]
