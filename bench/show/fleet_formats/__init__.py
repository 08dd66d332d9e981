"""A fleet document in the words of other programs: one file a format, on the same writers as a single run's.

Every named host stands in each of them with its one state; a host without a result is an error and never left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.judge.fleet.model import Fleet

#: Name on the command line -> the module that renders it.
FORMATS = {
    "openmetrics": "openmetrics",
    "junit": "junit",
    "ctrf": "ctrf",
    "markdown": "markdown",
    "nagios": "nagios",
    "json": "fleet_json",
}


@dataclass(frozen=True, slots=True)
class FleetExport:
    """A joined fleet. ``stale`` says why it is too old to answer for the nodes now; a plugin's answer is "unknown"."""

    fleet: Fleet
    stale: str | None = None


def render(name: str, export: FleetExport) -> bytes:
    """The fleet in that format. Raises KeyError for an unknown format."""
    module = importlib.import_module(f"{__name__}.{FORMATS[name]}")
    rendered: Callable[[FleetExport], str] = module.render
    return rendered(export).encode("utf-8", "replace")
