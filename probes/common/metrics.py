"""How a probe declares many metrics of one kind: a table of names, help texts, own labels and directions."""

from __future__ import annotations

from typing import Literal

from bench.model import Metric

#: Name, help, labels separated by spaces, and what is better.
Row = tuple[str, str, str, Literal["higher", "lower", "none"]]


def metrics(*rows: Row, first: str = "", last: str = "") -> tuple[Metric, ...]:
    """The metrics of a table. All of them carry the labels ``first`` before their own, and ``last`` after them."""
    return tuple(
        Metric(name=name, help=text, labels=(*first.split(), *labels.split(), *last.split()), better=better)
        for name, text, labels, better in rows
    )
