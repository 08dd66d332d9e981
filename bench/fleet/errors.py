"""What ends a fleet command before there is a fleet verdict."""

from __future__ import annotations

from bench.errors import UserError


class FleetError(UserError):
    """One line that names the thing that is wrong and what mends it."""


class Occupied(FleetError):
    """Another controller works on that run."""
