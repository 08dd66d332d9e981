"""The door to NVML (nvidia-ml-py). pynvml is imported inside of the functions; nothing here lets its errors out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.model import Code
from probes.common.nvml_card import Card

_DRIVER_REMEDY = "install the NVIDIA driver (https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/)"


class NvmlMissing(Exception):
    """No NVML on this node: the reason, which starts with a machine-readable word, and what mends it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class NvmlBroken(NvmlMissing):
    """NVML is there and should have worked."""


def load() -> Any:
    """pynvml, initialised. Raises NvmlMissing where there is no driver or library, NvmlBroken where it fails."""
    try:
        import pynvml
    except ImportError as error:
        reason = f"{Code.NVML_MISSING}: nvidia-ml-py cannot be imported: {error}"
        raise NvmlMissing(reason, "pip install nvidia-ml-py") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound as error:
        reason = f"{Code.NVML_MISSING}: no libnvidia-ml.so.1: no NVIDIA driver is installed"
        raise NvmlMissing(reason, _DRIVER_REMEDY) from error
    except pynvml.NVMLError_DriverNotLoaded as error:
        reason = f"{Code.NVML_MISSING}: the NVIDIA driver is installed but not loaded"
        raise NvmlMissing(reason, "modprobe nvidia; dmesg | grep -i nvrm") from error
    except pynvml.NVMLError_LibRmVersionMismatch as error:
        reason = f"{Code.NVML_BROKEN}: the NVIDIA library and the loaded kernel module are of different versions"
        raise NvmlBroken(reason, "reboot, so that the installed driver is loaded") from error
    except pynvml.NVMLError as error:
        raise NvmlBroken(f"{Code.NVML_BROKEN}: NVML does not start: {error}", "nvidia-smi") from error
    return pynvml


def device_count() -> int:
    """How many cards the driver has, at least one. NVML is loaded. Raises NvmlMissing, NvmlBroken."""
    import pynvml

    try:
        count = int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError as error:
        raise NvmlBroken(f"{Code.NVML_BROKEN}: the driver cannot count its GPUs: {error}", "nvidia-smi") from error
    if count == 0:
        raise NvmlMissing(f"{Code.NO_GPU}: the NVIDIA driver runs but sees no GPU", "lspci | grep -i nvidia")
    return count


def driver_version() -> str | None:
    """The driver's version, or None where no NVIDIA driver answers."""
    try:
        pynvml = load()
    except NvmlMissing:
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except (pynvml.NVMLError, ValueError):
        return "of unknown version"
    finally:
        pynvml.nvmlShutdown()


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
    driver = driver_version()
    if driver is None:
        return Survey(None)
    try:
        nvml = load()
    except NvmlMissing:
        return Survey(driver)
    try:
        cards = [Card(nvml, index) for index in range(device_count())]
        return Survey(driver, tuple(_seen(card) for card in cards if card.lost is None))
    except NvmlMissing:
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
        nvml = load()
        count = device_count()
    except NvmlMissing:
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
