"""Families of gauges as text that both of Prometheus' readers take: the classic exposition format 0.0.4 and OpenMetrics
1.0 (``# UNIT`` and ``# EOF`` are comments to the first).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bench.show.text import clean
from bench.units import unit_of

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]


@dataclass(slots=True)
class Family:
    """One name: its help, and a value by labels."""

    help: str
    samples: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)

    def add(self, labels: Labels, value: float) -> None:
        """A second sample with the same labels would make the whole file unreadable: it is told apart."""
        key, number = _key(labels), 1
        while key in self.samples:
            number += 1
            key = _key({**labels, "again": str(number)})
        self.samples[key] = value


def _key(labels: Labels) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, clean(value, 500)) for name, value in labels.items()))


def of_values(name: str, labels: Labels, key: str, values: Iterable[str], now: str) -> Iterator[Sample]:
    for value in values:
        yield name, {**labels, key: str(value)}, float(value == now)


def written(families: Mapping[str, Family]) -> str:
    """The whole text; a family without a sample is left out."""
    return "".join(_family(name, family) for name, family in families.items() if family.samples) + "# EOF\n"


def _family(name: str, family: Family) -> str:
    unit = unit_of(name)
    lines = [f"# HELP {name} {_help(family.help)}", f"# TYPE {name} gauge"]
    if unit and unit != "info":
        lines.append(f"# UNIT {name} {unit}")
    lines += [f"{name}{_braces(key)} {_number(value)}" for key, value in family.samples.items()]
    return "\n".join(lines) + "\n"


def _braces(key: tuple[tuple[str, str], ...]) -> str:
    inside = ",".join(f'{name}="{_escape(value)}"' for name, value in key)
    return f"{{{inside}}}" if inside else ""


def _escape(value: str) -> str:
    """Label values: backslash, quote and newline, in this order (exposition formats)."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _help(text: str) -> str:
    return _escape(clean(text))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
