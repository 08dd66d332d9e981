"""Numbers as people read them: ``1.1 GB/s``, ``12 ms``, ``66 %``. Files keep base units; only the edge calls this."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bench.model import UNITS

_LARGE = ("", "k", "M", "G", "T", "P", "E")
_SMALL = ("", "m", "µ", "n", "p")

#: Base unit -> what stands behind the number, and whether it takes decimal (SI) prefixes.
_SUFFIX = {
    "bytes_per_second": "B/s",
    "bytes": "B",
    "operations_per_second": "op/s",
    "tokens_per_second": "tokens/s",
    "samples_per_second": "samples/s",
    "flops_per_second": "FLOP/s",
    "per_second": "/s",
    "watts": "W",
    "joules": "J",
    "hertz": "Hz",
}
#: Plain number before these: "12,300 tokens/s", because "12.3 ktokens/s" is no unit that anyone writes.
_WITHOUT_PREFIX = ("tokens_per_second", "samples_per_second", "operations_per_second", "per_second")


def unit_of(metric: str) -> str:
    """The base unit at the end of a metric's name; empty for a count of things."""
    return next((unit for unit in UNITS if metric == unit or metric.endswith("_" + unit)), "")


def human(value: float, metric: str, digits: int = 3) -> str:
    """``value`` of ``metric`` in base units, for a person, with ``digits`` significant digits.

    Prefixes are decimal (1 GB = 1e9 B), seconds go down to picoseconds, a ratio is shown in percent. Total: every
    finite number has a text.
    """
    unit = unit_of(metric)
    if unit == "seconds":
        return _seconds(value, digits)
    if unit == "ratio":
        return f"{_plain(100.0 * value, digits)} %"
    if unit == "celsius":
        return f"{_plain(value, digits)} °C"
    suffix = _SUFFIX.get(unit, "")
    if not suffix or unit in _WITHOUT_PREFIX:
        return f"{_plain(value, digits)} {suffix}".rstrip()
    number, prefix = _scaled(value, digits, _LARGE, 1000.0)
    return f"{number} {prefix}{suffix}"


def _seconds(value: float, digits: int) -> str:
    if abs(value) >= 1.0 or value == 0.0:
        return f"{_plain(value, digits)} s"
    number, prefix = _scaled(value, digits, _SMALL, 0.001)
    return f"{number} {prefix}s"


def _scaled(value: float, digits: int, prefixes: tuple[str, ...], step: float) -> tuple[str, str]:
    """The number with the first prefix that puts its rounded form into 1..1000; else the last one."""
    scaled = _rounded(value, digits)
    for prefix in prefixes[:-1]:
        if (step > 1.0 and abs(scaled) < 1000.0) or (step < 1.0 and abs(scaled) >= 1.0):
            return _plain(scaled, digits), prefix
        scaled /= step
    return _plain(scaled, digits), prefixes[-1]


def _plain(value: float, digits: int) -> str:
    """Significant digits without an exponent: 12,300, 3.2, 0.05; whole numbers stay whole."""
    if abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    rounded = _rounded(value, digits)
    if abs(rounded) >= 1e15 or 0.0 < abs(rounded) < 1e-6:
        return f"{rounded:.{digits}g}"
    if abs(rounded) >= 10 ** (digits - 1):
        return f"{rounded:,.0f}"
    return f"{rounded:.12f}".rstrip("0").rstrip(".")


def _rounded(value: float, digits: int) -> float:
    """Rounded to significant digits, and finite: the largest floats would be rounded up to infinity."""
    rounded = float(f"{value:.{digits}g}")
    return rounded if math.isfinite(rounded) else math.copysign(1.0e308, value)


def series_name(metric: str, labels: Mapping[str, str]) -> str:
    """``metric{name=value,...}`` in the labels' alphabetical order; the metric alone without labels."""
    inner = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
    return f"{metric}{{{inner}}}" if inner else metric
