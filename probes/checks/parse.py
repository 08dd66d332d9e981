"""Which checks are open, which expired, and why: one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from bench.measure import jsonl
from bench.measure.probe import Failed
from bench.model import Code, Measurement, Source
from probes.checks.look import LookedCheck, LookedFile
from probes.common.metrics import figure

OPEN, EXPIRED = "checks_open", "checks_expired"
_MOST_LINES = 50


def parse(text: str) -> tuple[LookedFile, list[LookedCheck]]:
    """The file and its checks, as `probes.checks.look` printed them. Raises Failed."""
    kinds: dict[str, type[LookedFile | LookedCheck] | None] = {"file": LookedFile, "check": LookedCheck}
    rows = jsonl.records(text, "the look at the checks", kinds)
    files = [row for row in rows if isinstance(row, LookedFile)]
    checks = [row for row in rows if isinstance(row, LookedCheck)]
    if len(files) != 1 or not checks:
        raise Failed(Code.EMPTY, "the look at the checks told of none")
    return files[0], checks


def figures(file: LookedFile, checks: Sequence[LookedCheck]) -> list[Measurement]:
    """How many are open and how many expired, of so many."""
    opened = sum(any(still_open(check)) for check in checks)
    expired = sum(is_expired(check, file.today) for check in checks)
    return [figure(OPEN, opened, {}, n=len(checks)), figure(EXPIRED, expired, {}, n=len(checks))]


def told(file: LookedFile, checks: Sequence[LookedCheck]) -> list[str]:
    """``checks.toml:12: residency: no owner, expired on 2026-01-31``, for each that does not stand."""
    lines = []
    for check in checks:
        why = [*still_open(check), *([f"expired on {check.expires}"] if is_expired(check, file.today) else [])]
        lines += [f"{file.name}:{check.line}: {check.name}: {', '.join(why)}"] if why else []
    more = len(lines) - _MOST_LINES
    return lines if more <= 0 else [*lines[:_MOST_LINES], f"{file.name}: {more} more checks do not stand"]


def sources(file: LookedFile, checks: Sequence[LookedCheck]) -> Iterator[Source]:
    """The digests of the file and of the evidence."""
    yield Source(kind="checks", name=file.name, sha256=file.sha256)
    for check in checks:
        if check.found:
            yield Source(kind="evidence", name=check.evidence, sha256=check.found)


def still_open(check: LookedCheck) -> Iterator[str]:
    """What is missing, or no longer true, of a check."""
    fields = {"owner": check.owner, "answer": check.answer, "evidence": check.evidence, "expiry": check.expires}
    yield from (f"no {name}" for name, value in fields.items() if not value)
    if check.why:
        yield f"its evidence {check.evidence} {check.why}"
    elif check.found and not check.declared:
        yield f'its evidence is not held: add sha256 = "{check.found}"'
    elif check.found != check.declared:
        yield f"its evidence {check.evidence} changed since it was declared; it is {check.found} now"


def is_expired(check: LookedCheck, today: str) -> bool:
    """It counts to the end of its last day. Raises Failed for what is no date."""
    try:
        return bool(check.expires) and date.fromisoformat(check.expires) < date.fromisoformat(today)
    except ValueError as error:
        raise Failed(Code.TOOL_OUTPUT, f"the look at the checks: {error}") from error
