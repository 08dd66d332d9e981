"""Which accelerator and which data the feed probe measures with: published workloads by name, each with its source."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.measure.probe import Unsupported
from bench.model import Code

FILE = Path(__file__).with_name("workloads.toml")
#: What a real accelerator is fed with: the samples of image classification, small enough for any host.
DEFAULT = "resnet50"
DEFAULT_EMULATED = "resnet50-h100"
_EMULATED = re.compile(r"emulated(?::(?P<name>[A-Za-z0-9_.-]+)(?:\*(?P<count>[1-9][0-9]{0,3}))?)?")
_NEEDED = {"sample_bytes", "batch"}


@dataclass(frozen=True, slots=True)
class Workload:
    """What is read and consumed. ``step_seconds`` is None for a real accelerator, which shows its own.

    ``batch`` is in samples for each accelerator; ``count`` accelerators step together (data-parallel).
    """

    name: str
    sample_bytes: int
    sample_sd_bytes: int
    samples_per_file: int
    batch: int
    readers: int
    step_seconds: float | None
    count: int = 1
    minimum_utilization: float | None = None
    estimate: str | None = None
    source: str = ""

    @property
    def demand_samples_per_second(self) -> float | None:
        """What all accelerators together consume when they never wait."""
        return None if self.step_seconds is None else self.count * self.batch / self.step_seconds

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """``kind`` is auto, cuda, cpu or emulated; ``label`` names what is emulated (``resnet50-h100*8``), else empty."""

    kind: str
    workload: Workload
    label: str = ""


@cache
def catalogue(file: Path = FILE) -> dict[str, dict[str, Any]]:
    """The workloads of a file, by name. Raises Unsupported, one line, when it is not such a file."""
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Unsupported(
            Code.WORKLOAD_UNUSABLE, f"{file}: {error}", "give a workload's name or a TOML file"
        ) from error
    for name, entry in found.items():
        lacking = _NEEDED - set(entry) if isinstance(entry, dict) else _NEEDED
        if lacking:
            raise Unsupported(Code.WORKLOAD_UNUSABLE, f"{file}: [{name}] lacks {', '.join(sorted(lacking))}")
    return found


def emulated_names(file: Path = FILE) -> list[str]:
    """Every WORKLOAD-CARD that ``--accelerator emulated:NAME`` accepts."""
    return [f"{name}-{card}" for name, entry in catalogue(file).items() for card in entry.get("cards", {})]


def resolve(accelerator: str, workload: str | None = None) -> Accelerator:
    """The request's ``--accelerator`` and ``--workload``. Raises Unsupported with the nearest names.

    ``workload`` is a published name, or a TOML file of the same form whose first table is taken, and whose cards
    then are the names that can be emulated.
    """
    file, name = _file_and_name(workload)
    match = _EMULATED.fullmatch(accelerator)
    if match:
        return _emulated(file, match["name"] or _default_emulated(file, name), int(match["count"] or 1))
    if accelerator not in ("auto", "cuda", "cpu"):
        raise _unknown("accelerator", accelerator, ["auto", "cuda", "cpu", "emulated", *_with_prefix(file)])
    if name not in catalogue(file):
        raise _unknown("workload", name, list(catalogue(file)))
    return Accelerator(accelerator, _workload(file, name, None, 1))


def _file_and_name(workload: str | None) -> tuple[Path, str]:
    if workload is not None and workload.endswith(".toml"):
        file = Path(workload)
        return file, next(iter(catalogue(file)), "")
    return FILE, workload or DEFAULT


def _default_emulated(file: Path, name: str) -> str:
    if file == FILE and name == DEFAULT:
        return DEFAULT_EMULATED
    return next((known for known in emulated_names(file) if known.startswith(f"{name}-")), name)


def _emulated(file: Path, name: str, count: int) -> Accelerator:
    workload, _, card = name.rpartition("-")
    if name not in emulated_names(file):
        raise _unknown("accelerator", f"emulated:{name}", _with_prefix(file))
    label = name if count == 1 else f"{name}*{count}"
    return Accelerator("emulated", _workload(file, workload, card, count), label)


def _with_prefix(file: Path) -> list[str]:
    return [f"emulated:{name}" for name in emulated_names(file)]


def _workload(file: Path, name: str, card: str | None, count: int) -> Workload:
    entry = catalogue(file)[name]
    values: Mapping[str, Any] = {**entry, **(entry.get("cards", {}).get(card, {}) if card else {})}
    return Workload(
        name=name,
        sample_bytes=int(values["sample_bytes"]),
        sample_sd_bytes=int(values.get("sample_sd_bytes", 0)),
        samples_per_file=int(values.get("samples_per_file", 1)),
        batch=int(values["batch"]),
        readers=int(values.get("readers", 4)),
        step_seconds=float(values["step_seconds"]) if card else None,
        count=count,
        minimum_utilization=values.get("minimum_utilization"),
        estimate=values.get("estimate"),
        source=str(values.get("source", file.name)),
    )


def _unknown(what: str, name: str, known: list[str]) -> Unsupported:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
    text = f"{name!r} is not known; near it: {', '.join(near)}"
    return Unsupported(Code(f"unknown_{what}"), text, f"known are {', '.join(known)}")
