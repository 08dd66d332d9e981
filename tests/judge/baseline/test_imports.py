"""A scheduler's health check waits for the gate: what is slow to import stays out of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.judge.baseline.make import PROFILE, Nights

_HEAVY = ("scipy", "pandas", "numpy", "torch")
_PROGRAM = """
import sys
from bench.cli.app import run
status = run(sys.argv[1:])
print(status, *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("words", [(), ("--baseline",), ("--max-age", "26h"), ("--baseline", "--json")])
def test_a_gate_imports_nothing_heavy(tmp_path: Path, words: tuple[str, ...]) -> None:
    Nights(tmp_path).add_many(20)
    (tmp_path / "nightly.toml").write_text(PROFILE)
    command = ["gate", "node01-00019", "--results", str(tmp_path), "--profile", str(tmp_path / "nightly.toml"), *words]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(heavy=_HEAVY), *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == ("3" if "--max-age" in words else "0")
