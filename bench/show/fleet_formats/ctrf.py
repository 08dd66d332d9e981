"""The fleet as Common Test Report Format; what is missing or suspected is ``failed`` with our own word beside it."""

from __future__ import annotations

from bench.show.export import ctrf
from bench.show.export.cases import moment
from bench.show.fleet_formats import FleetExport
from bench.show.fleet_formats.cases import suites
from bench.show.fleet_formats.junit import facts


def render(export: FleetExport) -> str:
    fleet = export.fleet
    times = (moment(fleet.measured_at or fleet.joined_at), moment(fleet.joined_at))
    return ctrf.document(suites(fleet), times, fleet.bench_version, facts(fleet))
