"""A fleet over real sshd, signed where it was started from: what every node sent holds, and no node has the key."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.testbed import Testbed, standing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def two() -> Iterator[Testbed]:
    with standing(2) as testbed:
        yield testbed


def bench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "bench", *map(str, words)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.timeout(600)
def test_what_every_node_sent_is_signed_and_a_node_without_a_run_is_named(two: Testbed, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    allowed = tmp_path / "allowed"
    allowed.write_text(f'sre@example.org namespaces="aiready-bench" {key.with_suffix(".pub").read_text()}')
    two.power_off(2)
    try:
        words = ["fleet", "run", "-i", str(two.inventory), "--probe", "host", "--pairs", "none", "--no-collective",
                 "--no-confirm", "--accelerator", "cpu", "--node-env", f"PYTHONPATH={ROOT}", "--quiet", "--exit-zero",
                 "--results", str(tmp_path / "results"), "--sign", str(key)]  # fmt: skip
        done = two.controller([sys.executable, "-m", "bench", *words], timeout=280, PYTHONPATH=str(ROOT))
    finally:
        two.power_on(2)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "results/fleet").iterdir()

    text = (folder / "fleet.intoto.json").read_text()
    signed = {one["name"]: one["digest"]["sha256"] for one in json.loads(text)["subject"]}
    said = json.loads(text)["predicate"]
    assert [test for test in said["failedTests"] if test.startswith("n002: unreachable")], "the node that sent nothing"
    run = folder / "nodes/n001.json"
    assert signed["nodes/n001.json"] == hashlib.sha256(run.read_bytes()).hexdigest()
    assert set(signed) == {f"{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_file()} - {
        "fleet.html", "fleet.intoto.json", "fleet.intoto.json.sig"}  # fmt: skip

    verify = ["ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", "sre@example.org", "-n", "aiready-bench",
              "-s", str(folder / "fleet.intoto.json.sig")]  # fmt: skip
    assert subprocess.run(verify, input=text, text=True, capture_output=True, check=False).returncode == 0
    asked = ("verify", folder, "--allowed-signers", allowed)
    held = bench(*asked)
    assert held.returncode == 0 and "signed by sre@example.org" in held.stdout, held.stdout + held.stderr
    assert bench(*asked, "--only-go").returncode == 1

    secret = key.read_text().splitlines()[-2]
    files = [path for path in (*folder.rglob("*"), *two.folder.rglob("*")) if path.is_file() and not path.is_fifo()]
    assert files and not [path for path in files if secret in path.read_text(errors="replace")]

    changed = bytearray(run.read_bytes())
    changed[len(changed) // 2] ^= 1
    run.write_bytes(changed)
    broken = bench(*asked)
    assert broken.returncode == 1 and "nodes/n001.json: changed since it was signed" in broken.stdout
    shutil.rmtree(folder)
