"""Which profiles a run is judged by: those that were named, else the shipped ones that have their input."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.model import Effort, Request
from bench.workflows import catalog

ALWAYS = "batch-inference distributed-training realtime-inference".split()
GATE = '[[gate]]\nmetric = "network_loss_ratio"\nmax = 0.1\nsource = "s"\n'


def judged_by(options: dict[str, str], wanted: list[str] | None = None) -> set[str]:
    asked = catalog.load_catalog(wanted).of(Request(effort=Effort.QUICK, probes=(), options=options))
    assert asked.conditional == () and asked.of(Request(effort=Effort.QUICK, probes=())) == asked
    return {profile.name for profile in asked.profiles}


@pytest.fixture
def needing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shipped profile that needs declared checks."""
    file = tmp_path / "declared.toml"
    file.write_text(f'name = "declared"\nneeds = "checks"\n{GATE}')
    shipped = {**catalog.shipped_profiles(), "declared": file}
    monkeypatch.setattr(catalog, "shipped_profiles", lambda: shipped)
    return "declared"


def test_a_profile_is_judged_by_default_where_its_input_was_named(needing: str) -> None:
    assert needing not in judged_by({})
    assert judged_by({}) >= set(ALWAYS)
    assert judged_by({"checks": "checks.toml"}) == judged_by({}) | {needing, "governance"}


def test_a_profile_that_is_named_is_judged_whatever_the_request_has(needing: str) -> None:
    assert judged_by({}, [needing]) == {needing}
    assert judged_by({"checks": "checks.toml"}, ["batch-inference"]) == {"batch-inference"}
