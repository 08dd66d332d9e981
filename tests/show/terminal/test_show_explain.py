"""The lineage of a verdict: every figure down to the file, the command and the version it came from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.judge.profile import Gate, Profile
from bench.measure.probe import Probe
from bench.model import Effort, Evidence, Metric, Outcome, ProbeResult, Run, Status
from bench.show.catalog import probes_table, profiles_table
from bench.show.raw_output import Lines
from bench.show.terminal.lineage import Lineage, explain, gate_paths, named
from tests.show.terminal.sample import READ, STEM, cpu_run

CONTENT = b'{"jobs": []}'
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def traced(path: str = f"{STEM}.raw/0001.json", digest: str = DIGEST) -> Run:
    evidence = (Evidence(path=path, sha256=digest),)
    return cpu_run(results=(ProbeResult(probe="storage", outcome=Outcome.OK, measurements=(READ,), evidence=evidence),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    raw = tmp_path / f"{STEM}.raw"
    raw.mkdir()
    (raw / "0001.json").write_bytes(CONTENT)
    call = {"probe": "storage", "name": "read", "argv": ["/usr/bin/fio", "--name=a b"], "returncode": 0,
            "seconds": 12.1, "stdout": "0001.json", "sha256": DIGEST}  # fmt: skip
    others = [{**call, "probe": "network", "argv": ["iperf3"]}, {**call, "argv": []}, {**call, "argv": "fio"}, [1], 7]
    lines = [json.dumps(call), "not json", "", "[" * 100_000, *map(json.dumps, others)]
    (raw / "tools.jsonl").write_text("\n".join(lines))
    return tmp_path


def first_gate(folder: Path | None, run: Run | None = None) -> str:
    run = run or traced()
    return Lineage(run, folder, lambda *_: [Lines(f"{STEM}.raw/0001.json", 1, 1, '{"jobs": []}')]).one(
        next(path for path in gate_paths(run) if path.finding.metric == READ.metric)
    )


def test_a_figure_leads_to_gate_source_line_command_and_version(folder: Path) -> None:
    text = " ".join(first_gate(folder).split())
    for part in (
        "NO-GO distributed-training",
        "fail: storage read asked",
        "asked by distributed-training (required)",
        "needed >= 2.15 GB/s",
        "because a source, section 4",
        "observed 1.05 GB/s (0.998 to 1.1), 51 % short",
        "fix Check the mount's options",
        'measured storage_read_bytes_per_second{path="/data", pattern="sequential"',
        "= 1050000000.0",
        "5 samples; repeats 1.02375e+09, 1.05e+09, 1.07625e+09",
        f'raw output {folder}/{STEM}.raw/0001.json:1 {{"jobs": []}} command read: status 0, 12.1 s',
        "/usr/bin/fio '--name=a b'",
        "versions aiready-bench 1.2.3",
        "fio fio-3.33",
        "kernel 6.1.0",
    ):
        assert part in text, part
    assert "iperf3" not in text.partition("versions")[0]
    assert text.count("command ") == 1


def test_the_gate_that_decided_stands_first_and_each_gate_once() -> None:
    run = cpu_run()
    paths = gate_paths(run)
    assert [path.finding.required for path in paths] == sorted((p.finding.required for p in paths), reverse=True)
    statuses = [path.finding.status for path in paths if path.finding.required]
    assert statuses[:2] == [Status.FAIL, Status.FAIL] and statuses[-1] is Status.PASS
    distances = [abs(p.finding.observed / p.finding.limit.max - 1) if p.finding.limit.max else 0.5
                 for p in paths[:2] if p.finding.observed]  # fmt: skip
    assert distances == sorted(distances, reverse=True)
    (shared,) = [path for path in paths if path.finding.metric == "accelerator_throttle_ratio"]
    assert [verdict.profile for verdict in shared.verdicts] == ["distributed-training", "realtime-inference"]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("network_jitter_seconds", "network jitter"),
        ("jitter", "network jitter"),
        ("Storage READ deep", "storage read"),
        ("starvation (total)", "waiting for data"),
        ("waiting for data", "waiting for data"),
        ("batch-inference", "storage read latency p99"),
    ],
)
def test_a_gate_is_found_by_metric_words_name_or_profile(name: str, first: str) -> None:
    assert named(gate_paths(cpu_run()), name)[0].name == first
    assert named(gate_paths(cpu_run()), "nothing of the kind") == []


def test_all_gates_and_all_probes_stand_in_the_whole(folder: Path) -> None:
    text = explain(cpu_run(), folder)
    assert [path.name for path in gate_paths(cpu_run()) if path.name not in text] == []
    assert "probe      gpu: unsupported".replace("      ", "       ") in text
    assert "io_uring is not allowed here; libaio was used" in text


def test_a_gate_without_data_leads_to_its_probes_end() -> None:
    run = cpu_run()
    silent = next(path for path in gate_paths(run) if path.finding.metric == "accelerator_throttle_ratio")
    text = Lineage(run, None).one(silent)
    assert "measured    nothing that carries these labels" in text
    assert "probe       gpu: unsupported, 0.0 s, libnvidia-ml.so.1 is not installed" in text
    assert text.count("install the NVIDIA driver") == 1


def test_a_metric_without_a_gate_is_explained_by_its_measurement(folder: Path) -> None:
    text = Lineage(traced().model_copy(update={"verdicts": ()}), folder).of_metric(READ.metric)
    assert f"No gate names {READ.metric}." in text
    assert "by the probe storage" in text


def test_evidence_that_was_changed_or_removed_is_seen(folder: Path) -> None:
    file = folder / f"{STEM}.raw" / "0001.json"
    assert "not looked at" in explain(traced())
    file.write_bytes(CONTENT + b" ")
    assert "CHANGED since it was measured" in explain(traced(), folder)
    assert "0001.json:1 CHANGED since it was measured" in first_gate(folder)
    file.unlink()
    assert "NOT THERE" in explain(traced(), folder)
    assert "0001.json:1 NOT THERE" in first_gate(folder)


def linked(folder: Path) -> str:
    (folder / f"{STEM}.raw" / "link").symlink_to(folder / "secret")
    return f"{STEM}.raw/link"


def folder_linked(folder: Path) -> str:
    (folder / "out.raw").symlink_to(folder.parent)
    (folder.parent / "secret").write_bytes(CONTENT)
    return "out.raw/secret"


def piped(folder: Path) -> str:
    os.mkfifo(folder / f"{STEM}.raw" / "pipe")
    return f"{STEM}.raw/pipe"


@pytest.mark.parametrize(
    "place",
    [
        linked, folder_linked, piped, lambda folder: str(folder / "secret"), lambda _: "../secret", lambda _: "",
        lambda folder: f"{STEM}.raw/../../{folder.name}/secret", lambda _: f"{STEM}.raw", lambda _: "a\0b",
        lambda _: "/",
    ],
)  # fmt: skip
def test_a_path_in_a_document_reads_nothing_outside_of_the_runs_folder(
    folder: Path, place: Callable[[Path], str]
) -> None:
    (folder / "secret").write_bytes(CONTENT)
    text = explain(traced(place(folder)), folder)
    assert "NOT THERE, or not a file of this run" in text
    assert "unchanged" not in text


def test_hostile_text_stays_text(folder: Path) -> None:
    evil = "\x1b[2J\x1b]0;x\x07evil\nGO p"
    call = {"probe": "storage", "name": evil, "argv": ["fio", evil], "returncode": evil, "stdout": evil, "error": evil}
    (folder / f"{STEM}.raw" / "tools.jsonl").write_text(json.dumps(call))
    run = traced()
    facts = {"versions": {evil: evil, "deep": {"a": 1}}, "kernel": [1], "os": evil}
    node = run.node.model_copy(update={"hostname": evil, "fingerprint": evil, "facts": facts})
    text = explain(run.model_copy(update={"node": node, "bench_version": evil, "replay_of": evil}), folder)
    assert "evil GO p" in text
    assert not any(line.startswith("GO") for line in text.splitlines()[:3])
    assert all(line.isprintable() or not line for line in text.split("\n"))


# --- tables


def test_the_probes_table_names_metric_unit_labels_and_help() -> None:
    metrics = (
        Metric(name="a_read_bytes_per_second", help="How fast.", labels=("path", "pattern"), better="higher"),
        Metric(name="a_retransmits", help="How many."),
    )
    probe = Probe("a", "Reads things.", metrics, {Effort.QUICK: 1.0}, measure=lambda _: ())
    text = probes_table([probe])
    assert text.splitlines()[0] == "a: Reads things."
    assert "  a_read_bytes_per_second  {path, pattern}\n      bytes_per_second; higher is better: How fast.\n" in text
    assert "  a_retransmits\n      a count: How many.\n" in text


def test_the_profiles_table_names_each_gate_with_its_limit_and_source() -> None:
    gate = Gate(metric="a_ratio", labels={"component": "total"}, max=0.1, required=False, source="A paper, section 4")
    needs = Gate(metric="b_seconds", max=0.2, accept_stand_in=True, source="Somebody said so")
    text = profiles_table([Profile(name="mine", description="What for.", gate=(gate, needs))])
    assert text.splitlines() == [
        "mine: What for.",
        "  a_ratio {component=total}  <= 10 %  optional",
        "      A paper, section 4",
        "  b_seconds  <= 200 ms  a stand-in will do",
        "      Somebody said so",
    ]
