"""One NVIDIA card, read through NVML. Every call's failure is its own: it costs that figure and nothing else.

A call that this card, driver or user can never answer (not supported, no such symbol, no permission) is made once and
then left out, with the reason kept; a lost card is not asked again.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from typing import Any

#: Errors after which the same call is not made again.
_FOR_EVER = frozenset({"NotSupported", "FunctionNotFound", "NoPermission", "ArgumentVersionMismatch"})
_LOST = frozenset({"GpuIsLost", "GpuNotFound"})
_VALUE_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t

#: Cumulative nanoseconds in which a reason held the clocks down (nvml.h, NVML_FI_DEV_CLOCKS_EVENT_REASON_*).
THROTTLE_FIELDS = {
    "sw_power_cap": 74,
    "sync_boost": 76,
    "sw_thermal_slowdown": 269,
    "hw_thermal_slowdown": 270,
    "hw_power_brake_slowdown": 271,
}
_PCIE_FIELDS = {"pcie_send": 197, "pcie_receive": 198}  # bytes
_RECOVERY_ACTION = 230
_MEMORY_TEMPERATURE = 82
_NVLINK_RECOVERIES = 215
_MAX_UTILIZATION = 100


def error_name(error: Exception) -> str:
    """``NVMLError_NotSupported`` to ``NotSupported``; its own words for anything else."""
    name = type(error).__name__
    return name.removeprefix("NVMLError_") if name.startswith("NVMLError_") else str(error)[:60]


class Card:
    """Readings of one card as plain data. ``errors`` holds, by reading, why it has no value."""

    def __init__(self, nvml: Any, index: int) -> None:
        self.nvml, self.index = nvml, index
        self.errors: dict[str, str] = {}
        self.lost: str | None = None
        self._last_sample = 0
        self._handle: Any = None
        self._handle = self.read("handle", lambda _: nvml.nvmlDeviceGetHandleByIndex(index))
        if self._handle is None:
            self.lost = self.errors["handle"]

    @property
    def handle(self) -> Any:
        return self._handle

    def read(self, name: str, call: Callable[[Any], Any]) -> Any:
        """``call(handle)``, or None with the reason in ``errors``."""
        if self.lost is not None or self.errors.get(name) in _FOR_EVER:
            return None
        try:
            value = call(self._handle)
        except (self.nvml.NVMLError, ValueError, OSError, AttributeError, ctypes.ArgumentError) as error:
            self.errors[name] = error_name(error)
            if self.errors[name] in _LOST:
                self.lost = self.errors[name]
            return None
        self.errors.pop(name, None)
        return value

    # --- groups of readings

    def facts(self) -> dict[str, Any]:
        """What does not change: name, identity, largest link, power limits. Watts, hertz, bytes."""
        n = self.nvml
        return self._named({
            "name": lambda h: _text(n.nvmlDeviceGetName(h)),
            "uuid": lambda h: _text(n.nvmlDeviceGetUUID(h)),
            "bus": lambda h: _text(n.nvmlDeviceGetPciInfo(h).busId),
            "numa": n.nvmlDeviceGetNumaNodeId,
            "memory_total": lambda h: n.nvmlDeviceGetMemoryInfo(h).total,
            "max_generation": n.nvmlDeviceGetMaxPcieLinkGeneration,
            "card_generation": n.nvmlDeviceGetGpuMaxPcieLinkGeneration,
            "max_width": n.nvmlDeviceGetMaxPcieLinkWidth,
            "max_sm_clock": lambda h: n.nvmlDeviceGetMaxClockInfo(h, n.NVML_CLOCK_SM) * 1e6,
            "power_limit": lambda h: n.nvmlDeviceGetEnforcedPowerLimit(h) / 1e3,
            "default_power_limit": lambda h: n.nvmlDeviceGetPowerManagementDefaultLimit(h) / 1e3,
        })  # fmt: skip

    def fast(self) -> dict[str, Any]:
        """The set that is read once a second: no call of it takes longer than some microseconds on a sound driver."""
        n = self.nvml
        found = self._named({
            "utilization": lambda h: n.nvmlDeviceGetUtilizationRates(h).gpu / _MAX_UTILIZATION,
            "memory_used": lambda h: n.nvmlDeviceGetMemoryInfo(h).used,
            "power": lambda h: n.nvmlDeviceGetPowerUsage(h) / 1e3,
            "energy": lambda h: n.nvmlDeviceGetTotalEnergyConsumption(h) / 1e3,
            "temperature": self._temperature,
            "sm_clock": lambda h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM) * 1e6,
            "memory_clock": lambda h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM) * 1e6,
            "reasons": self._reasons,
            "generation": n.nvmlDeviceGetCurrPcieLinkGeneration,
            "width": n.nvmlDeviceGetCurrPcieLinkWidth,
            "buffer": self._utilization_buffer,
        })  # fmt: skip
        return {**found, **self.fields({**THROTTLE_FIELDS, **_PCIE_FIELDS, "memory_temperature": _MEMORY_TEMPERATURE})}

    def health(self) -> dict[str, Any]:
        """The set that is read before and after each probe, never during a stage."""
        n = self.nvml
        found = self._named({
            "ecc_mode": lambda h: list(n.nvmlDeviceGetEccMode(h)),
            "ecc_uncorrected": lambda h: self._ecc(h, n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            "ecc_corrected": lambda h: self._ecc(h, n.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            "remapped": lambda h: list(n.nvmlDeviceGetRemappedRows(h)),
            "replays": n.nvmlDeviceGetPcieReplayCounter,
            "persistence": n.nvmlDeviceGetPersistenceMode,
            "mig": lambda h: list(n.nvmlDeviceGetMigMode(h)),
            "processes": lambda h: [p.pid for p in n.nvmlDeviceGetComputeRunningProcesses(h)],
            "nvlinks": self._nvlinks,
            "nvlink_errors": self._nvlink_errors,
        })  # fmt: skip
        return {**found, **self.fields({"recovery_action": _RECOVERY_ACTION, "nvlink_recoveries": _NVLINK_RECOVERIES})}

    def fields(self, wanted: Mapping[str, int]) -> dict[str, float]:
        """Several field values in one call; each has a return code of its own."""
        asked = {name: number for name, number in wanted.items() if self.errors.get(name) not in _FOR_EVER}
        values = self.read("fields", lambda h: self.nvml.nvmlDeviceGetFieldValues(h, list(asked.values())))
        found: dict[str, float] = {}
        for name, value in zip(asked, values or (), strict=False):
            number = self.read(name, lambda _, value=value: self._field(value))  # type: ignore[misc]
            if number is not None:
                found[name] = number
        return found

    # --- single readings

    def _named(self, calls: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
        read = {name: self.read(name, call) for name, call in calls.items()}
        return {name: value for name, value in read.items() if value is not None}

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
        kind, samples = n.nvmlDeviceGetSamples(handle, n.NVML_GPU_UTILIZATION_SAMPLES, self._last_sample)
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


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _number(value: Any) -> float:
    """Raises ValueError for what is not finite: NaN is no reading."""
    if not math.isfinite(value):
        raise ValueError("not a number")
    return float(value)
