"""What the feed's child program is told to do, as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


class Refused(Exception):
    """This cannot be measured here; ``word`` is machine-readable."""

    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word = word


@dataclass(frozen=True, slots=True)
class Row:
    """One arm of the schedule. Seconds left out at its begin, needed after that, and allowed until it is flat.

    A ``mend`` row tries another way to read, and only if storage turned out to be what lacks.
    """

    arm: str
    turn: int
    warm: float
    shortest: float
    longest: float
    mend: bool = False
    workers: int | None = None
    block_bytes: int | None = None
    buffered: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """What to measure. Bytes and seconds; ``demand`` in samples a second, None for a real accelerator.

    ``bucket`` (bytes a second, burst bytes) reads from an exact software rate in place of files: calibration.
    ``files`` are existing files to read in place of our own; ``buffered`` leaves O_DIRECT out, as where there is none.
    """

    folder: str
    accelerator: str  # emulated, cpu, cuda, auto
    sample_bytes: int
    sample_sd_bytes: int
    samples_per_file: int
    batch: int
    count: int
    demand: float | None
    data_bytes: int
    layout_seconds: float
    schedule: tuple[Mapping[str, Any], ...]
    deadline_seconds: float
    workers: int = 16
    readers: int = 4
    decode: str = "none"
    loader: str | None = None
    pattern: str = "batch"
    sequential: bool = False
    seed: int = 7
    bucket: tuple[float, float] | None = None
    files: tuple[str, ...] = ()
    buffered: bool = False

    @staticmethod
    def parse(text: str) -> Spec:
        """Raises ValueError for anything that is not such an object."""
        values = json.loads(text)
        known = {field.name for field in fields(Spec)}
        if not isinstance(values, dict) or set(values) - known:
            raise ValueError(f"not a feed specification: {text[:200]}")
        converted: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return Spec(**converted)

    def rows(self) -> list[Row]:
        return [Row(**row) for row in self.schedule]
