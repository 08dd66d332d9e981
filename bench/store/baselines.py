"""``ROOT/baselines/<hostname>.json``: what an operator decided of a node's baseline, pins and resets with reasons.

The nights themselves are the stored runs; nothing of them is repeated here. The file is replaced atomically, by one
writer at a time. An operator may edit it, so what is not understood is refused: ignored, it would be a decision lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, ValidationError, model_validator

from bench.errors import why
from bench.measure.regular_files import NotReadable, read_regular
from bench.model import Frozen, Text
from bench.store import atomic
from bench.store.documents import decoded, first_error
from bench.store.errors import UnusableRun, one_line
from bench.store.index import seconds_of
from bench.store.runs import AHEAD_SECONDS, folder_name

MAX_BYTES = 4 << 20


class Pin(Frozen, extra="forbid"):
    """The acceptance nights: the runs that were pinned, when (RFC 3339) and why."""

    runs: tuple[str, ...]
    at: Text
    reason: Text = ""


class Reset(Frozen, extra="forbid"):
    """Runs that began at or before ``through`` (seconds since 1970, UTC) are no longer part of what is normal."""

    through: FiniteFloat
    at: Text
    reason: Text

    @model_validator(mode="after")
    def _of_nights_that_were(self) -> Self:
        """Else no night until then would be compared with any."""
        if self.through > seconds_of(self.at) + AHEAD_SECONDS:
            raise ValueError("through lies after the time of the decision")
        return self


class Decisions(Frozen, extra="forbid"):
    """All that was decided for one node. Resets are kept, the last one counts; there is one pin or none."""

    schema_name: Annotated[Literal["aiready-bench/baseline"], Field(alias="schema")] = "aiready-bench/baseline"
    schema_version: Literal[1] = 1
    hostname: str
    pin: Pin | None = None
    resets: tuple[Reset, ...] = ()

    @property
    def through(self) -> float:
        """The start of the newest run that a reset took out; minus infinity without a reset."""
        return max((reset.through for reset in self.resets), default=float("-inf"))


def path_of(root: Path, hostname: str) -> Path:
    """Where the decisions on that node lie."""
    return root / "baselines" / f"{folder_name(hostname)}.json"


def read(root: Path, hostname: str) -> Decisions:
    """The decisions on a node; none were made where there is no file. Raises UnusableRun, one line."""
    path = path_of(root, hostname)
    try:
        data = read_regular(path, MAX_BYTES)
        decoded(data)  # no key twice
        found = Decisions.model_validate_json(data, strict=True)
    except FileNotFoundError:
        return Decisions(hostname=hostname)
    except OSError as error:
        raise UnusableRun(one_line(f"{path}: {why(error)}; bench baseline needs to read it")) from error
    except (NotReadable, UnusableRun, ValidationError) as error:
        raise _unusable(path, first_error(error) if isinstance(error, ValidationError) else str(error)) from error
    if found.hostname != hostname:
        raise _unusable(path, f"hostname: is {found.hostname!r}, not {hostname!r}")
    return found


def _unusable(path: Path, wrong: str) -> UnusableRun:
    return UnusableRun(one_line(f"{path}: {wrong}; mend it, or remove it to be without pins and resets"))


def change(root: Path, hostname: str, decide: Callable[[Decisions], Decisions]) -> Decisions:
    """Replace the decisions on a node by what ``decide`` makes of them; return those before. Raises StoreError."""
    path = path_of(root, hostname)
    atomic.make_folder(path.parent)
    with atomic.opened(path.parent, alone=True) as fd:
        before = read(root, hostname)
        after = decide(before).model_dump(mode="json")
        atomic.replace(path.parent, fd, path.name, json.dumps(after, indent=1, ensure_ascii=False).encode() + b"\n")
    return before
