"""The run document itself, with its verdicts: what `bench run --json` printed, or would print today.

ASCII only: a control character of a foreign name is an escape here, so that a terminal may show the document.
"""

from __future__ import annotations

import json

from bench.show.export import Export


def render(export: Export) -> str:
    return json.dumps(export.run.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"
