"""The run document itself, with its verdicts: what `bench run --json` printed, or would print today."""

from __future__ import annotations

from bench.show.formats import Export


def render(export: Export) -> str:
    return export.run.model_dump_json(indent=2) + "\n"
