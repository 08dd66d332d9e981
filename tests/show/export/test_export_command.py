"""`bench export` as a user and as a supervisor starts it: files, statuses, the listening server."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.model import Run
from tests.cli.bench import bench
from tests.show.export.sample import good, here, inconclusive, starved, stored


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "nagios", "npd"),
    [(good, 0, 0), (starved, 2, 1), (inconclusive, 3, 2)],
    ids=["GO", "NO-GO", "INCONCLUSIVE"],
)
def test_the_plugins_exit_by_their_protocol(make: Callable[[], Run], nagios: int, npd: int, results: Path) -> None:
    stored(results, make())
    assert bench("export", "--format", "nagios", "--results", results, cwd=results).returncode == nagios
    answer = bench("export", "--format", "npd", "--results", results, cwd=results)
    assert (answer.returncode, answer.stderr) == (npd, "")
    assert len(answer.stdout.encode()) <= 80
    assert bench("export", "--format", "junit", "--results", results, cwd=results).returncode == 0


def test_without_a_run_the_plugins_say_unknown(results: Path) -> None:
    for name, status, begins in (("nagios", 3, "BENCH UNKNOWN: "), ("npd", 2, "no verdict: ")):
        done = bench("export", "-f", name, "--results", results, cwd=results)
        assert (done.returncode, done.stdout.startswith(begins)) == (status, True)
        assert len(done.stderr.splitlines()) == 1
    done = bench("export", "-f", "junit", "--results", results, cwd=results)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_run_that_cannot_be_read_is_unknown(results: Path) -> None:
    path = results / "run.json"
    path.write_text('{"schema": "something else"}')
    assert bench("export", path, "-f", "nagios", cwd=results).returncode == 3
    assert bench("export", path, "-f", "npd", cwd=results).returncode == 2
    assert bench("export", path, "-f", "openmetrics", cwd=results).returncode == 2


@pytest.mark.slow
def test_an_old_run_is_unknown_when_an_age_is_asked_for(results: Path) -> None:
    stored(
        results, here(started_at="2020-01-01T00:00:00Z", finished_at="2020-01-01T00:01:00Z", verdicts=good().verdicts)
    )
    assert bench("export", "-f", "nagios", "--results", results, cwd=results).returncode == 0
    done = bench("export", "-f", "nagios", "--max-age", "26h", "--results", results, cwd=results)
    assert (done.returncode, "stale" in done.stdout) == (3, True)
    assert bench("export", "-f", "npd", "--max-age", "26h", "--results", results, cwd=results).returncode == 2


def test_the_file_is_put_in_place_whole_and_readable_by_an_exporter(results: Path) -> None:
    stored(results, good())
    target = results / "bench.prom"
    target.write_text("old")
    target.chmod(0o600)
    done = bench("export", "-f", "openmetrics", "-o", target, "--results", results, cwd=results)
    assert (done.returncode, done.stdout) == (0, "")
    assert target.read_text().endswith("# EOF\n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert [path.name for path in results.iterdir() if path.name.startswith(".bench")] == []


def test_a_device_stays_a_device_and_a_link_a_link(results: Path) -> None:
    stored(results, good())
    real, link = results / "real.prom", results / "link.prom"
    real.write_text("old")
    link.symlink_to(real)
    for target in (link, Path("/dev/null")):
        done = bench("export", "-f", "openmetrics", "-o", target, "--results", results, cwd=results)
        assert done.returncode == 0, done.stderr
    assert link.is_symlink()
    assert real.read_text().endswith("# EOF\n")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_target_that_cannot_be_written_is_one_line_and_leaves_nothing(results: Path) -> None:
    stored(results, good())
    target = results / "taken"
    target.mkdir()
    done = bench("export", "-f", "json", "-o", target, "--results", results, cwd=results)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert str(target) in done.stderr
    assert not list(results.glob(".taken*"))


@pytest.mark.parametrize("words", [["-f", "yaml"], [], ["-f", "nagios", "--max-age", "soon"], ["--listen", "nonsense"]])
def test_wrong_usage_is_one_line(words: list[str], results: Path) -> None:
    stored(results, good())
    done = bench("export", *words, "--results", results, cwd=results)
    assert done.returncode in (2, 3)
    assert len(done.stderr.splitlines()) == 1


@contextmanager
def listening(results: Path, where: str = "127.0.0.1:0") -> Iterator[tuple[subprocess.Popen[str], str]]:
    words = [sys.executable, "-m", "bench", "export", "--listen", where, "--results", str(results)]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert server.stderr is not None
        yield server, server.stderr.readline().split()[-1]
    finally:
        server.kill()
        server.wait(10)


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_listening_serves_the_newest_run_and_ends_on_sigterm(results: Path) -> None:
    with listening(results) as (server, url):
        assert get(url)[0] == 500
        stored(results, good())
        status, body = get(url)
        assert (status, body.endswith("# EOF\n")) == (200, True)
        stored(results, here(id="newer", started_at="2026-11-22T11:00:00Z"))
        assert 'id="newer"' in get(url)[1]
        assert get(url.replace("/metrics", "/../../etc/passwd"))[0] == 404
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0


def test_a_taken_port_is_one_line(results: Path) -> None:
    with listening(results) as (_, url):
        where = url.removeprefix("http://").removesuffix("/metrics")
        done = bench("export", "--listen", where, cwd=results)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
