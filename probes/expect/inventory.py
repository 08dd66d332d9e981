"""What is on this node, as one JSON line. A program of its own: a driver that hangs must not hang the run."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass, field
from typing import Literal

from bench.measure.probe import ProbeError
from bench.measure.procfs import read
from probes.common import nvml
from probes.common.nvml import Card
from probes.common.ports import ports


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card that answers. ``memory_bytes`` is None where the driver does not say."""

    name: str
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """``gpus`` is None where no driver answers; ``why`` says that, or which card does not; ``ports`` are those that are
    up, with their bytes a second where the kernel knows them.
    """

    kind: Literal["inventory"] = "inventory"
    gpus: list[Gpu] | None = None
    why: str = ""
    driver: str | None = None
    memory_bytes: int | None = None
    ports: dict[str, float | None] = field(default_factory=dict)


def inventory() -> Inventory:
    memory = re.search(r"^MemTotal:\s*(\d+) kB", read("/proc/meminfo"), re.M)
    cards, driver, why = _gpus()
    return Inventory(
        gpus=cards,
        why=why,
        driver=driver,
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        ports={name: port.bytes_per_second for name, port in ports().items() if port.active},
    )


def _gpus() -> tuple[list[Gpu] | None, str | None, str]:
    """The cards that answer, the driver's version, and why others do not."""
    try:
        library = nvml.load()
    except ProbeError as error:
        return None, None, error.reason
    driver, hung = nvml.driver_version(library), dict[int, str]()
    try:
        found, hung = nvml.each_card(range(nvml.count_cards(library)), lambda index: _gpu(Card(library, index)))
        absent = hung | {index: card for index, card in found.items() if isinstance(card, str)}
        cards = [card for card in found.values() if isinstance(card, Gpu)]
        return cards, driver, ", ".join(f"GPU {index}: {why}" for index, why in sorted(absent.items()))
    except ProbeError as error:
        return [], driver, error.reason
    finally:
        nvml.close(library, hung)


def _gpu(card: Card) -> Gpu | str:
    """The card, or why it does not answer."""
    facts = card.facts()
    return card.lost or Gpu(str(facts.get("name", "unknown")), facts.get("memory_total"))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(inventory())) + "\n")
