"""The two ways to a node's cards, NVML and amdsmi, behind one shape. Each card has a thread, and is used on that only.

An AMD card has the same readings by the same names as an NVIDIA card. What amdsmi has no word for (Xid, row remapping,
the share of multiprocessors in use) is absent, not zero. amdsmi is imported inside of a function; it comes with ROCm.
"""

from __future__ import annotations

import ctypes
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from bench.measure.probe import Unsupported
from bench.model import Code
from probes.common import nvml
from probes.common.nvml import Card, Readable
from probes.common.windows import finite

_MOST_EVENTS = 1000  # at one sample
_MIB = 1 << 20


class Driver(ABC):
    """``source`` is the interface's name (nvml, amdsmi), ``version`` the driver's."""

    source: str
    version: str | None

    @abstractmethod
    def indices(self) -> Sequence[int]:
        """The cards that are ours."""

    @abstractmethod
    def card(self, index: int) -> Readable:
        """The card, touched for the first time, which takes seconds where persistence mode is off."""

    def begin(self, index: int) -> None:  # noqa: B027 - a driver without counters has nothing to open
        """A stage begins: open a pair of the card's own activity counters, where there are any."""

    def end(self, index: int) -> dict[str, float]:
        """Close the card's innermost pair; its means by name."""
        return {}

    def let_go(self, index: int) -> None:  # noqa: B027 - as above
        """Close what pairs the card still has open."""

    def xids(self) -> list[list[int]] | None:
        """[card's index or -1, number] of each critical error since the last call; None where none can be heard."""
        return None

    @abstractmethod
    def close(self, hung: Mapping[int, str]) -> None:
        """``hung``: the cards of which a call still does."""


def open_driver() -> Driver:
    """NVML where it is, else amdsmi. Raises Unsupported where there is neither, Failed where NVML fails."""
    try:
        return NvmlDriver()
    except Unsupported:
        with suppress(Unsupported):
            return AmdDriver()
        raise


# --- NVIDIA


