"""The load as a real child process on the CPU, and every way in which torch or the accelerator can be missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from probes.common.pipe import refusal
from probes.inference.events import read
from probes.inference.parse import parse
from tests.probes.gpu.conftest import Fake, fake, new_driver

pytestmark = pytest.mark.slow

__all__ = ["fake", "new_driver"]
ROOT = Path(__file__).parents[3]


def load(*words: str, path: Path | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    paths = [str(path)] if path else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, str(ROOT)]), **(env or {})}
    argv = [sys.executable, "-m", "probes.inference.load.main", *words]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=240, check=False)


def shadow(folder: Path, body: str) -> Path:
    """A ``torch`` that is found before the real one."""
    package = folder / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(body)
    return folder


def events(text: str) -> list[dict[str, Any]]:
    """The lines, marks of stages among them."""
    return [json.loads(line) for line in text.splitlines()]


def last(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(answer, dict)
    return answer


@pytest.fixture(scope="module")
def run() -> subprocess.CompletedProcess[str]:
    return load("--accelerator", "cpu", "--quick", "--seconds", "10", "--rounds", "3", "--rate", "20")


def test_a_run_has_every_stage_and_ends_with_done(run: subprocess.CompletedProcess[str]) -> None:
    found = events(run.stdout)
    assert refusal(read(run.stdout), run.returncode, run.stderr, "the inference load") is None
    assert {e["stage"] for e in found if e["event"] == "window"} == {"matmul", "copy", "prefill", "decode"}
    rounds = [e["round"] for e in found if e["event"] == "window" and e["stage"] == "decode"]
    assert rounds == [0, 0, 1, 1, 2, 2]  # both batches in turn: interleaved, not one after the other
    opened = [e["stage"] for e in found if e["event"] == "begin"]
    assert opened == [e["stage"] for e in found if e["event"] == "end"]


def test_its_figures_hold_together(run: subprocess.CompletedProcess[str]) -> None:
    measured = {(m.metric, m.labels.get("batch"), m.labels.get("statistic")): m for m in parse(read(run.stdout))}
    one = measured["inference_tokens_per_second", "1", None]
    windows = [e for e in events(run.stdout) if e["event"] == "window" and e["stage"] == "decode"]
    fastest = {batch: min(s for w in windows if w["batch"] == batch for s in w["step_seconds"]) for batch in (1, 8)}
    assert fastest[8] > 0.5 * fastest[1]  # eight sequences cannot take less than one, however busy the host
    step = measured["inference_inter_token_seconds", "1", "p50"].value
    assert 0.02 < one.value * step < 1.5  # the mean step and the median one: a busy host puts them far apart
    assert 0 < measured["accelerator_busy_ratio", "1", None].value <= 1
    assert all(m.labels["stand_in"] == "cpu" for m in measured.values())


def test_requests_arrive_as_they_were_scheduled(run: subprocess.CompletedProcess[str]) -> None:
    requests = [e for e in events(run.stdout) if e["event"] == "request"]
    assert requests and all(r["tokens"] == sorted(r["tokens"]) for r in requests)
    assert all(r["tokens"][0] > r["scheduled"] for r in requests if r["tokens"])
    again = load("--accelerator", "cpu", "--quick", "--seconds", "4", "--rounds", "1", "--rate", "20")
    other = [e for e in events(again.stdout) if e["event"] == "request"]
    both = min(len(requests), len(other))
    assert both and [r["scheduled"] for r in requests[:both]] == [r["scheduled"] for r in other[:both]]


def test_no_torch_is_unsupported_with_the_command(tmp_path: Path) -> None:
    body = "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')"
    answer = last(load("--accelerator", "cpu", path=shadow(tmp_path, body)))
    assert answer["outcome"] == "unsupported" and answer["reason"].startswith("torch_missing: ")
    assert answer["remedy"].startswith("pip install torch")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise OSError('libcudart.so.12: cannot open shared object file')", "libcudart.so.12: cannot open"),
        ("import no_such_part_of_torch", "No module named 'no_such_part_of_torch'"),
        ("raise RuntimeError('line one\\nline two')", "line two"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_broken_torch_is_a_failure_with_its_last_line(tmp_path: Path, body: str, words: str) -> None:
    answer = last(load("--accelerator", "cpu", path=shadow(tmp_path, body)))
    assert answer["outcome"] == "failed" and answer["reason"].startswith("torch_broken: ")
    assert words in answer["reason"] and "\n" not in answer["reason"]


def test_a_torch_that_kills_the_process_is_a_failure(tmp_path: Path) -> None:
    done = load("--accelerator", "cpu", path=shadow(tmp_path, "import os; os.kill(os.getpid(), 11)"))
    error = refusal(read(done.stdout), done.returncode, done.stderr, "the inference load")
    assert error is not None and error.reason.startswith("load_failed: ") and "-11" in error.reason


CPU_BUILD = """
class version: cuda = None
class cuda:
    is_available = staticmethod(lambda: False)
    device_count = staticmethod(lambda: 0)
__version__ = "2.13.0+cpu"
set_num_threads = get_num_threads = lambda *_: 1
"""


@pytest.mark.parametrize("wanted", ["cuda", "auto"])
def test_a_driver_and_a_torch_without_cuda_say_exactly_that(tmp_path: Path, fake: Fake, wanted: str) -> None:
    answer = last(load("--accelerator", wanted, path=shadow(tmp_path / "s", CPU_BUILD), env=fake.env()))
    assert answer["outcome"] == "unsupported"
    assert answer["reason"] == (
        "torch_without_cuda: NVIDIA driver 570.00.fake is here, but torch 2.13.0+cpu was built without CUDA"
    )
    assert answer["remedy"].startswith("pip install ") and "download.pytorch.org/whl/cu" in answer["remedy"]


def test_a_cuda_build_that_cannot_use_the_driver_says_why(tmp_path: Path, fake: Fake) -> None:
    body = CPU_BUILD.replace("cuda = None", "cuda = '12.8'") + (
        "def init():\n    raise RuntimeError('The NVIDIA driver on your system is too old (found version 11040)')\n"
        "cuda.init = staticmethod(init)\n"
    )
    answer = last(load("--accelerator", "cuda", path=shadow(tmp_path / "s", body), env=fake.env()))
    assert answer["outcome"] == "unsupported" and answer["reason"].startswith("cuda_unavailable: ")
    assert "too old" in answer["reason"]


def test_cuda_without_any_driver_is_unsupported(tmp_path: Path) -> None:
    answer = last(load("--accelerator", "cuda", path=shadow(tmp_path, CPU_BUILD), env={"LD_LIBRARY_PATH": ""}))
    if answer["reason"].startswith("torch_without_cuda"):
        pytest.skip("this machine has an NVIDIA driver")
    assert answer["outcome"] == "unsupported" and answer["reason"].startswith("no_gpu: ")
