"""``ROOT/baselines/<hostname>.json``: what an operator decided of a node's baseline, pins and resets with reasons.

The nights themselves are the stored runs; nothing of them is repeated here. The file is replaced atomically, and one
writer at a time holds the folder's lock.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, ValidationError

from bench.model import Frozen, Text
from bench.store import atomic
from bench.store.errors import UnusableRun, one_line, why
from bench.store.runs import folder_name

MAX_BYTES = 4 << 20


class Pin(Frozen):
    """The acceptance nights: the runs that were pinned, when (RFC 3339) and why."""

    runs: tuple[str, ...]
    at: Text
    reason: Text = ""


class Reset(Frozen):
    """Runs that began at or before ``through`` (seconds since 1970, UTC) are no longer part of what is normal."""

    through: FiniteFloat
    at: Text
    reason: Text


class Decisions(Frozen):
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
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except FileNotFoundError:
        return Decisions(hostname=hostname)
    except OSError as error:
        raise UnusableRun(one_line(f"{path}: {why(error)}; bench baseline needs to read it")) from error
    try:
        return Decisions.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        wrong = f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UnusableRun(one_line(f"{wrong}; mend it, or remove it to be without pins and resets")) from error


def write(root: Path, decisions: Decisions) -> Path:
    """Replace the decisions on a node. Raises StoreError."""
    path = path_of(root, decisions.hostname)
    data = json.dumps(decisions.model_dump(mode="json"), indent=1, ensure_ascii=False).encode() + b"\n"
    atomic.make_folder(path.parent)
    with atomic.opened(path.parent, alone=True) as fd:
        atomic.replace(path.parent, fd, path.name, data)
    return path
