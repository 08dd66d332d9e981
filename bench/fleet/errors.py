"""What ends a fleet command before there is a fleet verdict."""

from __future__ import annotations


class FleetError(Exception):
    """One line that names the thing that is wrong and what mends it."""


class Occupied(FleetError):
    """Another controller works on that run."""
