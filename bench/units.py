"""Numbers as people read them: ``1.1 GB/s``, ``12 ms``, ``66 %``. Files keep base units; only the edge calls this."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bench.model import UNITS, unit_of

_LARGE = ("", "k", "M", "G", "T", "P", "E")
_SMALL = ("", "m", "µ", "n", "p")

#: With a decimal (SI) prefix; "12.3 ktokens/s" is no unit that anyone writes, but "12,300 tokens/s".
_SCALED = ("bytes_per_second", "flops_per_second", "bytes", "watts", "joules", "hertz")


def human(value: float, metric: str, digits: int = 3) -> str:
    """``value`` of ``metric`` in base units, for a person, with ``digits`` significant digits.

    Prefixes are decimal (1 GB = 1e9 B), seconds go down to picoseconds, a ratio is shown in percent. Total: every
    finite number has a text.
    """
    unit = unit_of(metric)
    if unit == "seconds" and 0.0 < abs(value) < 1.0:
        number, prefix = _scaled(value, digits, _SMALL, 0.001)
    elif unit in _SCALED:
        number, prefix = _scaled(value, digits, _LARGE, 1000.0)
    else:
        number, prefix = _plain(100.0 * value if unit == "ratio" else value, digits), ""
    return f"{number} {prefix}{UNITS.get(unit, '')}".rstrip()


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
