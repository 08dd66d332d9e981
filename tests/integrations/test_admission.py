"""The admission examples, run: only evidence that holds, is young and says GO gets through."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.judge.statement import Told
from bench.measure.node import identity
from bench.model import Node, Run
from bench.store.runs import Store
from bench.workflows.catalog import load_catalog
from bench.workflows.evidence import catalog_with, sign_run
from bench.workflows.judging import concluded
from tests.golden import recorded
from tests.integrations.stub import ROOT
from tests.integrations.test_kubernetes import VERSIONS, documents, validated

pytestmark = pytest.mark.slow

FILES = ROOT / "docs" / "integrations"
PROFILE = """
name = "site"
[[gate]]
metric = "network_loss_ratio"
max = {}
accept_stand_in = true
source = "the test's own"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run as if this machine had measured it just now; two keys; a command."""
    folder = tmp_path_factory.mktemp("admission")
    recorded.lay_out(folder)
    (path,) = folder.glob("results/runs/*/*-a05c5b4f1e8e.json")
    run = Run.model_validate_json(path.read_text())
    host = os.uname().nodename
    node = Node(hostname=host, fingerprint=run.node.fingerprint, facts={**run.node.facts, "identity": identity()})
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    (folder / "run.json").write_text(run.model_copy(update={"node": node, "started_at": started}).model_dump_json())
    path.with_suffix(".raw").rename(folder / "raw")
    for name in ("key", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "signers").write_text(f'node namespaces="aiready-bench" {(folder / "key.pub").read_text()}')
    command = folder / "bench"
    python = shlex.quote(sys.executable)
    command.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {python} -m bench "$@"\n')
    command.chmod(0o755)
    return folder


def place(made: Path, folder: Path, *, limit: float = 0.5, key: str = "key", nonce: str | None = None) -> Path:
    """A results folder with that run, judged by a limit, and signed; the run's file."""
    (folder / "site.toml").write_text(PROFILE.format(limit))
    store, by = Store(folder / "results"), str(folder / "site.toml")
    run = concluded(Run.model_validate_json((made / "run.json").read_text()), load_catalog([by]))
    shutil.copytree(made / "raw", store.evidence_folder(run.node.hostname, run.started_at, run.id), dirs_exist_ok=True)
    path = store.save(run)
    told = Told(signed_at=run.started_at, nonce=nonce)
    sign_run(path, made / key, catalog_with([by]), store, told)
    return path


def spoil(path: Path) -> None:
    path.write_text(path.read_text().replace('"GO"', '"GO" '))


CASES = [
    ("good", {}, True),
    ("no-go", {"limit": -0.0}, False),
    ("stranger", {"key": "other"}, False),
    ("spoilt", {}, False),
    ("old", {}, False),
]


def admit(script: Path, made: Path, folder: Path, name: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ, "BENCH": str(made / "bench"), "BENCH_RESULTS": str(folder / "results"),
        "BENCH_PROFILE": str(folder / "site.toml"), "AIREADY_SIGNERS": str(made / "signers"),
        "AIREADY_MAX_AGE": "0s" if name == "old" else "1h", "AIREADY_SETTINGS": str(folder), **more,
    }  # fmt: skip
    return subprocess.run([script], env=env, capture_output=True, text=True, timeout=120, check=False, cwd=folder)


@pytest.mark.parametrize(("name", "how", "through"), CASES, ids=[name for name, _, _ in CASES])
def test_a_slurm_job_starts_only_on_verified_go(
    name: str, how: dict[str, float | str], through: bool, made: Path, tmp_path: Path
) -> None:
    path = place(made, tmp_path, **how)  # type: ignore[arg-type]
    if name == "spoilt":
        spoil(path)
    done = admit(FILES / "slurm/aiready-bench-admit", made, tmp_path, name)
    assert (done.returncode == 0) is through, done.stderr
    assert through or done.stderr.startswith("aiready-bench: not admitted: ")


def test_a_node_with_another_node_s_evidence_gets_no_job(made: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    changed = Run.model_validate_json((made / "run.json").read_text())
    facts = {**changed.node.facts, "identity": "ab" * 32}
    shutil.copytree(made / "raw", tmp_path / "other/raw")
    node = changed.node.model_copy(update={"facts": facts})
    (tmp_path / "other/run.json").write_text(changed.model_copy(update={"node": node}).model_dump_json())
    for name in ("key", "key.pub"):
        shutil.copy2(made / name, tmp_path / "other" / name)
    place(tmp_path / "other", tmp_path)
    done = admit(FILES / "slurm/aiready-bench-admit", made, tmp_path, "good")
    assert done.returncode == 1 and "node: was measured on another machine" in done.stderr


def test_no_evidence_at_all_starts_no_job(made: Path, tmp_path: Path) -> None:
    assert admit(FILES / "slurm/aiready-bench-admit", made, tmp_path, "good").returncode == 1


def test_the_epilog_measures_and_signs_and_never_drains(made: Path, tmp_path: Path) -> None:
    fake = tmp_path / "bench"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/seen\nexit 2\n')
    fake.chmod(0o755)
    script = FILES / "slurm/aiready-bench-admit"
    done = admit(script, made, tmp_path, "good", AIREADY_AS="epilog", BENCH=str(fake), AIREADY_KEY="/etc/k")
    assert done.returncode == 0
    assert (tmp_path / "seen").read_text() == "run --quiet --exit-zero --effort quick --sign /etc/k\n"


@pytest.mark.parametrize(("name", "how", "through"), CASES, ids=[name for name, _, _ in CASES])
def test_a_pipeline_goes_on_only_with_verified_go(
    name: str, how: dict[str, float | str], through: bool, made: Path, tmp_path: Path
) -> None:
    path = place(made, tmp_path, nonce="pipeline-7", **how)  # type: ignore[arg-type]
    if name == "spoilt":
        spoil(path)
    asked = {"RUN": str(path), "SIGNERS": str(made / "signers"), "PROFILE": str(tmp_path / "site.toml")}
    age = {"MAX_AGE": "0s" if name == "old" else "1h"}
    done = admit(FILES / "ci/admit.sh", made, tmp_path, name, **asked, **age, NONCE="pipeline-7")
    assert (done.returncode == 0) is through, done.stdout + done.stderr
    other = admit(FILES / "ci/admit.sh", made, tmp_path, name, **asked, **age, NONCE="pipeline-8")
    assert other.returncode == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pod_is_strictly_valid_and_has_no_privilege(version: str) -> None:
    done = validated(version, FILES / "kubernetes/admit.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    (pod,) = documents("admit.yaml")
    (admits,) = pod["spec"]["initContainers"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert admits["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert all(mount.get("readOnly") for mount in admits["volumeMounts"] if mount["name"] != "tmp")
    assert {"--only-go", "--max-age", "--profile", "--allowed-signers"} <= set(admits["args"][0].split())


def test_a_statement_names_its_run(made: Path, tmp_path: Path) -> None:
    """What the pod names is the statement."""
    path = place(made, tmp_path)
    words = [str(made / "bench"), "verify", str(path.with_name(f"{path.stem}.intoto.json")), "--json", "--only-go"]
    more = ["--allowed-signers", str(made / "signers"), "--profile", str(tmp_path / "site.toml")]
    done = subprocess.run([*words, *more], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and json.loads(done.stdout)["holds"] is True
