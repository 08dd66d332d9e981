"""The JSON Schema that ships is that of the model, and says what a stored run is."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bench.store.documents import json_schema, schema_text
from bench.store.runs import Store
from tests.store.sample import judged, measured

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "bench" / "run.schema.json"


def test_the_shipped_file_is_the_generated_one() -> None:
    assert json.loads(SHIPPED.read_text()) == json_schema(), "python -m bench.store.documents > bench/run.schema.json"


def test_the_command_prints_it() -> None:
    argv = [sys.executable, "-m", "bench.store.documents"]
    assert subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout == schema_text()


def test_it_is_a_schema_and_a_stored_run_is_valid_by_it(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    for run in (measured(), judged(measured(id="b"))):
        jsonschema.validate(json.loads(Store(tmp_path).save(run).read_text()), json_schema())


def _without(document: Any, *place: Any) -> Any:
    document = deepcopy(document)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    return document


@pytest.mark.parametrize(
    "place",
    [("schema",), ("schema_version",), ("id",), ("node",), ("node", "hostname"), ("results", 0, "outcome"),
     ("results", 0, "measurements", 0, "interval"), ("verdicts", 0, "decision")],
)  # fmt: skip
def test_what_the_contract_promises_is_required(place: tuple[Any, ...]) -> None:
    document = json.loads(judged(measured()).model_dump_json())
    jsonschema.validate(document, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(_without(document, *place), json_schema())


def test_the_words_of_the_contract_are_the_schemas() -> None:
    definitions = json_schema()["$defs"]
    assert definitions["Outcome"]["enum"] == ["ok", "skipped", "unsupported", "failed", "timed_out"]
    assert definitions["Decision"]["enum"] == ["GO", "NO-GO", "INCONCLUSIVE"]
    assert definitions["Status"]["enum"] == ["pass", "fail", "no_data", "undecided"]
