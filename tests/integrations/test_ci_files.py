"""The CI and Ansible files, run: their own lines in a shell, with a ``bench`` that measures nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.integrations.stub import ROOT, STATUS, shell, stub

pytestmark = pytest.mark.slow

FILES = ROOT / "docs" / "integrations"
each_answer = pytest.mark.parametrize("answer", STATUS)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@each_answer
def test_gitlab_fails_with_the_verdict_and_keeps_the_reports(answer: str, tmp_path: Path) -> None:
    job = load(FILES / "ci" / "gitlab-ci.yml")["ai-readiness"]
    (tmp_path / "bin").mkdir()
    done = shell("\n".join(job["script"]), tmp_path, stub(tmp_path / "bin", answer))
    assert done.returncode == STATUS[answer], done.stderr
    suite = ElementTree.parse(tmp_path / job["artifacts"]["reports"]["junit"]).getroot()
    bad = {"good": 0, "starved": 1, "inconclusive": 1}[answer]
    assert min(len(suite.findall(".//failure") + suite.findall(".//error")), 1) == bad
    assert (tmp_path / "bench.html").stat().st_size > 10_000


@pytest.mark.parametrize("answer", ["good", "starved"])
def test_github_fails_the_step_and_still_shows(answer: str, tmp_path: Path) -> None:
    workflow = load(FILES / "ci" / "github-workflow.yml")
    measure, show, keep = workflow["jobs"]["ready"]["steps"]
    (tmp_path / "bin").mkdir()
    path = stub(tmp_path / "bin", answer)
    assert shell(measure["run"], tmp_path, path).returncode == STATUS[answer]
    summary = tmp_path / "summary.md"
    done = shell(show["run"], tmp_path, path, GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 0, done.stderr
    assert summary.read_text().startswith("## AI readiness of ")
    kept = keep["with"]["path"].split()
    assert [name for name in kept[:3] if not (tmp_path / name).exists()] == []
    assert show["if"] == keep["if"] == "always()"
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("answer", ["good", "starved"])
def test_ansible_goes_on_only_with_a_node_that_is_ready(answer: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    command = stub(tmp_path / "bin", answer) / "bench"
    text = (
        (FILES / "ansible" / "aiready-bench.yml").read_text().replace("/var/lib/aiready-bench", f"{tmp_path}/results")
    )
    (tmp_path / "play.yml").write_text(
        text.replace("/etc/ansible/facts.d", str(tmp_path)).replace("become: true", "become: false")
    )
    extra = {"bench_command": str(command), "ansible_python_interpreter": sys.executable}
    words = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        json.dumps(extra),
    ]
    env = {**os.environ, "ANSIBLE_HOME": str(tmp_path / "ansible"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [*words, str(tmp_path / "play.yml")], env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode == 0) is (answer == "good"), done.stdout + done.stderr
    fact = json.loads((tmp_path / "aiready_bench.fact").read_text())
    assert {v["decision"] for v in fact["verdicts"]} <= {"GO", "NO-GO", "INCONCLUSIVE"}
    assert f"localhost: {answer}" in done.stdout
