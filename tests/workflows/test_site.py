"""An account without a home, and with the home of another: what lies there is not there, and all else works."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.app import run
from bench.errors import UserError
from bench.store.index import Index, cache_folder
from bench.workflows import site
from tests.judge.baseline.make import READ, Nights


def no_such_account(uid: int) -> None:
    raise KeyError(uid)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container that runs under a number that no account has."""
    for name in ("HOME", "BENCH_CACHE", "BENCH_RESULTS", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_such_account)
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_stored_runs_are_read_and_asked_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Nights(tmp_path / "results").add_many(3)
    assert cache_folder() is None and site.config() == {} and site.results_root(None) == Path("results")
    with Index(tmp_path / "results") as index:
        assert index.hosts() == ["node01"]
    assert run(["history", READ]) == 0
    assert "3 runs" in capsys.readouterr().out


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("words", [["gate"], ["sign"], ["schedule", "install", "--user", "--print"]])
def test_without_a_home_what_needs_one_says_so(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no home folder" in line or "name one with --key" in line


def test_a_folder_that_may_not_be_entered_holds_no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stat: Callable[..., object] = Path.stat

    def refused(path: Path, **words: bool) -> object:
        if path.name == site.CONFIG:
            raise PermissionError(13, "Permission denied")
        return stat(path, **words)

    monkeypatch.setattr(Path, "stat", refused)
    monkeypatch.chdir(tmp_path)
    assert site.config() == {}


def test_a_working_directory_that_is_gone_is_no_storage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run(["run", "--results", str(tmp_path), "--probe", "host"]) == 2
    assert capsys.readouterr().err == "bench: --storage .: No such file or directory\n"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no run of this node"):
        site.find_run(site.open_store(tmp_path), None)


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["--storage", "nowhere"], "--storage nowhere: is not a directory"),
        (["--effort", "hard"], "--effort hard: must be one of"),
        (["--profile", "none"], "profile 'none': no such file"),
        (["--peer", ";"], "--peer ;: must be HOST"),
        (["--delay", "25h"], "--delay 25h: must be at most 24h"),
        (["--delay", "9" * 400], "must be at most 24h"),
    ],
)
def test_a_nightly_run_that_could_never_measure_is_not_installed(
    words: list[str],
    refused: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["schedule", "install", "--print", "--results", str(tmp_path / "results"), *words]) == 2
    said = capsys.readouterr()
    assert refused in said.err and said.err.count("\n") == 1 and not said.out
    assert not list(tmp_path.iterdir()), "no folder was made in the place of storage that is not there"


def test_the_nightly_run_measures_the_storage_of_the_sites_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / site.CONFIG).write_text('storage = ["data"]\n')
    assert run(["schedule", "install", "--print", "--results", "results"]) == 0
    assert f"--storage {tmp_path / 'data'} " in capsys.readouterr().out
