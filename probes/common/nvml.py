"""NVIDIA cards through NVML (nvidia-ml-py). pynvml is imported inside of the functions.

Every call's failure, whatever its kind, is its own: it costs that figure and nothing else. A call that this card,
driver or user can never answer (not supported, no such symbol, no permission) is made once and then left out, with the
reason kept; a lost card is not asked again.
"""

from __future__ import annotations

import math
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bench.measure.probe import Failed, ProbeError, Unsupported
from bench.model import Code
from probes.common.threads import ThreadEach

T = TypeVar("T")

#: Errors after which the same call is not made again.
_FOR_EVER = frozenset({"NotSupported", "FunctionNotFound", "NoPermission", "ArgumentVersionMismatch"})
_LOST = frozenset({"GpuIsLost", "GpuNotFound", "ResetRequired"})
_VALUE_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t

#: Cumulative nanoseconds in which a reason held the clocks down (nvml.h, NVML_FI_DEV_CLOCKS_EVENT_REASON_*).
THROTTLE_FIELDS = {
    "sw_power_cap": 74,
    "sync_boost": 76,
    "sw_thermal_slowdown": 269,
    "hw_thermal_slowdown": 270,
    "hw_power_brake_slowdown": 271,
}
_FAST_FIELDS = {**THROTTLE_FIELDS, "pcie_send": 197, "pcie_receive": 198, "memory_temperature": 82}  # PCIe: bytes
_HEALTH_FIELDS = {"recovery_action": 230, "nvlink_recoveries": 215}
_MAX_UTILIZATION = 100
CARD_SECONDS = 10.0  # to touch a card for the first time
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_PCI = Path("/sys/bus/pci/devices")


def load() -> Any:
    """Return pynvml, initialised. Raises Unsupported where there is no driver or library, Failed where it fails."""
    try:
        import pynvml
    except ImportError as error:
        reason = f"nvidia-ml-py cannot be imported: {error}"
        raise Unsupported(Code.NVML_MISSING, reason, "pip install nvidia-ml-py") from error
    try:
        pynvml.nvmlInit()
    except Exception as error:
        raise _start_error(error) from error
    return pynvml


def _start_error(error: Exception) -> ProbeError:
    match error_name(error):
        case "LibraryNotFound":
            remedy = "install the NVIDIA driver (https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/)"
            return Unsupported(Code.NVML_MISSING, "no libnvidia-ml.so.1: no NVIDIA driver is installed", remedy)
        case "DriverNotLoaded":
            reason = "the NVIDIA driver is installed but not loaded"
            return Unsupported(Code.NVML_MISSING, reason, "modprobe nvidia; dmesg | grep -i nvrm")
        case "LibRmVersionMismatch":
            reason = "the NVIDIA library and the loaded kernel module are of different versions"
            return Failed(Code.NVML_BROKEN, reason, "reboot, so that the installed driver is loaded")
    return Failed(Code.NVML_BROKEN, f"NVML does not start: {error}", "nvidia-smi")


def count_cards(nvml: Any) -> int:
    """How many cards the driver has, at least one; none is touched. Raises Unsupported where there is none, Failed."""
    try:
        count = int(nvml.nvmlDeviceGetCount())
    except Exception as error:
        raise Failed(Code.NVML_BROKEN, f"the driver cannot count its GPUs: {error}", "nvidia-smi") from error
    if count == 0:
        raise Unsupported(Code.NO_GPU, "the NVIDIA driver runs but sees no GPU", "lspci | grep -i nvidia")
    return count


def our_cards(nvml: Any, count: int) -> list[int]:
    """Those of ``count`` that CUDA has too, touched only if named by identity. Raises Unsupported if all are hidden."""
    words = os.environ.get(_VISIBLE)
    if words is None:
        return list(range(count))
    uuids = each_card(range(count), lambda index: Card(nvml, index).uuid())[0] if "GPU-" in words else {}
    ours = sorted(set(_visible(words, count, lambda index: uuids.get(index, ""))))
    if not ours:
        raise Unsupported(Code.NO_GPU, f"{_VISIBLE}={words!r} hides all {count} GPUs of this node", f"unset {_VISIBLE}")
    return ours


