"""Nothing that a user had is gone: every command, option, probe, metric, label, profile, gate, format and effort."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.golden.said import said
from tests.golden.standing import GOES, recorded, standing

STOOD = recorded()
OPTIONS = [(one["probe"], one["name"], value) for one in STOOD["probe options"] for value in one["values"]]
#: How a probe is asked so that it ends at once, without a measurement: what it needs is not there.
AT_ONCE: Mapping[str, Sequence[str]] = {
    "feed": ("--storage", "/sys", "--accelerator", "emulated"),
    "inference": ("--accelerator", "emulated"),
    "network": ("--peer", "127.0.0.1:1"),
    "collective": ("--peer", "127.0.0.1:1"),
    "rdma": ("--peer", "127.0.0.1:1"),
}


@pytest.fixture(scope="module")
def stands() -> dict[str, Any]:
    return standing()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(secrets.token_hex(32))
    path.chmod(0o600)
    return path


def run(words: Sequence[str], tmp_path: Path) -> dict[str, Any]:
    """The document of a run that measures nothing. It must not be refused as wrong usage."""
    found = said(["run", "--effort", "quick", "--no-quiet-check", "--json", *words], tmp_path, tmp_path)
    assert found.status == 3, found.err
    document: dict[str, Any] = json.loads(found.text())
    return document


@pytest.mark.parametrize("command", STOOD["commands"])
def test_a_command_has_its_options(command: str, stands: dict[str, Any]) -> None:
    had, has = STOOD["commands"][command], stands["commands"].get(command)
    assert has is not None, "the command is gone"
    assert set(had) - set(has) == set(), "options are gone"
    assert {word for word, does in had.items() if set(does) - set(has[word])} == set(), "options can do less"


@pytest.mark.parametrize("probe", STOOD["probes"])
def test_a_probe_has_its_metrics(probe: str, stands: dict[str, Any]) -> None:
    had, has = STOOD["probes"][probe], stands["probes"].get(probe)
    assert has is not None, "the probe is gone"
    assert set(had) - set(has) == set()
    for name, metric in had.items():
        assert (has[name]["unit"], has[name]["better"]) == (metric["unit"], metric["better"]), name
        assert set(metric["labels"]) - set(has[name]["labels"]) == set(), name


@pytest.mark.parametrize("profile", STOOD["profiles"])
def test_a_profile_has_its_gates(profile: str, stands: dict[str, Any]) -> None:
    has = stands["profiles"].get(profile)
    assert has is not None, "the profile is gone"
    assert [gate for gate in STOOD["profiles"][profile] if gate not in has] == []


@pytest.mark.parametrize("choice", ["export formats", "fleet export formats", "efforts"])
def test_every_choice_is_there(choice: str, stands: dict[str, Any]) -> None:
    assert set(STOOD[choice]) - set(stands[choice]) == set()


@pytest.mark.parametrize(("probe", "name", "value"), OPTIONS, ids=["-".join(option) for option in OPTIONS])
def test_an_option_that_a_probe_reads_is_taken(probe: str, name: str, value: str, tmp_path: Path, key: Path) -> None:
    word = str(key) if value == "KEY" else value
    document = run(["--probe", probe, *AT_ONCE[probe], "--option", f"{name}={word}"], tmp_path)
    assert document["request"]["options"][name] == word
    assert next(result["outcome"] for result in document["results"] if result["probe"] == probe) != "skipped"


@pytest.mark.parametrize("name", STOOD["emulated accelerators"])
def test_an_accelerator_can_be_emulated(name: str, tmp_path: Path) -> None:
    document = run(["--probe", "feed", "--storage", "/sys", "--accelerator", f"emulated:{name}"], tmp_path)
    reasons = [result["reason"] for result in document["results"] if result["probe"] == "feed"]
    assert reasons == ["refused: /sys is not a place for data"]


@pytest.mark.parametrize(("name", "value"), [("pattern", "none"), ("loader", "none"), ("workload", "none")])
def test_what_no_probe_knows_is_refused(name: str, value: str, tmp_path: Path) -> None:
    words = [
        "run",
        "--effort",
        "quick",
        "--probe",
        "feed",
        "--storage",
        "/sys",
        "--accelerator",
        "cpu",
        f"--{name}",
        value,
    ]
    found = said(words, tmp_path, tmp_path)
    assert (found.status, found.out) == (2, b"") and repr(value) in found.err


def test_what_goes_is_not_in_the_lists() -> None:
    assert not set(GOES) & set(STOOD["commands"])
