"""A run file is read with suspicion: it may be torn, edited, made by another version, or made to do harm.

Refused with one line: what is not a regular file, above 32 MiB, not UTF-8, not JSON, JSON with duplicate keys (the
last one would win silently), with NaN or infinities, nested beyond reason, with lone surrogates, or not a run.

``python -m bench.store.documents > bench/run.schema.json`` makes the shipped JSON Schema of a run anew from the model.
"""

from __future__ import annotations

import errno
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import first_mistake, why
from bench.measure.regular_files import NotReadable, read_regular
from bench.model import SCHEMA, SCHEMA_VERSION, Run
from bench.store.errors import UnusableRun, one_line

MAX_BYTES = 32 << 20

Document = dict[str, Any]
#: From version N to N + 1. Version 1 is the first, so there is none yet; an old run is brought up one step at a time.
_UPGRADES: dict[int, Callable[[Document], Document]] = {}

_AGAIN = "name another run, or measure again with: bench run"
_DENIED = "permission denied; read it as its owner, or as a member of its group"
_REFUSED = {
    errno.ELOOP: "is a symbolic link, which is not followed here; name the file itself",
    errno.EISDIR: "is a folder; name the .json file that bench run wrote",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
}


def load(path: Path, *, follow: bool = True) -> Run:
    """The run in that file. ``follow=False`` refuses a symbolic link (as when a folder is listed).

    Raises UnusableRun with one line that names the file, the place in it and the way out.
    """
    try:
        return parse(_read(path, follow))
    except UnusableRun as error:
        raise UnusableRun(one_line(f"{path}: {error}")) from error


def parse(data: bytes) -> Run:
    """The run in these bytes of JSON. Raises UnusableRun, without the name of the file."""
    try:
        document = decoded(data)
    except UnusableRun as error:
        raise UnusableRun(f"{error}; {_AGAIN}") from error
    if not isinstance(document, dict):
        raise UnusableRun(f"is JSON, but not a run document; {_AGAIN}")
    version = _version(document)
    if version < SCHEMA_VERSION:
        data = json.dumps(_upgraded(document, version)).encode()
    try:
        return Run.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise UnusableRun(f"{first_error(error)}; {_AGAIN}") from error


def _read(path: Path, follow: bool) -> bytes:
    try:
        return read_regular(path, MAX_BYTES, follow=follow)
    except OSError as error:
        raise UnusableRun(_REFUSED.get(error.errno or 0, f"{why(error)}; {_AGAIN}")) from error
    except NotReadable as error:
        raise UnusableRun(f"{error}; name the .json file that bench run wrote") from error
    except ValueError as error:  # a NUL in the name
        raise UnusableRun("is not a file name; name the .json file that bench run wrote") from error


def decoded(data: bytes) -> object:
    """The JSON in these bytes, its numbers all finite and no key twice, as json.loads alone does not ask.

    Raises UnusableRun with what is wrong and where, without the way out.
    """
    if not data.strip():
        raise UnusableRun("is empty")
    odd: list[float] = []

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            odd.append(value)
        return value

    hooks: dict[str, Any] = {"object_pairs_hook": _no_duplicates, "parse_float": number, "parse_constant": number}
    try:
        found: object = json.loads(data.decode("utf-8"), **hooks)
    except UnicodeDecodeError as error:
        raise UnusableRun(f"byte {error.start}: not UTF-8") from error
    except json.JSONDecodeError as error:
        raise UnusableRun(f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise UnusableRun("is nested too deeply") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise UnusableRun("a number in it is too long") from error
    if odd:  # only then is the document walked through for its place: ten thousand of a fleet are read at a time
        _refuse_odd(found)
    return found


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Document:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise UnusableRun(f"the key {key[:60]!r} stands twice in one object")
            seen.add(key)
    return document


def _refuse_odd(found: object) -> None:
    """Raise UnusableRun with the place of a number that is not finite."""
    pending: list[tuple[str, object]] = [("", found)]
    while pending:
        place, value = pending.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise UnusableRun(f"{place[1:]}: Input should be a finite number")
        if isinstance(value, dict):
            pending += [(f"{place}.{key}", child) for key, child in value.items()]
        elif isinstance(value, list):
            pending += [(f"{place}.{index}", child) for index, child in enumerate(value)]


def _version(document: Document) -> int:
    if document.get("schema") != SCHEMA:
        raise UnusableRun(f"schema: is not {SCHEMA!r}, so this is not a run; name a file that bench run wrote")
    version = document.get("schema_version")
    if type(version) is not int or version < 1:
        raise UnusableRun(f"schema_version: Input should be a whole number from 1; {_AGAIN}")
    if version > SCHEMA_VERSION:
        raise UnusableRun(
            f"schema_version: {version} was written by a newer version, this one reads up to {SCHEMA_VERSION}; "
            "upgrade with: pip install --upgrade aiready-bench"
        )
    return version


def _upgraded(document: Document, version: int) -> Document:
    for step in range(version, SCHEMA_VERSION):
        if step not in _UPGRADES:
            raise UnusableRun(f"schema_version: no way from {step} to {step + 1} is known; {_AGAIN}")
        document = {**_UPGRADES[step](document), "schema_version": step + 1}
    return document


def first_error(error: ValidationError) -> str:
    """``results.0.measurements.2.value: Input should be a finite number``, and how many more there are."""
    (place, wrong), more = first_mistake(error), error.error_count() - 1
    return (f"{place}: " if place else "") + wrong + (f" (and {more} more)" if more else "")


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what ``Store.save`` writes and ``load`` reads."""
    schema = Run.model_json_schema(by_alias=True, mode="serialization")
    head: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('/', ':')}:{SCHEMA_VERSION}",
        "title": f"{SCHEMA}, version {SCHEMA_VERSION}",
    }
    return head | schema | head | {"required": ["schema", "schema_version", *schema["required"]]}


def schema_text() -> str:
    """The schema as it is shipped and printed."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
