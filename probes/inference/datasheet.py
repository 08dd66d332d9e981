"""The shipped table of accelerators: what each promises, and below what a sound one never falls.

A limit outside 0.3 to 1.0 of its promise is refused when the table is read, so that a slip of a unit cannot ship.
"""

from __future__ import annotations

import datetime
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, Field, FiniteFloat, ValidationError, model_validator

FILE = Path(__file__).with_name("accelerators.toml")
LEAST_SHARE, MOST_SHARE = 0.3, 1.0

Positive = Annotated[FiniteFloat, Field(gt=0)]
Source = Annotated[str, Field(min_length=10)]


class TableError(ValueError):
    """The table cannot be used: the file, the card, and what is wrong with it."""


class CardLimit(BaseModel, frozen=True, strict=True, extra="forbid"):
    """The least that a sound card reaches, in the quantity's own unit, with its source."""

    min: Positive
    source: Source
    date: datetime.date


class CardType(BaseModel, frozen=True, strict=True, extra="forbid"):
    """One kind of accelerator: its promises in base units, and its limits by the same names."""

    names: tuple[str, ...] = Field(strict=False)
    matmul_flops_per_second: Positive
    memory_bytes_per_second: Positive
    pcie_bytes_per_second: Positive
    power_watts: Positive
    source: Source
    date: datetime.date
    limits: dict[str, CardLimit] = {}

    @property
    def promises(self) -> dict[str, float]:
        """What the data sheet promises, by quantity."""
        return {name: value for name, value in self if name.endswith("_per_second")}

    @model_validator(mode="after")
    def _limits_are_possible(self) -> Self:
        for quantity, limit in self.limits.items():
            share = limit.min / self.promises.get(quantity, float("inf"))
            if not LEAST_SHARE <= share <= MOST_SHARE:
                raise ValueError(
                    f"the limit of {quantity}, {limit.min:g}, is {share:.3g} of its data sheet; "
                    f"a limit lies between {LEAST_SHARE} and {MOST_SHARE} of it"
                )
        return self


class _Table(BaseModel, frozen=True, strict=True, extra="forbid"):
    card: tuple[CardType, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        times = Counter(name for card in self.card for name in card.names)
        if twice := sorted(name for name, count in times.items() if count > 1):
            raise ValueError(f"a card is there twice: {twice}")
        return self


def find(name: str) -> CardType | None:
    """The kind of a card by the driver's name for it, or None where the table has none."""
    return next((card for card in table() if name.strip() in card.names), None)


@cache
def table(file: Path = FILE) -> tuple[CardType, ...]:
    """Every kind. Raises TableError, one line."""
    try:
        return _Table.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))).card
    except ValidationError as error:
        mistakes = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise TableError(f"{file}: {'; '.join(mistakes)}") from error
    except (OSError, ValueError) as error:
        raise TableError(f"{file}: {error}") from error
