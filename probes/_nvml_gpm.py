"""GPM, the hardware's own activity counters (Hopper and later): one pair of samples around each stage.

A metric of a pair is the mean over exactly the time between the two, so nothing has to be polled. Each metric has its
own return code, and NaN is how the driver says that it has none.
"""

from __future__ import annotations

import math
from typing import Any

from probes.common.nvml_card import Card

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
