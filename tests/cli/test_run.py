"""One whole quick run on this machine, with the real tools, and what is stored of it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cli.bench import bench

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("quick")
    env = {"BENCH_LOCK": str(folder / "lock")}
    done = bench("run", "--effort", "quick", "--json", "--results", folder, cwd=folder, env=env)
    assert done.returncode in (1, 3), done.stderr  # no GPU and no peer: GO would be a lie
    return folder, json.loads(done.stdout), done.stderr


def test_the_document_is_the_contract_s(quick: tuple[Path, dict[str, Any], str]) -> None:
    folder, document, _ = quick
    schema = json.loads(bench("run", "--print-schema", cwd=folder).stdout)
    jsonschema.validate(document, schema)
    (stored,) = folder.glob("runs/*/*.json")
    assert json.loads(stored.read_text()) == document
    assert stored.stem.endswith(document["id"])
    assert {v["profile"] for v in document["verdicts"]} == {
        "distributed-training", "realtime-inference", "batch-inference"
    }  # fmt: skip


def test_every_probe_has_an_outcome_and_the_measuring_ones_measured(
    quick: tuple[Path, dict[str, Any], str],
) -> None:
    outcomes = {r["probe"]: (r["outcome"], r["reason"]) for r in quick[1]["results"]}
    for probe in ("storage", "network", "inference", "feed", "host"):
        assert outcomes[probe] == ("ok", None)
    assert outcomes["gpu"][0] in ("ok", "unsupported")


CONTRACT_METRICS = {
    "storage_read_bytes_per_second": {"path", "pattern", "block_bytes"},
    "storage_write_bytes_per_second": {"path", "pattern", "block_bytes"},
    "storage_read_operations_per_second": {"path", "pattern", "block_bytes"},
    "storage_read_latency_seconds": {"path", "pattern", "statistic"},
    "storage_write_latency_seconds": {"path", "pattern", "statistic"},
    "network_throughput_bytes_per_second": {"peer", "direction"},
    "network_retransmits": {"peer", "direction"},
    "network_jitter_seconds": {"peer", "direction"},
    "network_loss_ratio": {"peer", "direction"},
    "accelerator_busy_ratio": {"stage", "device"},
    "inference_tokens_per_second": {"stage"},
    "inference_first_token_seconds": {"stage", "statistic"},
    "inference_inter_token_seconds": {"stage", "statistic"},
    "inference_samples_per_second": {"stage"},
    "starvation_ratio": {"path", "component"},
    "storage_headroom_ratio": {"path"},
    "accelerators_feedable": {"path"},
}


@pytest.mark.parametrize("metric", CONTRACT_METRICS)
def test_the_contract_s_metrics_are_there_with_their_labels(
    quick: tuple[Path, dict[str, Any], str], metric: str
) -> None:
    found = [m for r in quick[1]["results"] for m in r["measurements"] if m["metric"] == metric]
    assert found
    for measurement in found:
        assert CONTRACT_METRICS[metric] <= set(measurement["labels"])
        low, high = measurement["interval"]
        assert low <= measurement["value"] <= high


def test_storage_figures_stand_on_five_repeats(quick: tuple[Path, dict[str, Any], str]) -> None:
    found = [
        m
        for r in quick[1]["results"]
        for m in r["measurements"]
        if m["metric"].startswith("storage_") and m["metric"].endswith("_bytes_per_second")
    ]
    assert found
    assert all(len(m["repeats"]) >= 5 for m in found)


def test_stand_ins_say_so_and_decide_nothing(quick: tuple[Path, dict[str, Any], str]) -> None:
    measurements = [m for r in quick[1]["results"] for m in r["measurements"]]
    network = [m for m in measurements if m["metric"].startswith("network_")]
    assert network
    assert all(m["labels"].get("stand_in") == "loopback" for m in network)
    for verdict in quick[1]["verdicts"]:
        gated = [f for f in verdict["findings"] if f["metric"].startswith("network_")]
        assert all(f["status"] == "no_data" for f in gated)


def test_the_parts_of_starvation_sum_to_the_whole(quick: tuple[Path, dict[str, Any], str]) -> None:
    parts = {
        m["labels"]["component"]: m["value"]
        for r in quick[1]["results"]
        for m in r["measurements"]
        if m["metric"] == "starvation_ratio"
    }
    assert parts["total"] == pytest.approx(sum(v for k, v in parts.items() if k != "total"), abs=1e-6)


def test_evidence_is_there_and_verifies(quick: tuple[Path, dict[str, Any], str]) -> None:
    folder, document, _ = quick
    (stored,) = folder.glob("runs/*/*.json")
    kept = [e for r in document["results"] for e in r["evidence"]]
    assert kept
    for evidence in kept:
        assert hashlib.sha256((stored.parent / evidence["path"]).read_bytes()).hexdigest() == evidence["sha256"]


def test_nothing_but_the_run_is_left(quick: tuple[Path, dict[str, Any], str]) -> None:
    assert {path.name for path in quick[0].iterdir()} <= {"runs", "lock"}


def test_progress_is_plain_lines_on_standard_error(quick: tuple[Path, dict[str, Any], str]) -> None:
    assert re.search(r"^storage: \d+ figures in \d+ s$", quick[2], re.M)
    assert "\x1b" not in quick[2]


def test_it_can_be_judged_explained_and_shown_again(quick: tuple[Path, dict[str, Any], str]) -> None:
    folder, document, _ = quick
    gate = bench("gate", document["id"], "--results", folder, "--json", cwd=folder)
    again = {v["profile"]: v["decision"] for v in json.loads(gate.stdout)["verdicts"]}
    assert again == {v["profile"]: v["decision"] for v in document["verdicts"]}
    screen = bench("gate", document["id"], "--results", folder, cwd=folder).stdout
    assert "realtime-inference" in screen
    explained = bench("explain", document["id"], "storage_read", "--results", folder, cwd=folder).stdout
    assert "fio" in explained
    assert ".json:" in explained


def test_a_replay_measures_nothing_and_finds_the_same(quick: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    folder, document, _ = quick
    shutil.copytree(folder / "runs", tmp_path / "runs")
    (raw,) = tmp_path.glob("runs/*/*.raw")
    done = bench("run", "--replay", raw, "--json", "--results", tmp_path, cwd=tmp_path)
    replayed = json.loads(done.stdout)
    assert replayed["replay_of"] == document["id"]

    def figures(run: dict[str, Any]) -> list[tuple[str, float]]:
        return sorted((m["metric"], m["value"]) for r in run["results"] for m in r["measurements"])

    assert figures(replayed) == figures(document)
