"""The JSON Schema of the run document, made from the model.

``python -m bench.store.schema > bench/run.schema.json`` makes the shipped file anew.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from bench.model import SCHEMA, SCHEMA_VERSION, Run


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what ``Store.save`` writes and ``load`` reads."""
    schema = Run.model_json_schema(by_alias=True, mode="serialization")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('/', ':')}:{SCHEMA_VERSION}",
        "title": f"{SCHEMA}, version {SCHEMA_VERSION}",
    }
    schema["required"] = ["schema", "schema_version", *schema["required"]]
    return head | {key: value for key, value in schema.items() if key not in head}


def text() -> str:
    """The schema as it is shipped and printed."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
