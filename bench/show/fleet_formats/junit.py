"""The fleet as JUnit XML: one suite for the verdicts, one with every host, one with every pair, and so on."""

from __future__ import annotations

from bench.judge.fleet.model import Fleet
from bench.show.export import junit
from bench.show.fleet_formats import FleetExport
from bench.show.fleet_formats.cases import suites


def render(export: FleetExport) -> str:
    fleet = export.fleet
    return junit.document(suites(fleet), "", fleet.measured_at or fleet.joined_at, 0.0, facts(fleet))


def facts(fleet: Fleet) -> dict[str, str]:
    """What the fleet document says of itself; what it does not know is left out."""
    found = {
        "fleet": fleet.id,
        "decision": fleet.decision.value,
        "measured_at": fleet.measured_at,
        "joined_at": fleet.joined_at,
        "bench_version": fleet.bench_version,
    }
    return {name: value for name, value in found.items() if value}
