"""The shipped table of accelerators: what each promises, and below what a sound one never falls.

A limit outside 0.3 to 1.0 of its promise is refused when the table is read, so that a slip of a unit cannot ship.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("accelerators.toml")
#: What is measured, and the promise that it is held against.
QUANTITIES = ("matmul_flops_per_second", "memory_bytes_per_second", "pcie_bytes_per_second")
LEAST_SHARE, MOST_SHARE = 0.3, 1.0


class TableError(ValueError):
    """The table cannot be used: the file, the card, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class CardLimit:
    """The least that a sound card reaches, in the quantity's own unit, with its source."""

    min: float
    source: str
    date: datetime.date


@dataclass(frozen=True, slots=True)
class CardType:
    """One kind of accelerator. Promises and limits by quantity, in base units."""

    names: tuple[str, ...]
    promises: Mapping[str, float]
    limits: Mapping[str, CardLimit]
    power_watts: float
    source: str
    date: datetime.date


def find(name: str) -> CardType | None:
    """The kind of a card by the driver's name for it, or None where the table has none."""
    return next((card for card in table() if name.strip() in card.names), None)


@cache
def table(file: Path = FILE) -> tuple[CardType, ...]:
    """Every kind. Raises TableError, one line."""
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8"))["card"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        raise TableError(f"{file}: {error}") from error
    cards = tuple(_card(file, entry) for entry in entries)
    names = [name for card in cards for name in card.names]
    if len(names) != len(set(names)):
        raise TableError(f"{file}: a card is there twice: {sorted({n for n in names if names.count(n) > 1})}")
    return cards


def _card(file: Path, entry: Mapping[str, Any]) -> CardType:
    where = f"{file}: card {entry.get('names')}"
    try:
        card = CardType(
            names=tuple(entry["names"]),
            promises={quantity: _positive(entry[quantity]) for quantity in QUANTITIES},
            limits={quantity: _limit(limit) for quantity, limit in entry.get("limits", {}).items()},
            power_watts=_positive(entry["power_watts"]),
            source=_said(entry["source"]),
            date=_dated(entry["date"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise TableError(f"{where}: {type(error).__name__}: {error}") from error
    for quantity, limit in card.limits.items():
        share = limit.min / card.promises.get(quantity, 0.0) if quantity in card.promises else 0.0
        if not LEAST_SHARE <= share <= MOST_SHARE:
            raise TableError(
                f"{where}: the limit of {quantity}, {limit.min:g}, is {share:.3g} of its data sheet; "
                f"a limit lies between {LEAST_SHARE} and {MOST_SHARE} of it"
            )
    return card


def _limit(entry: Mapping[str, Any]) -> CardLimit:
    return CardLimit(_positive(entry["min"]), _said(entry["source"]), _dated(entry["date"]))


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise ValueError(f"{value!r} is not a positive number")
    return float(value)


def _said(value: Any) -> str:
    if not isinstance(value, str) or len(value) < 10:
        raise ValueError(f"{value!r} is not a source")
    return value


def _dated(value: Any) -> datetime.date:
    if not isinstance(value, datetime.date):
        raise ValueError(f"{value!r} is not a date")
    return value
