"""``bench probes`` and ``bench profiles``: what is there."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.output import emit
from bench.workflows import site as settings

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def probes(json: Json = False) -> int:
    """The probes, and every metric that each can measure, with unit and labels.

    Examples:  bench probes    bench probes --json | jq -r .[].metrics[].name
    """
    from bench.show.catalog import probes_table
    from probes import discover

    found = discover()
    if json:
        from json import dumps

        listed = [
            {"probe": p.name, "help": p.help, "metrics": [{**m.model_dump(), "unit": m.unit} for m in p.metrics]}
            for p in found
        ]
        emit(dumps(listed, indent=2))
    else:
        emit(probes_table(found))
    return 0


def profiles(json: Json = False) -> int:
    """The shipped profiles, and the gates of each with their limits and sources.

    Examples:  bench profiles    bench profiles --json
    """
    from bench.show.catalog import profiles_table

    found = settings.load_profiles([], settings.declared_metrics())
    if json:
        from json import dumps

        emit(dumps([{**p.model_dump(mode="json"), "digest": p.digest} for p in found], indent=2))
    else:
        emit(profiles_table(found))
    return 0