def each_card(cards: Sequence[int], ask: Callable[[int], T]) -> tuple[dict[int, T], dict[int, str]]:
    """What each answers on its own thread, and why those that hang do not."""
    with closing(ThreadEach(cards)) as threads:
        return threads.each(ask, CARD_SECONDS), threads.hung


def _visible(words: str, count: int, uuid_of: Callable[[int], str]) -> list[int]:
    """Which cards CUDA_VISIBLE_DEVICES names, by NVML's number, which is PCI's order; ours is set to that for CUDA too.

    Numbers, or the beginnings of identities, as the first one is; what is no card ends the list, and what is there
    twice leaves none (CUDA Programming Guide, "CUDA Environment Variables"; `torch.cuda._parse_visible_devices`). The
    new names of MIG slices do not say which card they are of: then it may be any.
    """
    found: dict[str, int] = {}
    by_identity = words.strip().startswith(("GPU-", "MIG-"))
    for word in (word.strip() for word in words.split(",")):
        start = word.removeprefix("MIG-").partition("/")[0]
        if by_identity and word.startswith("MIG-") and not start.startswith("GPU-"):
            return list(range(count))
        if by_identity:
            named = [i for i in range(count) if start.startswith("GPU-") and uuid_of(i).startswith(start)]
        else:
            digits = re.match(r"\+?(\d{1,9})", word, re.ASCII)  # "1gpu" is 1, as for strtoul
            named = [int(digits[1])] if digits and int(digits[1]) < count else []
        if len(named) != 1:
            break
        key = word if by_identity else str(named[0])
        if key in found:
            return []
        found[key] = named[0]
    return list(found.values())


def close(nvml: Any, hung: Mapping[int, str]) -> None:
    """End NVML, but not beside a call that hangs; a driver that cannot even do that has nothing more to say."""
    with suppress(Exception):
        if not hung:
            nvml.nvmlShutdown()


def driver_version(nvml: Any) -> str:
    try:
        return _text(nvml.nvmlSystemGetDriverVersion())
    except Exception:  # noqa: BLE001 - whatever it is, the version alone is missing
        return "of unknown version"


def error_name(error: Exception) -> str:
    """``NVMLError_NotSupported`` to ``NotSupported``; the first line of anything else."""
    name = type(error).__name__
    if name.startswith("NVMLError_"):
        return name.removeprefix("NVMLError_")
    return (str(error).strip().splitlines() or [name])[0][:60]


class Readable(ABC):
    """Readings of one card as plain data. ``errors`` holds, by reading, why it has no value; ``lost`` why none will."""

    def __init__(self, index: int, handle: Any) -> None:
        self.index, self.handle = index, handle
        self.errors: dict[str, str] = {}
        self.lost: str | None = None

    def read(self, name: str, call: Callable[[Any], T]) -> T | None:
        """``call(handle)``, or None with the reason in ``errors``; "N/A" is a driver's way to say that it has none."""
        if self.lost is not None or self.errors.get(name) in _FOR_EVER:
            return None
        try:
            value = call(self.handle)
        except Exception as error:  # noqa: BLE001 - a driver and its binding raise much besides NVMLError
            self.errors[name] = error_name(error)
            if self.errors[name] in _LOST:
                self.lost = self.errors[name]
            return None
        if value is None or value == "N/A":
            self.errors[name] = "N/A"
            return None
        self.errors.pop(name, None)
        return value

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What does not change: name, identity, largest link, power limits. Watts, hertz, bytes."""

    @abstractmethod
    def fast(self) -> dict[str, Any]:
        """The set that is read once a second: no call of it takes longer than some microseconds on a sound driver."""

    def reasons(self) -> int | None:
        """The bits that say why the clocks are held down now; None where there are none to read."""
        return None

    @abstractmethod
    def health(self) -> dict[str, Any]:
        """The set that is read at first, and before and after each probe; never during a stage."""

    def read_all(self, calls: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
        """By name, what each call makes of the card's handle; those that it cannot give are left out."""
        return {name: value for name, call in calls.items() if (value := self.read(name, call)) is not None}


