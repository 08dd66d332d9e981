"""The Kubernetes files: valid by the API's own schemas, without privileges, and the plugin as its protocol wants it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integrations.stub import STATUS, shell, stub

pytestmark = pytest.mark.slow

FILES = Path(__file__).parents[2] / "docs" / "integrations" / "kubernetes"
VERSIONS = ("1.30", "1.33", "1.37")
PLUGIN = FILES / "aiready-bench-npd"


def documents(name: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all((FILES / name).read_text()) if document]


def validated(version: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    words = [str(Path(sys.executable).parent / "kubernetes-validate"), "-k", version, "--strict", *map(str, paths)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("version", VERSIONS)
def test_strictly_valid(version: str, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet-job.yaml"
    fleet.write_text((FILES / "fleet-job.yaml").read_text().replace("NODES", "4"))
    done = validated(version, FILES / "job.yaml", fleet, FILES / "npd-config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("passed for resource") == 3


def test_the_validation_can_fail(tmp_path: Path) -> None:
    wrong = tmp_path / "job.yaml"
    wrong.write_text((FILES / "job.yaml").read_text().replace("backoffLimit", "backoffLimmit"))
    assert validated(VERSIONS[-1], wrong).returncode != 0


@pytest.mark.parametrize(
    ("name", "mounts"),
    [
        ("job.yaml", {"/results", "/scratch", "/tmp"}),
        ("fleet-job.yaml", {"/shared", "/scratch", "/tmp"}),
    ],
)
def test_no_container_is_privileged(name: str, mounts: set[str]) -> None:
    (job,) = documents(name)
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in context
    written = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert written == mounts


def test_the_rule_taints_nothing_until_it_is_told_to() -> None:
    (rule,) = documents("node-readiness-rule.yaml")
    assert rule["apiVersion"] == "readiness.node.x-k8s.io/v1alpha1"
    assert rule["spec"]["dryRun"] is True
    assert rule["spec"]["taint"]["key"].startswith("readiness.k8s.io/")
    (config,) = documents("npd-config.yaml")
    plugin = json.loads(config["data"]["aiready-bench.json"])
    assert plugin["conditions"][0]["type"] == rule["spec"]["conditions"][0]["type"]
    assert plugin["pluginConfig"]["max_output_length"] == 80


def test_the_plugin_in_the_map_is_the_plugin_in_the_folder() -> None:
    (config,) = documents("npd-config.yaml")
    assert config["data"]["aiready-bench-npd"] == PLUGIN.read_text()


@pytest.mark.parametrize("answer", STATUS)
def test_the_jobs_own_script_leaves_an_answer_that_the_plugin_reads(answer: str, tmp_path: Path) -> None:
    """The container's script as it stands in the Job, with its folders here; then the plugin on what it left."""
    (job,) = documents("job.yaml")
    script = job["spec"]["template"]["spec"]["containers"][0]["args"][0]
    for name in ("results", "scratch"):
        (tmp_path / name).mkdir()
        script = script.replace(f"/{name}", str(tmp_path / name))
    (tmp_path / "bin").mkdir()
    done = shell("exec sh run.sh", _with_script(tmp_path, script), stub(tmp_path / "bin", answer))
    assert done.returncode == STATUS[answer], done.stderr
    assert (tmp_path / "results" / "report.html").exists()
    found = plugin(tmp_path / "results" / "npd")
    assert found.returncode == {"good": 0, "starved": 1, "inconclusive": 2}[answer]
    assert len(found.stdout.encode()) <= 80
    assert found.stdout.split()[0] == {"good": "GO", "starved": "NO-GO", "inconclusive": "INCONCLUSIVE"}[answer]


def _with_script(folder: Path, script: str) -> Path:
    (folder / "run.sh").write_text(script)
    return folder


def plugin(answer: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "AIREADY_ANSWER": str(answer)}
    return subprocess.run([str(PLUGIN)], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_without_an_answer_or_with_an_old_one_the_plugin_says_unknown(tmp_path: Path) -> None:
    answer = tmp_path / "npd"
    assert (plugin(answer).returncode, plugin(answer).stdout) == (2, "no verdict: this node was never measured\n")
    answer.write_text("0 GO batch-inference\n")
    assert (plugin(answer).returncode, plugin(answer).stdout) == (0, "GO batch-inference\n")
    old = time.time() - 48 * 3600
    os.utime(answer, (old, old))
    assert plugin(answer).returncode == 2
    answer.write_text("x" * 300 + "\n")
    assert (plugin(answer).returncode, len(plugin(answer).stdout)) == (2, 11)
    answer.write_text("1 " + "y" * 300 + "\n")
    assert (plugin(answer).returncode, len(plugin(answer).stdout)) == (1, 80)
