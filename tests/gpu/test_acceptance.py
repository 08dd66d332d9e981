"""The check itself, without a card: what breaks or hangs costs its own claims, and a claim can be shown to be false."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bench.model import Decision, Status
from tests.gpu.acceptance import CLAIMS, STEPS, Found, Result, claims, main, write
from tests.probes.gpu.conftest import PYTHONPATH, Fake, fake, new_driver
from tests.show.terminal.sample import finding, measurement, talking_run, verdict

__all__ = ["fake", "new_driver"]
ROOT = Path(__file__).parents[2]


def check(out: Path, fake: Fake, *words: str) -> dict[str, Any]:
    argv = [sys.executable, str(ROOT / "tools" / "gpu-acceptance"), str(out), "--accelerator", "cpu", *words]
    environment = {**os.environ, **fake.env(), "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads((out / "summary.json").read_text()))


def outcomes(document: dict[str, Any]) -> dict[str, str]:
    return {step["step"]: step["outcome"] for step in document["steps"]}


@pytest.mark.slow
def test_a_broken_step_does_not_stop_the_next(tmp_path: Path, fake: Fake) -> None:
    fake.tell({"error.nvmlDeviceGetCount_v2": 999})
    document = check(tmp_path / "out", fake, "--only", "driver,watcher,direct,nccl,decoder,soak", "--seconds", "150")
    assert outcomes(document) == {
        "driver": "ok", "watcher": "failed", "decoder": "ok", "direct": "skipped", "soak": "ok",
        "nccl": "skipped",
    }  # fmt: skip
    by_step = {step["step"]: step for step in document["steps"]}
    assert "nvml_broken" in by_step["watcher"]["reason"] and by_step["direct"]["reason"] == "needs a card"
    assert by_step["decoder"]["figures"]["kernels"] > 10 and by_step["driver"]["figures"]["torch"]
    held = {claim["claim"]: claim["holds"] for claim in document["claims"]}
    assert len(held) == len(CLAIMS)
    right = held.pop("products with a known answer come out right, repeated ones the same")
    assert right is True and set(held.values()) == {None}, "without a card nothing else is shown"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["logs.tar.gz", "summary.json", "summary.md"]
    with tarfile.open(tmp_path / "out" / "logs.tar.gz") as logs:
        assert {"driver.log", "watcher.log", "decoder.log"} <= set(logs.getnames())


@pytest.mark.slow
def test_a_step_that_hangs_is_ended_and_all_within_the_time(tmp_path: Path, fake: Fake) -> None:
    fake.tell({"hang.nvmlInitWithFlags": 100})
    document = check(tmp_path / "out", fake, "--seconds", "16")
    assert outcomes(document) == {step.name: "timed_out" if step.name == "driver" else "skipped" for step in STEPS}
    assert document["seconds"] < 16 + 10, "with the time to end in"
    assert {claim["holds"] for claim in document["claims"]} == {None}


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--only", "driver,nonesuch"), "there is no step nonesuch"), (("--seconds", "0"), "--seconds"),
     (("--seconds", "nan"), "--seconds"), (("--accelerator", "tpu"), "tpu")],
)  # fmt: skip
def test_what_cannot_be_asked_is_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    """A step that is not there was left out: nothing was asked, nothing failed, status 0."""
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "out"), *words])
    assert ended.value.code == 2 and said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_place_that_is_no_folder_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "out")])
    assert ended.value.code == 2 and "out" in capsys.readouterr().err and (tmp_path / "out").read_text() == "mine"


def found(**figures: Any) -> Found:
    """One healthy card, but for what is said."""
    said: dict[str, dict[str, Any]] = {
        "watcher": {"open_seconds": 0.1, "sample_seconds": 0.02, "cards": 1, "unreadable": "", "gpm": ["sm"]},
        "decoder": {"first_prefill_seconds": 0.010, "second_prefill_seconds": 0.009, "cudnn_attention": False,
                    "first_prefill_otherwise_seconds": 0.4},
        "soak": {"products": 900, "wrong": 0, "mismatches": 0, "digest": "ab", "again": "ab", "took": 8.1, "kept": 0.97,
                 "pace": "Pace"},
        "direct": {"way": "pinned", "right": True}, "copies": {"to_card": 0.9, "from_card": 0.9},
        "nccl": {"init": 1.0, "log_lines": 80},
        "telemetry": {"ratio": 0.999, "error": 0.002}, "contract": {"last_line": "12 passed"}, "standard": {"run": "r"},
    }  # fmt: skip
    for key, value in figures.items():
        step, _, name = key.partition("__")
        if step in said:
            said[step][name] = value
    shares = {"inference_bandwidth_utilization_ratio": 0.8, "inference_flops_utilization_ratio": 0.7, **figures}
    measured = tuple(measurement(name, shares[name], batch="1", stage="decode") for name in list(shares)[:2])
    throttle = finding("accelerator_throttle_ratio", figures.get("status", Status.PASS))
    verdicts = (verdict("batch-inference", figures.get("decision", Decision.GO), 100.0, (throttle,)),)
    plain = talking_run()
    results = (plain.results[0].model_copy(update={"probe": "feed", "measurements": measured}),)
    run = plain.model_copy(update={"results": results, "verdicts": verdicts})
    steps = {name: Result(name, "ok", "", figures.get("seconds", 250.0), given) for name, given in said.items()}
    return Found(steps, {"standard": run, "feed": run})


def held(given: Found) -> dict[str, Any]:
    return {text: claim["holds"] for (text, *_), claim in zip(CLAIMS, claims(given, "cuda"), strict=True)}


def test_on_a_healthy_card_every_claim_holds() -> None:
    assert set(held(found()).values()) == {True}, claims(found(), "cuda")


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"watcher__sample_seconds": 0.3}, "NVML opens"),
        ({"watcher__unreadable": "power (Unknown)"}, "unreadable"),
        ({"watcher__gpm": []}, "GPM"),
        ({"decoder__first_prefill_seconds": 0.44}, "new length"),
        ({"inference_bandwidth_utilization_ratio": 0.74}, "decode"),
        ({"inference_flops_utilization_ratio": 0.59}, "prefill"),
        ({"direct__right": False}, "pinned memory"),
        ({"soak__wrong": 1}, "known answer"),
        ({"soak__mismatches": 3}, "known answer"),
        ({"soak__again": "ba"}, "known answer"),
        ({"soak__kept": 0.85}, "clock"),
        ({"copies__from_card": 0.3}, "PCIe"),
        ({"nccl__log_lines": 0}, "NCCL"),
        ({"status": Status.NO_DATA}, "has data"),
        ({"decision": Decision.NO_GO}, "is GO"),
        ({"seconds": 301.0}, "300 s"),
        ({"telemetry__ratio": 0.98}, "telemetry"),
    ],
)
def test_each_claim_can_fail(wrong: dict[str, Any], word: str) -> None:
    false = [text for text, holds in held(found(**wrong)).items() if holds is False]
    assert len(false) == 1 and word in false[0]


def test_a_run_that_an_earlier_check_left_is_not_this_one_s(tmp_path: Path) -> None:
    """A check that was killed left its folders, and the next one there ended at its first step by KeyError."""
    left = tmp_path / "standard.r" / "runs" / "node1"
    left.mkdir(parents=True)
    (left / "r1.json").write_text(talking_run().model_dump_json())
    results = {"driver": Result("driver", "ok")}
    made = write(results, argparse.Namespace(out=tmp_path, accelerator="cuda"), 1.0)
    assert {claim["holds"] for claim in made} == {None} and results["driver"].figures == {}


def test_a_claim_without_its_figure_is_not_shown() -> None:
    given = found()
    del given.results["telemetry"].figures["ratio"]
    assert [text for text, holds in held(given).items() if holds is None] == [CLAIMS[-2][0]]
