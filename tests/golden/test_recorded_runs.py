"""Stored runs are read, judged, explained, compared and exported to the letter as when they were recorded.

Left out is what no text of ours decides: how the drawing library lays the lines of a picture, and the version in the
last line of a page. A difference that is meant is written by ``python -m tests.golden recorded``: read it, then commit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.judge.gate import exit_status, worst_of
from bench.model import Decision
from tests.golden import recorded
from tests.golden.said import ends, said

ASKED = [(name, file) for name in recorded.RUNS for file in recorded.commands(name)]


@pytest.mark.parametrize(("name", "file"), ASKED, ids=[f"{name}-{file}" for name, file in ASKED])
def test_a_recorded_run_is_told_as_before(name: str, file: str, where: Path) -> None:
    recorded.check(name, file, where)


@pytest.mark.parametrize("name", recorded.RUNS)
def test_a_recorded_run_is_exported_as_it_was_stored(name: str, where: Path) -> None:
    document = json.loads((recorded.FOLDER / "runs" / f"{name}.json").read_text(encoding="utf-8"))
    found = said(["export", document["id"], "-f", "json", "--results", "results"], where, where)
    assert (found.status, found.err) == (0, "")
    assert found.text() == json.dumps(document, indent=2) + "\n"


@pytest.mark.parametrize("name", recorded.RUNS)
def test_the_tools_recorded_output_reads_as_it_did(name: str, where: Path) -> None:
    """Replayed, every probe that measured finds the same figures, series and warnings, and they are judged the same."""
    document = json.loads((recorded.FOLDER / "runs" / f"{name}.json").read_text(encoding="utf-8"))
    raw = next((where / "results").rglob(f"*-{document['id']}.raw")).relative_to(where)
    found = said(["run", "--replay", str(raw), "--results", "replayed", "--json", "--quiet"], where, where)
    replayed = json.loads(found.text())
    decisions = [Decision(verdict["decision"]) for verdict in replayed["verdicts"]]
    assert (found.status, found.err) == (exit_status(worst_of(decisions)), "")
    assert dict(_figures(replayed)) == dict(_figures(document))
    assert replayed["attribution"] == document["attribution"]
    again = said(["gate", document["id"], "--results", "results", "--json"], where, where)
    known = _findings(json.loads(again.text()))
    assert known and {key: _findings(replayed).get(key) for key in known} == known


def _figures(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for result in document["results"]:
        if result["outcome"] == "ok":
            yield result["probe"], {k: v for k, v in result.items() if k not in ("duration_seconds", "evidence")}


def _findings(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """But for those without a figure: a replay has reasons of its own for a probe that had nothing to record."""
    return {
        json.dumps([verdict["profile"], at]): finding
        for verdict in document["verdicts"]
        for at, finding in enumerate(verdict["findings"])
        if finding["observed"] is not None
    }


@pytest.mark.parametrize("name", recorded.names())
def test_every_golden_is_asked_for(name: str) -> None:
    kept = {path.name for path in (recorded.GOLDEN / name).iterdir()} - {"ends.json"}
    assert kept == set(recorded.commands(name)) == set(ends(recorded.GOLDEN / name))
