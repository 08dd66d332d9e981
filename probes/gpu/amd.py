"""AMD cards through amdsmi, with the same readings by the same names as an NVIDIA card's.

What amdsmi has no word for (Xid, row remapping, the share of multiprocessors in use) is absent, not zero. Throttle time
comes from the violation counters of MI300 and later: each counts the ticks, out of ``acc_counter``, in which it held.
amdsmi is imported inside of the functions; it comes with ROCm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from probes.common.windows import finite

#: amdsmi's counters, by the reasons' names that NVIDIA cards have.
VIOLATIONS = {
    "sw_power_cap": "acc_ppt_pwr",
    "hw_thermal_slowdown": "acc_prochot_thrm",
    "sw_thermal_slowdown": "acc_socket_thrm",
    "memory_thermal_slowdown": "acc_hbm_thrm",
    "voltage_regulator_thermal_slowdown": "acc_vr_thrm",
}
_MIB = 1 << 20


class AmdMissing(Exception):
    """No amdsmi, no ROCm library, or no AMD card."""


class AmdCard:
    """Readings of one card as plain data; ``errors`` and ``lost`` as for an NVIDIA card."""

    def __init__(self, smi: Any, handle: Any, index: int) -> None:
        self.smi, self._handle, self.index = smi, handle, index
        self.errors: dict[str, str] = {}
        self.lost: str | None = None
        self._ticks: dict[str, float] = {}
        self._held = dict.fromkeys(VIOLATIONS, 0.0)
        self._at = time.monotonic()

    def read(self, name: str, call: Callable[[Any], Any]) -> Any:
        """``call(handle)``, or None with the reason in ``errors``; "N/A" is amdsmi's way to say that there is none."""
        try:
            value = call(self._handle)
        except (self.smi.AmdSmiException, KeyError, TypeError, ValueError, OSError, AttributeError) as error:
            self.errors[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:60]
            return None
        if value is None or value == "N/A":
            self.errors[name] = "N/A"
            return None
        self.errors.pop(name, None)
        return value

    def facts(self) -> dict[str, Any]:
        """What does not change."""
        smi = self.smi
        return self._named({
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
        found = self._named({
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
        """The set that is read before and after each probe."""
        smi = self.smi
        return self._named({
            "ecc_uncorrected": lambda h: int(smi.amdsmi_get_gpu_total_ecc_count(h)["uncorrectable_count"]),
            "ecc_corrected": lambda h: int(smi.amdsmi_get_gpu_total_ecc_count(h)["correctable_count"]),
            "replays": lambda h: finite(smi.amdsmi_get_pcie_info(h)["pcie_metric"]["pcie_replay_count"]),
            "processes": lambda h: [int(p["pid"]) for p in smi.amdsmi_get_gpu_process_list(h)],
        })  # fmt: skip

    def _named(self, calls: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
        read = {name: self.read(name, call) for name, call in calls.items()}
        return {name: value for name, value in read.items() if value is not None}

    def _power(self, handle: Any) -> float | None:
        """Watts: of now on MI300 and later, a mean on earlier cards."""
        info = self.smi.amdsmi_get_power_info(handle)
        found = (finite(info.get(key)) for key in ("current_socket_power", "average_socket_power"))
        return next((watts for watts in found if watts), None)

    def _energy(self, handle: Any) -> float:
        """Joules; the counter's unit is in its resolution, microjoules."""
        info = self.smi.amdsmi_get_energy_count(handle)
        ticks = info["energy_accumulator"] if "energy_accumulator" in info else info["power"]
        return float(ticks) * float(info["counter_resolution"]) / 1e6

    def _celsius(self, handle: Any, place: str) -> float:
        kind, now = getattr(self.smi.AmdSmiTemperatureType, place), self.smi.AmdSmiTemperatureMetric.CURRENT
        return float(self.smi.amdsmi_get_temp_metric(handle, kind, now))

    def _violations(self, handle: Any) -> dict[str, float]:
        """Nanoseconds held so far by reason: the share of ticks since the last reading, times the time since."""
        status = self.smi.amdsmi_get_violation_status(handle)
        now = time.monotonic()
        ticks = {key: finite(status.get(key)) for key in ("acc_counter", *VIOLATIONS.values())}
        known = {key: value for key, value in ticks.items() if value is not None}
        grown = known.get("acc_counter", 0.0) - self._ticks.get("acc_counter", float("inf"))
        for reason, key in VIOLATIONS.items():
            if grown > 0 and key in known and key in self._ticks:
                share = min(1.0, max(0.0, known[key] - self._ticks[key]) / grown)
                self._held[reason] += share * (now - self._at) * 1e9
        if grown > 0 or not self._ticks:
            self._ticks, self._at = known, now
        return {reason: self._held[reason] for reason, key in VIOLATIONS.items() if key in known}


def open_cards() -> tuple[Any, str | None, list[AmdCard]]:
    """(amdsmi, the driver's version, the cards). Raises AmdMissing."""
    try:
        import amdsmi

        amdsmi.amdsmi_init()
    except Exception as error:
        raise AmdMissing(str(error)) from error
    try:
        handles = list(amdsmi.amdsmi_get_processor_handles())
    except amdsmi.AmdSmiException as error:
        raise AmdMissing(str(error)) from error
    if not handles:
        raise AmdMissing("no AMD card")
    cards = [AmdCard(amdsmi, handle, index) for index, handle in enumerate(handles)]
    driver = cards[0].read("driver", lambda h: amdsmi.amdsmi_get_gpu_driver_info(h)["driver_version"])
    return amdsmi, driver, cards
