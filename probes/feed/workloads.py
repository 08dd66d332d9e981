"""Which accelerator and which data the feed probe measures with: published workloads by name, each with its source."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bench.measure.probe import Unsupported
from bench.model import Code

FILE = Path(__file__).with_name("workloads.toml")
#: What a real accelerator is fed with: the samples of image classification, small enough for any host.
DEFAULT = "resnet50"
_YARDSTICK_CARD = "h100"
DEFAULT_EMULATED = f"{DEFAULT}-{_YARDSTICK_CARD}"
_EMULATED = re.compile(r"emulated(?::(?P<name>[A-Za-z0-9_.-]+)(?:\*(?P<count>[1-9][0-9]{0,3}))?)?")


class Workload(BaseModel, frozen=True, defer_build=True):
    """What is read and consumed. ``step_seconds`` is None for a real accelerator, which shows its own.

    ``batch`` is in samples for each accelerator; ``count`` accelerators step together (data-parallel). ``images``: what
    a sample costs a real accelerator, which trains ResNet-50 whatever the samples are.
    """

    name: str
    sample_bytes: int
    sample_sd_bytes: int = 0
    samples_per_file: int = 1
    batch: int
    readers: int = 4
    step_seconds: float | None = None
    count: int = 1
    images: int = 1
    minimum_utilization: float | None = None
    estimate: str | None = None
    source: str

    @property
    def demand_samples_per_second(self) -> float | None:
        """What all accelerators together consume when they never wait."""
        return None if self.step_seconds is None else self.count * self.batch / self.step_seconds


@dataclass(frozen=True, slots=True)
class Accelerator:
    """``kind`` is auto, cuda, cpu or emulated; ``label`` names what is emulated (``resnet50-h100*8``), else empty."""

    kind: str
    workload: Workload
    label: str = ""


@cache
def catalogue(file: Path = FILE) -> dict[str, Workload]:
    """The workloads of a file, each by its name, and as WORKLOAD-CARD for each card that ``--accelerator`` can emulate.

    Raises Unsupported, one line, when it is not such a file.
    """
    found: dict[str, Workload] = {}
    try:
        for name, entry in tomllib.loads(file.read_text(encoding="utf-8")).items():
            plain = {"source": file.name, **entry, "name": name} if isinstance(entry, dict) else {}
            found[name] = _made(name, {**plain, "step_seconds": None})
            for card, own in plain.get("cards", {}).items():
                if (emulated := _made(f"{name}.cards.{card}", {**plain, **own})).step_seconds is None:
                    raise ValueError(f"[{name}.cards.{card}] lacks step_seconds")
                found[f"{name}-{card}"] = emulated
    except (OSError, ValueError, TypeError, AttributeError) as error:
        remedy = "give a workload's name or a TOML file"
        raise Unsupported(Code.WORKLOAD_UNUSABLE, f"{file}: {error}", remedy) from error
    return found


def _made(table: str, values: dict[str, Any]) -> Workload:
    try:
        return Workload(**values)
    except ValidationError as error:
        lacking = [str(problem["loc"][0]) for problem in error.errors()]
        raise ValueError(f"[{table}] has no sound {', '.join(lacking)}") from error


def emulated_names(file: Path = FILE) -> list[str]:
    """Every WORKLOAD-CARD that ``--accelerator emulated:NAME`` accepts."""
    return [name for name, workload in catalogue(file).items() if workload.step_seconds is not None]


def resolve(accelerator: str, workload: str | None = None) -> Accelerator:
    """The request's ``--accelerator`` and ``--workload``. Raises Unsupported with the nearest names.

    ``workload`` is a published name, or a TOML file of the same form whose first table is taken, and whose cards
    then are the names that can be emulated.
    """
    file, name = FILE, workload or DEFAULT
    if name.endswith(".toml"):
        file = Path(name)
        name = next(iter(catalogue(file)), "")
    emulated = emulated_names(file)
    prefixed = [f"emulated:{known}" for known in emulated]
    if match := _EMULATED.fullmatch(accelerator):
        by_preference = sorted(emulated, key=lambda known: known != DEFAULT_EMULATED)
        card = match["name"] or next((known for known in by_preference if known.startswith(f"{name}-")), name)
        if card not in emulated:
            raise _unknown("accelerator", f"emulated:{card}", prefixed)
        count = int(match["count"] or 1)
        work = catalogue(file)[card].model_copy(update={"count": count})
        return Accelerator("emulated", work, card if count == 1 else f"{card}*{count}")
    if accelerator not in ("auto", "cuda", "cpu"):
        raise _unknown("accelerator", accelerator, ["auto", "cuda", "cpu", "emulated", *prefixed])
    if name not in catalogue(file) or name in emulated:
        raise _unknown("workload", name, [known for known in catalogue(file) if known not in emulated])
    return Accelerator(accelerator, catalogue(file)[name].model_copy(update={"images": _images(name, file)}))


def _images(name: str, file: Path) -> int:
    """A sample's cost in images of ResNet-50, by the published steps of both on one card; 1 where there are none."""
    ours, unit = catalogue(file).get(f"{name}-{_YARDSTICK_CARD}"), catalogue()[DEFAULT_EMULATED]
    if ours is None or not ours.demand_samples_per_second or not unit.demand_samples_per_second:
        return 1
    return max(1, round(unit.demand_samples_per_second / ours.demand_samples_per_second))


def _unknown(what: str, name: str, known: Sequence[str]) -> Unsupported:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
    text = f"{name!r} is not known; near it: {', '.join(near)}"
    return Unsupported(Code(f"unknown_{what}"), text, f"known are {', '.join(known)}")