class Card(Readable):
    """An NVIDIA card."""

    def __init__(self, nvml: Any, index: int, uuid: str | None = None) -> None:
        """``uuid`` finds it in place of its index, and no other card is touched for that."""
        super().__init__(index, None)
        self.nvml, self._last_sample = nvml, 0
        find, key = (nvml.nvmlDeviceGetHandleByUUID, uuid) if uuid else (nvml.nvmlDeviceGetHandleByIndex, index)
        self.handle = self.read("handle", lambda _: find(key))
        self.lost = self.errors.get("handle")

    def facts(self) -> dict[str, Any]:
        n = self.nvml
        return self.read_all({
            "name": lambda h: _text(n.nvmlDeviceGetName(h)),
            "uuid": lambda h: _text(n.nvmlDeviceGetUUID(h)),
            "bus": lambda h: _text(n.nvmlDeviceGetPciInfo(h).busId),
            "memory_total": lambda h: n.nvmlDeviceGetMemoryInfo(h).total,
            "max_generation": n.nvmlDeviceGetMaxPcieLinkGeneration,
            "card_generation": n.nvmlDeviceGetGpuMaxPcieLinkGeneration,
            "max_width": n.nvmlDeviceGetMaxPcieLinkWidth,
            "max_sm_clock": lambda h: n.nvmlDeviceGetMaxClockInfo(h, n.NVML_CLOCK_SM) * 1e6,
            "power_limit": lambda h: n.nvmlDeviceGetEnforcedPowerLimit(h) / 1e3,
            "default_power_limit": lambda h: n.nvmlDeviceGetPowerManagementDefaultLimit(h) / 1e3,
        })  # fmt: skip

    def fast(self) -> dict[str, Any]:
        n = self.nvml
        found = self.read_all({
            "utilization": lambda h: n.nvmlDeviceGetUtilizationRates(h).gpu / _MAX_UTILIZATION,
            "memory_used": lambda h: n.nvmlDeviceGetMemoryInfo(h).used,
            "power": lambda h: n.nvmlDeviceGetPowerUsage(h) / 1e3,
            "energy": self._joules,
            "temperature": self._temperature,
            "sm_clock": lambda h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM) * 1e6,
            "memory_clock": lambda h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM) * 1e6,
            "reasons": self._reasons,
            "generation": n.nvmlDeviceGetCurrPcieLinkGeneration,
            "width": n.nvmlDeviceGetCurrPcieLinkWidth,
            "buffer": self._utilization_buffer,
        })  # fmt: skip
        return {**found, **self._fields(_FAST_FIELDS)}

    def health(self) -> dict[str, Any]:
        n = self.nvml
        found = self.read_all({
            "ecc_mode": lambda h: list(n.nvmlDeviceGetEccMode(h)),
            "ecc_uncorrected": lambda h: self._ecc(h, n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            "ecc_corrected": lambda h: self._ecc(h, n.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            "remapped": lambda h: list(n.nvmlDeviceGetRemappedRows(h)),
            "replays": n.nvmlDeviceGetPcieReplayCounter,
            "persistence": n.nvmlDeviceGetPersistenceMode,
            "mig": lambda h: list(n.nvmlDeviceGetMigMode(h)),
            "processes": lambda h: [process.pid for process in n.nvmlDeviceGetComputeRunningProcesses(h)],
            "nvlinks": self._nvlinks,
            "nvlink_errors": self._nvlink_errors,
        })  # fmt: skip
        return {**found, **self._fields(_HEALTH_FIELDS)}

    def reasons(self) -> int | None:
        return self.read("reasons", self._reasons)

    def uuid(self) -> str:
        """Its identity; empty where it has none to say."""
        return self.read("uuid", lambda h: _text(self.nvml.nvmlDeviceGetUUID(h))) or ""

    def cpus(self) -> frozenset[int]:
        """The CPUs beside it: of the driver, else of the kernel; empty where neither says."""
        masks = self.read("cpus", lambda h: self.nvml.nvmlDeviceGetCpuAffinity(h, 1 + (os.cpu_count() or 1) // 64))
        near = frozenset(64 * i + bit for i, mask in enumerate(masks or ()) for bit in range(64) if mask >> bit & 1)
        if near:
            return near
        bus = self.read("bus", lambda h: _text(self.nvml.nvmlDeviceGetPciInfo(h).busId)) or ""
        with suppress(OSError, ValueError):  # NVML's domain has eight digits, the kernel's four
            return frozenset(parse_cpulist((_PCI / bus[-12:].lower() / "local_cpulist").read_text(encoding="ascii")))
        return frozenset()

    def joules(self) -> float | None:
        """Energy used since the driver was loaded; None where the card does not count it."""
        return self.read("energy", self._joules)

    # --- single readings

    def _joules(self, handle: Any) -> float:
        return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)

    def _fields(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        """Several field values in one call; each has a return code of its own."""
        wanted = {name: number for name, number in numbers.items() if self.errors.get(name) not in _FOR_EVER}
        values = self.read("fields", lambda h: self.nvml.nvmlDeviceGetFieldValues(h, list(wanted.values()))) or ()
        by_name = zip(wanted, values, strict=False)
        return self.read_all({name: lambda _, value=value: self._field(value) for name, value in by_name})  # type: ignore[misc]

    def _field(self, value: Any) -> float:
        if value.nvmlReturn:
            raise self.nvml.NVMLError(value.nvmlReturn)
        return _number(getattr(value.value, _VALUE_MEMBERS[value.valueType]))

    def _temperature(self, handle: Any) -> float:
        """Degrees Celsius of the GPU. The older call is for drivers that lack the newer one."""
        n = self.nvml
        try:
            return float(n.nvmlDeviceGetTemperatureV(handle, n.NVML_TEMPERATURE_GPU))
        except (n.NVMLError_FunctionNotFound, n.NVMLError_NotSupported, AttributeError):
            return float(n.nvmlDeviceGetTemperature(handle, n.NVML_TEMPERATURE_GPU))

    def _reasons(self, handle: Any) -> int:
        """Bits that say why the clocks are held down now; the older name is for drivers before 535."""
        n = self.nvml
        try:
            return int(n.nvmlDeviceGetCurrentClocksEventReasons(handle))
        except (n.NVMLError_FunctionNotFound, AttributeError):
            return int(n.nvmlDeviceGetCurrentClocksThrottleReasons(handle))

    def _ecc(self, handle: Any, kind: int) -> int:
        return int(self.nvml.nvmlDeviceGetTotalEccErrors(handle, kind, self.nvml.NVML_VOLATILE_ECC))

    def _utilization_buffer(self, handle: Any) -> list[float]:
        """[how many, their mean] of the driver's own samples since the last call: finer than polling, and cheaper."""
        n = self.nvml
        try:
            kind, samples = n.nvmlDeviceGetSamples(handle, n.NVML_GPU_UTILIZATION_SAMPLES, self._last_sample)
        except n.NVMLError_NotFound:  # nothing new
            return [0, 0.0]
        if not samples:
            return [0, 0.0]
        fresh = self._last_sample > 0  # the first call returns what was buffered before the run
        self._last_sample = max(int(s.timeStamp) for s in samples)
        values = [_number(getattr(s.sampleValue, _VALUE_MEMBERS[kind])) / _MAX_UTILIZATION for s in samples]
        return [len(values), sum(values) / len(values)] if fresh else [0, 0.0]

    def _nvlinks(self, handle: Any) -> list[int]:
        """The state of each link that the card has: 1 active, 0 not."""
        n, states = self.nvml, []
        for link in range(n.NVML_NVLINK_MAX_LINKS):
            try:
                states.append(int(n.nvmlDeviceGetNvLinkState(handle, link)))
            except n.NVMLError as error:
                if not states and error_name(error) not in ("NotSupported", "InvalidArgument"):
                    raise
                break
        return states

    def _nvlink_errors(self, handle: Any) -> int:
        """Replays, recoveries and CRC errors of all active links together."""
        n = self.nvml
        kinds = (n.NVML_NVLINK_ERROR_DL_REPLAY, n.NVML_NVLINK_ERROR_DL_RECOVERY, n.NVML_NVLINK_ERROR_DL_CRC_FLIT)
        links = [link for link, active in enumerate(self._nvlinks(handle)) if active]
        return sum(int(n.nvmlDeviceGetNvLinkErrorCounter(handle, link, kind)) for link in links for kind in kinds)


@dataclass(frozen=True, slots=True)
class Seen:
    """One card before any load of ours: the ``cpus`` beside it, others' ``processes`` (None: they cannot be listed)."""

    index: int
    uuid: str
    name: str
    processes: int | None
    cpus: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Survey:
    """``driver`` is None where no NVIDIA driver answers; ``hung``: by number, why a card gave no answer."""

    driver: str | None
    cards: tuple[Seen, ...] = ()
    hung: Mapping[int, str] = field(default_factory=dict)

    def by_uuid(self, uuid: str) -> Seen | None:
        """The card of that identity, which torch spells without the ``GPU-`` in front."""
        return next((card for card in self.cards if uuid and card.uuid.endswith(uuid.removeprefix("GPU-"))), None)


def survey() -> Survey:
    """Look once and close NVML again. Never raises: a card that does not answer is left out."""
    try:
        nvml = load()
    except ProbeError:
        return Survey(None)
    driver, hung = driver_version(nvml), dict[int, str]()
    try:
        seen, hung = each_card(our_cards(nvml, count_cards(nvml)), lambda index: _seen(Card(nvml, index)))
        return Survey(driver, tuple(card for card in seen.values() if card is not None), hung)
    except ProbeError:
        return Survey(driver)
    finally:
        close(nvml, hung)


def _seen(card: Card) -> Seen | None:
    facts, others = card.facts(), card.read("processes", card.nvml.nvmlDeviceGetComputeRunningProcesses)
    return None if card.lost else Seen(
        index=card.index, uuid=str(facts.get("uuid", "")), name=str(facts.get("name", "")), cpus=card.cpus(),
        processes=None if others is None else len(others),
    )  # fmt: skip


def hide_hung(found: Survey) -> None:
    """Let CUDA, which starts every card that it may see, see only those that answer; before it starts here."""
    if found.hung:
        os.environ[_VISIBLE] = ",".join(card.uuid for card in found.cards)


def pin(cpus: frozenset[int]) -> int | None:
    """Bind this process to those of the CPUs that it may use; how many, or None where there are none and it is free."""
    if near := cpus & os.sched_getaffinity(0):
        os.sched_setaffinity(0, near)
    return len(near) or None


def parse_cpulist(text: str) -> set[int]:
    """``0-3,8`` to {0, 1, 2, 3, 8} (kernel Documentation/admin-guide/cputopology)."""
    spans = (part.partition("-") for part in text.strip().split(",") if part)
    return {cpu for low, _, high in spans for cpu in range(int(low), int(high or low) + 1)}


def energy_reader(uuid: str) -> Callable[[], float | None]:
    """A reader of the card's energy counter, joules since the driver was loaded; None where it has none.

    NVML stays open for as long as this process lives. torch spells a card's identity without the ``GPU-`` in front.
    """
    try:
        return Card(load(), 0, uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}").joules
    except ProbeError:
        return lambda: None


def joined_by(uuid: str, other: str) -> str | None:
    """What joins two cards that can reach each other: nvlink or pcie; None where the driver does not say."""
    try:
        library = load()
    except ProbeError:
        return None
    try:
        card, handle, link = Card(library, 0, uuid), Card(library, 0, other).handle, library.NVML_P2P_CAPS_INDEX_NVLINK
        status = card.read("joined", lambda h: library.nvmlDeviceGetP2PStatus(h, handle, link))
    finally:
        close(library, {})
    return None if status is None else "nvlink" if status == library.NVML_P2P_STATUS_OK else "pcie"


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _number(value: Any) -> float:
    """Raises ValueError for what is not finite: NaN is no reading."""
    if not math.isfinite(value):
        raise ValueError("not a number")
    return float(value)


if __name__ == "__main__":  # the cards that CUDA has, one a line, without waiting for torch
    for each in survey().cards:
        sys.stdout.write(f"{each.index} {each.uuid} {each.name}\n")
