"""A short look at the node's NVIDIA cards for the programs that load them: identity, place, who else is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from probes.common import nvml as _nvml
from probes.common.nvml_card import Card


@dataclass(frozen=True, slots=True)
class Seen:
    """One card before any load of ours: ``processes`` are programs of others; None where they cannot be listed."""

    index: int
    uuid: str
    name: str
    numa: int | None
    processes: int | None


@dataclass(frozen=True, slots=True)
class Survey:
    """``driver`` is None where no NVIDIA driver answers."""

    driver: str | None
    cards: tuple[Seen, ...] = ()

    def by_uuid(self, uuid: str) -> Seen | None:
        """The card with that identity; torch spells it without the ``GPU-`` in front."""
        return next((card for card in self.cards if uuid and card.uuid.endswith(uuid.removeprefix("GPU-"))), None)


def survey() -> Survey:
    """Look once and close NVML again. Never raises: a card that does not answer is left out."""
    driver = _nvml.driver_version()
    if driver is None:
        return Survey(None)
    try:
        nvml = _nvml.load()
    except _nvml.NvmlMissing:
        return Survey(driver)
    try:
        cards = [Card(nvml, index) for index in range(_nvml.device_count())]
        return Survey(driver, tuple(_seen(card) for card in cards if card.lost is None))
    except _nvml.NvmlMissing:
        return Survey(driver)
    finally:
        nvml.nvmlShutdown()


def _seen(card: Card) -> Seen:
    facts, nvml = card.facts(), card.nvml
    others = card.read("processes", lambda h: nvml.nvmlDeviceGetComputeRunningProcesses(h))
    return Seen(
        index=card.index,
        uuid=str(facts.get("uuid", "")),
        name=str(facts.get("name", "")),
        numa=facts.get("numa"),
        processes=None if others is None else len(others),
    )


def energy_reader(uuid: str) -> Callable[[], float | None]:
    """A reader of the card's energy counter, joules since the driver was loaded; None where it has none.

    NVML stays open for as long as this process lives.
    """
    try:
        nvml = _nvml.load()
        count = _nvml.device_count()
    except _nvml.NvmlMissing:
        return lambda: None
    for card in (Card(nvml, index) for index in range(count)):
        found = card.read("uuid", lambda h: _as_text(nvml.nvmlDeviceGetUUID(h)))
        if found and uuid and found.endswith(uuid.removeprefix("GPU-")):
            return lambda: _joules(card)
    return lambda: None


def _joules(card: Card) -> float | None:
    value = card.read("energy", lambda h: card.nvml.nvmlDeviceGetTotalEnergyConsumption(h) / 1e3)
    return None if value is None else float(value)


def _as_text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
