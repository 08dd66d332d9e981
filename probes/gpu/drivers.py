"""The two ways to a node's cards, NVML and amdsmi, behind one shape. Opened and used on the watcher's thread only."""

from __future__ import annotations

import ctypes
import math
from typing import Any, Protocol

from probes.common import nvml as _nvml
from probes.common.nvml_card import Card
from probes.gpu import amd as _gpu_amd

_MOST_EVENTS = 1000  # at one sample


class Readable(Protocol):
    """A card's readings as plain data."""

    index: int
    errors: dict[str, str]
    lost: str | None

    def facts(self) -> dict[str, Any]: ...
    def fast(self) -> dict[str, Any]: ...
    def health(self) -> dict[str, Any]: ...


class Door(Protocol):
    """``source`` is the interface's name (nvml, amdsmi), ``driver`` the driver's version."""

    source: str
    driver: str | None
    cards: list[Any]

    def begin(self, card: Readable) -> None:
        """A stage begins: open a pair of the hardware's own counters, where there are any."""
        ...

    def end(self, card: Readable) -> dict[str, float]:
        """Close the innermost pair; its means by name."""
        ...

    def xids(self) -> list[list[int]] | None:
        """[card's index or -1, number] of each critical error since the last call; None where none can be heard."""
        ...

    def close(self) -> None: ...


def open_door() -> Door:
    """NVML where it is, else amdsmi. Raises NvmlMissing where there is neither, NvmlBroken where NVML fails."""
    try:
        return NvmlDoor()
    except _nvml.NvmlBroken:
        raise
    except _nvml.NvmlMissing as error:
        try:
            return AmdDoor()
        except _gpu_amd.AmdMissing:
            raise error from None


class NvmlDoor:
    """NVIDIA cards."""

    source = "nvml"

    def __init__(self) -> None:
        self._nvml, count = _nvml.load(), _nvml.device_count()
        self.driver = _nvml.driver_version()
        self.cards = [Card(self._nvml, index) for index in range(count)]
        self._gpms = {card.index: Gpm(card) for card in self.cards}
        self._events = Events(self._nvml, self.cards)

    def begin(self, card: Readable) -> None:
        self._gpms[card.index].begin()

    def end(self, card: Readable) -> dict[str, float]:
        return self._gpms[card.index].end()

    def xids(self) -> list[list[int]] | None:
        return self._events.take()

    def close(self) -> None:
        for gpm in self._gpms.values():
            gpm.close()
        self._events.close()
        self._nvml.nvmlShutdown()


class AmdDoor:
    """AMD cards. amdsmi has no pair of activity counters and no critical errors as events."""

    source = "amdsmi"

    def __init__(self) -> None:
        self._smi, self.driver, self.cards = _gpu_amd.open_cards()

    def begin(self, card: Readable) -> None:
        return None

    def end(self, card: Readable) -> dict[str, float]:
        return {}

    def xids(self) -> list[list[int]] | None:
        return None

    def close(self) -> None:
        self._smi.amdsmi_shut_down()


def _address(handle: Any) -> int | None:
    """Which card a handle is: NVML gives the same pointer each time."""
    return ctypes.cast(handle, ctypes.c_void_p).value if handle is not None else None


class Events:
    """Xid errors as they happen. Without the event interface there are none to read."""

    def __init__(self, nvml: Any, cards: list[Card]) -> None:
        self._nvml, self._set, self._deaf = nvml, None, False
        self._cards = {_address(card.handle): card.index for card in cards}
        try:
            self._set = nvml.nvmlEventSetCreate()
            for card in (card for card in cards if card.lost is None):
                nvml.nvmlDeviceRegisterEvents(card.handle, nvml.nvmlEventTypeXidCriticalError, self._set)
        except (nvml.NVMLError, AttributeError):
            self._deaf = True

    def take(self) -> list[list[int]] | None:
        """[card's index or -1, Xid] of each since the last call; None where they cannot be heard."""
        if self._deaf:
            return None
        found: list[list[int]] = []
        try:
            while len(found) < _MOST_EVENTS:
                event = self._nvml.nvmlEventSetWait_v2(self._set, 0)
                found.append([self._cards.get(_address(event.device), -1), int(event.eventData)])
        except self._nvml.NVMLError_Timeout:
            return found
        except (self._nvml.NVMLError, AttributeError):
            self._deaf = True
        return found

    def close(self) -> None:
        if self._set is not None:
            try:
                self._nvml.nvmlEventSetFree(self._set)
            except self._nvml.NVMLError:
                self._set = None


#: Name, and the metric's number in nvml.h. Utilizations are percent; rates are MiB/s.
METRICS = {
    "graphics": 1,
    "sm": 2,
    "occupancy": 3,
    "tensor": 5,
    "dram": 10,
    "pcie_send": 20,
    "pcie_receive": 21,
    "nvlink_receive": 60,
    "nvlink_send": 61,
}
_PERCENT = ("graphics", "sm", "occupancy", "tensor", "dram")
_MIB = float(1 << 20)


class Gpm:
    """Nested pairs for one card. ``supported`` is False where the card, the driver or the permissions lack it."""

    def __init__(self, card: Card) -> None:
        self.card, self.nvml = card, card.nvml
        support = card.read("gpm", lambda h: self.nvml.nvmlGpmQueryDeviceSupport(h).isSupportedDevice)
        self.supported = bool(support)
        self._open: list[Any] = []

    def begin(self) -> None:
        """Take the first sample of a stage's pair."""
        self._open.append(self._sample() if self.supported else None)

    def end(self) -> dict[str, float]:
        """Take the second one; ratios (0 to 1) and bytes a second by name, without what could not be had."""
        first = self._open.pop() if self._open else None
        if first is None:
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
        if sample is None:
            return None
        if self.card.read("gpm_sample", lambda h: self.nvml.nvmlGpmSampleGet(h, sample)) is None:
            self._free(sample)
            return None
        return sample

    def _free(self, sample: Any) -> None:
        if sample is not None:
            self.card.read("gpm_free", lambda _: self.nvml.nvmlGpmSampleFree(sample) or True)

    def _between(self, first: Any, second: Any) -> dict[str, float]:
        get = self.nvml.c_nvmlGpmMetricsGet_t()
        get.version, get.numMetrics = self.nvml.NVML_GPM_METRICS_GET_VERSION, len(METRICS)
        get.sample1, get.sample2 = first, second
        for place, number in enumerate(METRICS.values()):
            get.metrics[place].metricId = number
        if self.card.read("gpm_metrics", lambda _: self.nvml.nvmlGpmMetricsGet(get)) is None:
            return {}
        return {
            name: _converted(name, get.metrics[place].value)
            for place, name in enumerate(METRICS)
            if not get.metrics[place].nvmlReturn and math.isfinite(get.metrics[place].value)
        }


def _converted(name: str, value: float) -> float:
    return value / 100.0 if name in _PERCENT else value * _MIB