class NvmlDriver(Driver):
    """NVIDIA cards. Without the driver's event interface there are no Xid errors to hear."""

    source = "nvml"

    def __init__(self) -> None:
        self._nvml = library = nvml.load()
        self._count = nvml.count_cards(library)
        self.version = nvml.driver_version(library)
        self._gpms: dict[int, Gpm] = {}
        self._indices: dict[int | None, int] = {}
        self._events: Any = None
        self._deaf = False
        self._hear(lambda: setattr(self, "_events", library.nvmlEventSetCreate()))

    def indices(self) -> Sequence[int]:
        return nvml.our_cards(self._nvml, self._count)

    def card(self, index: int) -> Readable:
        library, card = self._nvml, Card(self._nvml, index)
        self._gpms[index] = Gpm(card)
        self._indices[_address(card.handle)] = index
        if card.lost is None:
            kind = library.nvmlEventTypeXidCriticalError
            self._hear(lambda: library.nvmlDeviceRegisterEvents(card.handle, kind, self._events))
        return card

    def _hear(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception:  # noqa: BLE001 - as of every reading: this one is missing, no more
            self._deaf = True

    def begin(self, index: int) -> None:
        self._gpms[index].begin()

    def end(self, index: int) -> dict[str, float]:
        return self._gpms[index].end()

    def let_go(self, index: int) -> None:
        self._gpms[index].close()

    def xids(self) -> list[list[int]] | None:
        if self._deaf:
            return None
        found: list[list[int]] = []
        try:
            while len(found) < _MOST_EVENTS:
                event = self._nvml.nvmlEventSetWait_v2(self._events, 0)
                found.append([self._indices.get(_address(event.device), -1), int(event.eventData)])
        except Exception as error:  # noqa: BLE001 - as above
            self._deaf = nvml.error_name(error) != "Timeout"  # no more of them
        return found

    def close(self, hung: Mapping[int, str]) -> None:
        if self._events is not None and not hung:
            with suppress(Exception):
                self._nvml.nvmlEventSetFree(self._events)
        nvml.close(self._nvml, hung)


def _address(handle: Any) -> int | None:
    """Which card a handle is: NVML gives the same pointer each time."""
    return ctypes.cast(handle, ctypes.c_void_p).value if handle is not None else None


#: Name, and the metric's number in nvml.h. The first five are percent; the others MiB/s.
_PERCENT = {"graphics": 1, "sm": 2, "occupancy": 3, "tensor": 5, "dram": 10}
_RATES = {"pcie_send": 20, "pcie_receive": 21, "nvlink_receive": 60, "nvlink_send": 61}
_ACTIVITY = {**_PERCENT, **_RATES}


class Gpm:
    """Nested pairs for one card. ``supported`` is false where the card, the driver or the permissions lack it."""

    def __init__(self, card: Card) -> None:
        self.card, self.nvml = card, card.nvml
        self.supported = card.read("gpm", lambda h: self.nvml.nvmlGpmQueryDeviceSupport(h).isSupportedDevice)
        self._open: list[Any] = []

    def begin(self) -> None:
        self._open.append(self._sample() if self.supported else None)

    def end(self) -> dict[str, float]:
        """Take the second one; ratios (0 to 1) and bytes a second by name, without what could not be had."""
        if (first := self._open.pop() if self._open else None) is None:
            return {}
        second = self._sample()
        try:
            return {} if second is None else self._between(first, second)
        finally:
            self._free(first)
            self._free(second)

    def close(self) -> None:
        while self._open:
            self._free(self._open.pop())

    def _sample(self) -> Any:
        sample = self.card.read("gpm_alloc", lambda _: self.nvml.nvmlGpmSampleAlloc())
        if sample is not None and self.card.read("gpm_sample", lambda h: self.nvml.nvmlGpmSampleGet(h, sample)) is None:
            self._free(sample)
            return None
        return sample

    def _free(self, sample: Any) -> None:
        if sample is not None:
            self.card.read("gpm_free", lambda _: self.nvml.nvmlGpmSampleFree(sample) or True)

    def _between(self, first: Any, second: Any) -> dict[str, float]:
        get = self.nvml.c_nvmlGpmMetricsGet_t()
        get.version, get.numMetrics = self.nvml.NVML_GPM_METRICS_GET_VERSION, len(_ACTIVITY)
        get.sample1, get.sample2 = first, second
        for place, number in enumerate(_ACTIVITY.values()):
            get.metrics[place].metricId = number
        if self.card.read("gpm_metrics", lambda _: self.nvml.nvmlGpmMetricsGet(get)) is None:
            return {}
        return {
            name: get.metrics[place].value / 100.0 if name in _PERCENT else get.metrics[place].value * _MIB
            for place, name in enumerate(_ACTIVITY)
            if not get.metrics[place].nvmlReturn and math.isfinite(get.metrics[place].value)
        }


# --- AMD

#: amdsmi's counters, by the reasons' names that NVIDIA cards have. MI300 and later; each counts the ticks, out of
#: ``acc_counter``, in which it held.
VIOLATIONS = {
    "sw_power_cap": "acc_ppt_pwr",
    "hw_thermal_slowdown": "acc_prochot_thrm",
    "sw_thermal_slowdown": "acc_socket_thrm",
    "memory_thermal_slowdown": "acc_hbm_thrm",
    "voltage_regulator_thermal_slowdown": "acc_vr_thrm",
}


class AmdDriver(Driver):
    """AMD cards. amdsmi has no pair of activity counters and no critical errors as events."""

    source = "amdsmi"

    def __init__(self) -> None:
        """Raises Unsupported where there is no amdsmi, no ROCm library or no AMD card."""
        try:
            import amdsmi

            amdsmi.amdsmi_init()
            handles = list(amdsmi.amdsmi_get_processor_handles())
        except Exception as error:
            raise Unsupported(Code.NO_GPU, f"amdsmi does not start: {error}") from error
        if not handles:
            raise Unsupported(Code.NO_GPU, "amdsmi sees no AMD card")
        self._smi = amdsmi
        self._cards = cards = [AmdCard(amdsmi, handle, index) for index, handle in enumerate(handles)]
        self.version = cards[0].read("driver", lambda h: amdsmi.amdsmi_get_gpu_driver_info(h)["driver_version"])

    def indices(self) -> Sequence[int]:
        return range(len(self._cards))

    def card(self, index: int) -> Readable:
        return self._cards[index]

    def close(self, hung: Mapping[int, str]) -> None:
        if not hung:
            self._smi.amdsmi_shut_down()


class AmdCard(Readable):
    def __init__(self, smi: Any, handle: Any, index: int) -> None:
        super().__init__(index, handle)
        self.smi = smi
        self._ticks: dict[str, float] = {}
        self._held = dict.fromkeys(VIOLATIONS, 0.0)
        self._at = time.monotonic()

    def facts(self) -> dict[str, Any]:
        smi = self.smi
        return self.read_all({
            "name": lambda h: str(smi.amdsmi_get_gpu_asic_info(h)["market_name"]),
            "uuid": lambda h: str(smi.amdsmi_get_gpu_device_uuid(h)),
            "bus": lambda h: str(smi.amdsmi_get_gpu_device_bdf(h)),
            "memory_total": lambda h: int(smi.amdsmi_get_gpu_vram_usage(h)["vram_total"]) * _MIB,
            "max_generation": lambda h: finite(smi.amdsmi_get_pcie_info(h)["pcie_static"]["max_pcie_speed"]),
            "max_width": lambda h: finite(smi.amdsmi_get_pcie_info(h)["pcie_static"]["max_pcie_width"]),
        })  # fmt: skip

    def fast(self) -> dict[str, Any]:
        """The set that is read once a second. ``generation`` is the link's speed, as in ``max_generation``."""
        smi = self.smi
        found = self.read_all({
            "utilization": lambda h: float(smi.amdsmi_get_gpu_activity(h)["gfx_activity"]) / 100.0,
            "memory_used": lambda h: int(smi.amdsmi_get_gpu_vram_usage(h)["vram_used"]) * _MIB,
            "power": self._power,
            "energy": self._energy,
            "temperature": lambda h: self._celsius(h, "HOTSPOT"),
            "memory_temperature": lambda h: self._celsius(h, "VRAM"),
            "sm_clock": lambda h: float(smi.amdsmi_get_clock_info(h, smi.AmdSmiClkType.GFX)["clk"]) * 1e6,
            "memory_clock": lambda h: float(smi.amdsmi_get_clock_info(h, smi.AmdSmiClkType.MEM)["clk"]) * 1e6,
            "generation": lambda h: finite(smi.amdsmi_get_pcie_info(h)["pcie_metric"]["pcie_speed"]),
            "width": lambda h: finite(smi.amdsmi_get_pcie_info(h)["pcie_metric"]["pcie_width"]),
        })  # fmt: skip
        return {**found, **(self.read("violations", self._violations) or {})}

    def health(self) -> dict[str, Any]:
        smi = self.smi
        return self.read_all({
            "ecc_uncorrected": lambda h: int(smi.amdsmi_get_gpu_total_ecc_count(h)["uncorrectable_count"]),
            "ecc_corrected": lambda h: int(smi.amdsmi_get_gpu_total_ecc_count(h)["correctable_count"]),
            "replays": lambda h: finite(smi.amdsmi_get_pcie_info(h)["pcie_metric"]["pcie_replay_count"]),
            "processes": lambda h: [int(p["pid"]) for p in smi.amdsmi_get_gpu_process_list(h)],
        })  # fmt: skip

    def _power(self, handle: Any) -> float | None:
        """Watts: of now on MI300 and later, a mean on earlier cards."""
        info = self.smi.amdsmi_get_power_info(handle)
        return finite(info.get("current_socket_power")) or finite(info.get("average_socket_power")) or None

    def _energy(self, handle: Any) -> float:
        """Joules; the counter's unit is in its resolution, microjoules."""
        info = self.smi.amdsmi_get_energy_count(handle)
        ticks = info["energy_accumulator" if "energy_accumulator" in info else "power"]
        return float(ticks) * float(info["counter_resolution"]) / 1e6

    def _celsius(self, handle: Any, place: str) -> float:
        kind, now = getattr(self.smi.AmdSmiTemperatureType, place), self.smi.AmdSmiTemperatureMetric.CURRENT
        return float(self.smi.amdsmi_get_temp_metric(handle, kind, now))

    def _violations(self, handle: Any) -> dict[str, float]:
        """Nanoseconds held so far by reason: the share of ticks since the last reading, times the time since."""
        status = self.smi.amdsmi_get_violation_status(handle)
        now = time.monotonic()
        keys = ("acc_counter", *VIOLATIONS.values())
        known = {key: value for key in keys if (value := finite(status.get(key))) is not None}
        grown = known.get("acc_counter", 0.0) - self._ticks.get("acc_counter", float("inf"))
        for reason, key in VIOLATIONS.items():
            if grown > 0 and key in known and key in self._ticks:
                share = min(1.0, max(0.0, known[key] - self._ticks[key]) / grown)
                self._held[reason] += share * (now - self._at) * 1e9
        if grown > 0 or not self._ticks:
            self._ticks, self._at = known, now
        return {reason: self._held[reason] for reason, key in VIOLATIONS.items() if key in known}
