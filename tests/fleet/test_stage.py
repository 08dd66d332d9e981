"""The bundle for nodes without the product, ansible's absence, what is left on disk, and the live table."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from rich.console import Console

import bench
from bench.errors import UserError
from bench.fleet import job_script, staging
from bench.fleet.transport import ansible
from bench.judge.fleet.model import Fleet
from bench.show.terminal.progress import Note, _Table, fleet_listener
from bench.store.runs import Store
from tests.fleet.test_run import STORAGE_ONLY, drive, states
from tests.fleet.testbed import Testbed


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> staging.Bundle:
    source = tmp_path / "module.py"
    source.write_text("WORD = 'staged'\n")
    monkeypatch.setattr(staging, "_files", lambda: {"package/module.py": source})
    return staging.made(tmp_path / "out")


def here(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)


def test_the_same_packages_make_the_same_bytes(bundle: staging.Bundle, tmp_path: Path) -> None:
    os.utime(tmp_path / "module.py", (1, 1))
    again = staging.made(tmp_path / "other")
    assert again.path.read_bytes() == bundle.path.read_bytes() and again.name == bundle.name
    assert bundle.sha256 == hashlib.sha256(bundle.path.read_bytes()).hexdigest()
    with ZipFile(bundle.path) as found:
        assert found.namelist() == ["site-packages/package/module.py"]


def test_what_the_product_needs_is_in_it_and_what_it_does_not_is_not() -> None:
    names = staging._files()
    tops = {name.split("/")[0] for name in names}
    assert {"bench", "probes", "pydantic", "typer", "numpy", "scipy", "psutil"} <= tops
    assert not {"torch", "pandas", "ansible", "pytest"} & tops
    assert not [name for name in names if "__pycache__" in name or name.startswith(("/", ".."))]


def test_a_checkout_below_a_folder_of_tests_is_brought_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "tests/checkout/bench"
    (package / "tests").mkdir(parents=True)
    for name in ("__init__.py", "tests/test_one.py"):
        (package / name).touch()
    monkeypatch.setattr(bench, "__file__", str(package / "__init__.py"))
    assert [name for name in staging._files() if name.startswith("bench")] == ["bench/__init__.py"]


def test_a_bundle_is_sent_as_it_is_and_tells_whom_it_fits(tmp_path: Path) -> None:
    bundle = tmp_path / "aiready-bench-0.1.0-py312-aarch64.pyz"
    with ZipFile(bundle, "w") as file:
        file.writestr("site-packages/bench/__init__.py", "")
        file.writestr("site-packages/bench/measure/carried/fio", "#!/bin/sh")
        file.writestr("__main__.py", "")
    assert staging.fits(str(bundle)) == "3.12 aarch64"
    sent = staging.made(tmp_path / "out", str(bundle))
    assert sent.path == bundle and "-3.12-aarch64-" in sent.name
    assert not (tmp_path / "out").exists() and sent.sha256 == hashlib.sha256(bundle.read_bytes()).hexdigest()
    bundle.write_bytes(b"no zip")
    with pytest.raises(UserError, match="make it anew"):
        staging.made(tmp_path / "out", str(bundle))
    with pytest.raises(UserError, match="make bundle"):
        staging.fits("/tmp/other.pyz")


def test_a_node_unpacks_only_what_was_sent(bundle: staging.Bundle) -> None:
    place = staging.said(here(staging.ready_script(bundle)).stdout, "PLACE")
    assert place is not None
    try:
        sent = Path(place) / f"{bundle.name}.pyz"
        sent.write_bytes(bundle.path.read_bytes() + b"x")
        refused = here(staging.unpack_script(bundle, sys.executable))
        assert refused.returncode == 1 and "not what was sent" in refused.stderr and not sent.exists()
        sent.write_bytes(bundle.path.read_bytes())
        folder = staging.said(here(staging.unpack_script(bundle, sys.executable)).stdout, "STAGED")
        assert folder is not None and (Path(folder) / "package/module.py").read_text() == "WORD = 'staged'\n"
        assert staging.said(here(staging.ready_script(bundle)).stdout, "STAGED") == folder
        assert [path.name for path in Path(place).iterdir() if bundle.name in path.name] == [bundle.name]
    finally:
        shutil.rmtree(Path(place) / bundle.name, ignore_errors=True)


def test_what_nobody_asks_for_in_a_week_is_removed_and_what_is_in_use_is_not(
    bundle: staging.Bundle, tmp_path: Path
) -> None:
    """A nightly fleet uses one bundle for months: the folder of all of them looks old, and must stay."""
    base = tmp_path / "base"

    def on_node(script: str) -> str:
        return here(script.replace("/var/tmp/aiready-bench-$(id -u)", str(base))).stdout

    place = Path(staging.said(on_node(staging.ready_script(bundle)), "PLACE") or "")
    shutil.copy(bundle.path, place / f"{bundle.name}.pyz")
    folder = Path(staging.said(on_node(staging.unpack_script(bundle, sys.executable)), "STAGED") or "")
    other, job = place / "aiready-bench-0-old", base / "r.sweep.1"
    for path in (other, job):
        path.mkdir()
    long_ago = 1_600_000_000
    for path in (other, job, folder, place):
        os.utime(path, (long_ago, long_ago))
    assert staging.said(on_node(staging.ready_script(bundle)), "STAGED") == str(folder)
    on_node(job_script.run("r.sweep.2", "true", 5, {}))
    assert (folder / "package/module.py").exists() and not other.exists() and not job.exists()


def test_without_ansible_one_line_says_what_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"ansible-runner is not installed; pip install 'aiready-bench\[fleet\]'"):
        ansible.program("ansible-runner")


def test_private_folders_are_private_and_a_dead_controllers_are_removed() -> None:
    with ansible.private() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        left = folder.parent / "aiready-fleet-4194999-x"  # above the highest process id there can be
        left.mkdir()
        assert "hunter2" not in str(ansible.environment(folder))
    assert not folder.exists()
    with ansible.private():
        assert not left.exists()


def test_only_the_sites_own_ssh_and_ansible_words_reach_ansible(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "/etc/vault")
    monkeypatch.setenv("ANSIBLE_SSH_RETRIES", "5")
    monkeypatch.delenv("ANSIBLE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    found = ansible.environment(tmp_path)
    assert found["SSH_AUTH_SOCK"] == "/run/agent" and found["ANSIBLE_VAULT_PASSWORD_FILE"] == "/etc/vault"
    assert found["ANSIBLE_CONFIG"] == str(tmp_path / "ansible.cfg"), "the site's own configuration stands"
    assert found["ANSIBLE_SSH_RETRIES"] == "0", "a retry would start a job twice"
    assert "AWS_SECRET_ACCESS_KEY" not in found


def test_the_live_table_shows_hostile_names_as_text() -> None:
    table = _Table(40)
    for i in range(30):
        table(Note("sweep", f"n{i}", "answered"))
    table(Note("sweep", "n[red]x\x1b[31m", "lost", "connection \x07lost"))
    out = io.StringIO()
    Console(file=out, width=100).print(table.render())
    text = out.getvalue()
    assert "n[red]x" in text and "lost" in text and "more of 40" in text and "\x07" not in text
    with fleet_listener(3, shown=False) as listen:
        listen(Note("sweep", "n1", None))


# --- on hosts


def stage_of(hosts: Testbed, i: int) -> list[str]:
    return hosts.on(i, ["sh", "-c", "ls -A /var/tmp/aiready-bench-0/stage"]).stdout.split()


@pytest.fixture
def lacking(hosts: Testbed, tmp_path: Path) -> Path:
    """An inventory of two: n001's Python is the one below our virtual environment, which has nothing of the product."""
    inventory, bare = tmp_path / "two.ini", Path(sys.executable).resolve()
    own = hosts.inventory.read_text().splitlines()
    lines = [f"{line} bench_python={shlex.quote(str(bare))}" if line.startswith("n001") else line for line in own]
    inventory.write_text("\n".join(line for line in lines if not line.startswith(("n003", "n004"))) + "\n")
    done = hosts.on(1, [str(bare), "-c", "import bench"])
    assert "No module named 'bench'" in done.stderr
    return inventory


