"""The fleet document itself, as `bench fleet join --json` prints it. ASCII only, as for a run."""

from __future__ import annotations

import json

from bench.show.fleet_formats import FleetExport


def render(export: FleetExport) -> str:
    return json.dumps(export.fleet.model_dump(mode="json", by_alias=True), indent=2, allow_nan=False) + "\n"
