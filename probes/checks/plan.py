"""The file of declared checks: TOML, read as strictly as a profile; each mistake has its line.

::

    [[check]]
    name = "residency"
    question = "In which countries does the data lie?"
    owner = "data-protection@example.org"       # a role, or a mailbox
    answer = "Frankfurt only; backups in Berlin"
    evidence = "residency.pdf"                  # beside this file or below it; or https://...
    sha256 = "9f86d081..."                      # of that file when it was declared
    expires = 2027-06-30

What is left out, or empty, is open: a template can be filled in bit by bit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from bench.judge.toml_lines import Path as At
from bench.judge.toml_lines import StrictTable, TomlError, form, line_of, lines_of, parse, refuse, shown

_MOST_BYTES, _MOST_CHECKS = 1 << 20, 500

Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]
Words = Annotated[str, StringConstraints(strip_whitespace=True, max_length=4000)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]


class Check(StrictTable):
    """One question with its answer. ``guidance``: what counts as evidence; ``source``: who asks."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    question: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
    owner: Line = ""
    answer: Words = ""
    evidence: Line = ""
    sha256: Sha256 = ""
    expires: date | None = None
    guidance: Words = ""
    source: Words = ""

    @property
    def is_url(self) -> bool:
        return "://" in self.evidence


class _Checks(StrictTable):
    checks: Annotated[tuple[Check, ...], Field(alias="check", strict=False, min_length=1, max_length=_MOST_CHECKS)]


def read(path: Path) -> str:
    """The text of a regular file of at most 1 MiB. Raises TomlError, one line."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise TomlError((f"{path}: is no regular file; bench checks init writes one",))
            data = file.read(_MOST_BYTES + 1)
            if len(data) > _MOST_BYTES:
                raise TomlError((f"{path}: is larger than {_MOST_BYTES >> 20} MiB, which no file of checks is",))
            return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TomlError((f"{path}:{line}: not UTF-8",)) from error
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise TomlError((f"{path}: {why}; bench checks init writes one",)) from error


def load(text: str, name: str) -> list[tuple[int, Check]]:
    """Each check with its line; ``name`` is the file's. Raises TomlError, with a line for each mistake."""
    raw = parse(text, name)
    mistakes = dict(_form(raw))
    refuse(mistakes | {at: why for at, why in _meaning(raw) if at not in mistakes}, text, name)
    lines = lines_of(text)
    return [(line_of(lines, ("check", i)), check) for i, check in enumerate(_Checks.model_validate(raw).checks)]


def _form(raw: dict[str, Any]) -> Iterator[tuple[At, str]]:
    found = list(form(raw, _Checks, Check, "check"))
    for at, why in found:
        if at == ("check",) and len(found) > 1:
            continue  # pydantic counts a check with a mistake as none
        if at == ("check",) and "at most" in why:
            yield at, f"there are more than {_MOST_CHECKS} [[check]]"
        elif at == ("check",) and "at least" in why:
            yield at, "there is no [[check]]"
        elif at and at[-1] == "sha256" and "lower case" in why:
            yield at, "`sha256` must be 64 hexadecimal digits, as sha256sum prints them"
        elif at and "lower case" in why and at[-1] != "name":
            yield at, f"{shown(at[-1])} must be one line, without control characters"
        else:
            yield at, why


def _meaning(raw: dict[str, Any]) -> Iterator[tuple[At, str]]:
    """Names that are there twice, and evidence that names no file below this one and no web page."""
    seen: set[object] = set()
    checks = raw.get("check")
    for index, check in enumerate(checks if isinstance(checks, list) else ()):
        if not isinstance(check, dict):
            continue
        name, evidence = check.get("name"), check.get("evidence")
        if isinstance(name, str) and name in seen:
            yield ("check", index, "name"), f"the check {shown(name)} is there twice"
        seen.add(name if isinstance(name, str) else None)
        if isinstance(evidence, str) and (why := _no_evidence(evidence)):
            yield ("check", index, "evidence"), f"`evidence` {why}"
        elif check.get("sha256") and not (isinstance(evidence, str) and evidence and "://" not in evidence):
            yield ("check", index, "sha256"), "`sha256` is of a file, and `evidence` names none"


def _no_evidence(text: str) -> str | None:
    if "://" in text:
        try:
            url = urlsplit(text)
            if url.scheme not in ("https", "http") or not url.hostname:
                return "must be a file, or begin with https:// or http://"
        except ValueError:
            return "is no URL"
        return "holds a password, which has no place here" if url.username or url.password else None
    parts = PurePosixPath(text).parts
    return "must lie beside this file, or below it" if parts[:1] == ("/",) or ".." in parts else None