def test_a_torn_bundle_is_refused_by_the_node_and_leaves_nothing(hosts: Testbed, lacking: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"inventory": str(lacking), "stage": True, "torn_bundle": True}
    fleet, progress, _ = drive(hosts, tmp_path / "t", profile=STORAGE_ONLY, pairs="none", **options)
    assert states(fleet) == {"n001": "not-run", "n002": "pass"}, progress
    reason = fleet.nodes[0].reason or ""
    assert reason.startswith("not_installed: cannot_stage: ") and "the bundle is not what was sent" in reason
    assert stage_of(hosts, 1) == [] and not list((tmp_path / "t").rglob("*.pyz"))


@pytest.mark.timeout(400)
def test_a_node_without_the_product_gets_it_once_by_its_version_and_measures_with_it(
    hosts: Testbed, lacking: Path, tmp_path: Path
) -> None:
    """The command itself, on two hosts that have no GPU to probe: measured and INCONCLUSIVE, every document stored."""
    results = tmp_path / "results"
    words = ["--probe", "gpu", "--pairs", "none", "--no-collective", "--results", str(results), "--json"]
    command = [sys.executable, "-m", "bench", "fleet", "run"]
    root = str(Path(__file__).resolve().parents[2])
    done = hosts.controller([*command, "-i", str(lacking), "--stage", *words], timeout=200, PYTHONPATH=root)
    fleet = Fleet.model_validate_json(done.stdout or "{}")
    assert (done.returncode, states(fleet)) == (3, {"n001": "inconclusive", "n002": "inconclusive"}), done.stderr
    (name,) = stage_of(hosts, 1)
    version = re.escape(f"aiready-bench-{bench.__version__}-{staging.fits().replace(' ', '-')}-")
    assert re.fullmatch(version + "[0-9a-f]{12}", name), "unpacked under its version and digest, the file gone"
    assert stage_of(hosts, 2) == [], "only where it is missing"
    assert not list(results.rglob("*.pyz"))
    stored = Store(results)
    assert {stored.find(node.run or "").node.hostname for node in fleet.nodes} == {"n001", "n002"}
    (folder,) = (results / "fleet").iterdir()
    assert json.loads((folder / "fleet.json").read_text())["decision"] == "INCONCLUSIVE"
    assert "INCONCLUSIVE" in (folder / "fleet.html").read_text()
    words = ["--resume", folder.name, "--results", str(results), "--quiet"]
    again = hosts.controller([*command, *words], timeout=200, PYTHONPATH=root)
    assert again.returncode == 3 and again.stdout.count("INCONCLUSIVE") == 3, again.stderr
