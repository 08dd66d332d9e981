"""What a person wrote and names (settings, profile, expectation) may be torn, absurd, a pipe or a device: one line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.app import run
from bench.workflows import site
from tests.cli.bench import bench

DEEP = "[" * 900 + "]" * 900


def one_line_of(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("bench: ") and line.isprintable() and "fault of bench" not in line and not said.out
    return line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('storage = ["x"\n', ":1: not TOML"),
        ("\n\n\xff", ":3: not UTF-8"),
        ('\ufeffeffort = "quick"', ":1: begins with a byte order mark"),
        ("x = " + "[" * 5000 + "]" * 5000, ":1: nested too deeply"),
        ("x = " + "9" * 6000, ":1: not TOML: a number has too many digits"),
        ('\nstorag = ["x"]', ":2: unknown setting `storag`; did you mean storage?"),
        ('\nstorage = "x"', ":2: storage must be a list of strings"),
        ('storage = [""]', ":1: storage must not be empty"),
        ('results = ""', ":1: results must not be empty"),
        ('effort = "slow"', ": effort slow: must be one of quick"),
        ('accelerator = "tpu"', ": accelerator tpu: must be auto"),
        ('storage = ["nowhere"]', ": storage nowhere: is not a directory"),
        ('peer = ["a b"]', ": peer a b: must be HOST"),
        ('peer = ["a:65536"]', ": peer a:65536: must be HOST"),
        ('probe = ["storag"]', ": probe storag: no such probe"),
        ('profile = ["nix"]', ": profile 'nix': no such file"),
        ("[expect]\nx = " + DEEP, "nested too deeply"),
    ],
)
def test_a_mistake_in_the_settings_names_their_file(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / site.CONFIG).write_bytes(text.encode("latin-1" if "\xff" in text else "utf-8"))
    assert run(["run", "--dry-run"]) == 2
    line = one_line_of(capsys)
    assert site.CONFIG in line and said in line
    assert run(["run", "--dry-run", "--effort", "slow", "--profile", "data"]) == 2
    if text.startswith("effort"):
        assert "bench: --effort slow" in one_line_of(capsys), "what the command line says is no mistake of the file"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
        (Path.mkdir, "directory"),
        (lambda path: path.write_text("x = " + DEEP), ""),
    ],
)
@pytest.mark.parametrize("option", ["--profile", "--expect"])
def test_no_pipe_or_device_is_waited_for(
    option: str, make: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    make(tmp_path / "x.toml")
    done = bench("run", option, tmp_path / "x.toml", "--dry-run", cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert "x.toml" in done.stderr and said in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["run", "--storage", ""], "--storage"),
        (["run", "--results="], "--results"),
        (["gate", ""], "an argument"),
        (["gate", "-o", ""], "-o"),
    ],
)
def test_an_empty_word_is_not_the_default(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert one_line_of(capsys) == f"bench: {named} is empty: is the variable that it comes from set?"


def test_a_name_of_several_lines_is_told_in_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--storage", f"{tmp_path}/a\n\x1b[31mb"]) == 2
    assert "is not a directory" in one_line_of(capsys)


def test_the_settings_may_name_the_key_that_runs_are_signed_with(tmp_path: Path) -> None:
    (tmp_path / site.CONFIG).write_text('sign = "key"\nprobe = ["host"]\neffort = "quick"\nresults = "results"\n')
    done = bench("run", cwd=tmp_path)
    assert done.returncode == 2 and "key" in done.stderr, "before anything is measured"
    assert not (tmp_path / "results").exists()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    done = bench("run", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert len(list((tmp_path / "results").glob("runs/*/*.intoto.json.sig"))) == 1, done.stderr
