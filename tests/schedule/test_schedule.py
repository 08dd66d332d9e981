"""The nightly run: unit files that systemd itself accepts, and an installation that leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench import schedule
from bench.measure.probe import Completed, Unsupported
from bench.schedule import InstallPlace, Nightly, ScheduleError

NIGHTLY = Nightly(
    run=("/usr/bin/python3", "-m", "bench", "run", "--baseline", "--storage", "/srv/my data/100%"),
    prune=("/usr/bin/python3", "-m", "bench", "schedule", "prune", "--keep", "400"),
    writes=(Path("/var/lib/aiready-bench"), Path("/srv/my data/100%")),
)
needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


class Systemd:
    """Answers as systemctl does, and keeps what it was asked."""

    def __init__(self, answers: dict[str, str] | None = None, fails: str = "") -> None:
        self.asked: list[list[str]] = []
        self.answers = answers or {}
        self.fails = fails

    def __call__(self, argv: Sequence[str]) -> Completed:
        self.asked.append(list(argv[3:]))
        if argv[3] == self.fails:
            return Completed(tuple(argv), 1, "", "Failed to do it: Access denied\nmore\n", 0.0)
        return Completed(tuple(argv), 0, self.answers.get(" ".join(argv[3:5]), ""), "", 0.0)


def _place(tmp_path: Path, systemd: Systemd, booted: bool = True, user: bool = False) -> InstallPlace:
    cron = tmp_path / "cron.d"
    cron.mkdir(exist_ok=True)
    return InstallPlace(tmp_path / "units", cron / "aiready-bench", booted, user, systemd)


def _written(tmp_path: Path, nightly: Nightly) -> Path:
    (tmp_path / "aiready-bench.service").write_text(schedule.service(nightly))
    (tmp_path / "aiready-bench.timer").write_text(schedule.timer(nightly))
    return tmp_path


@needs_analyze
@pytest.mark.parametrize("user", [False, True])
def test_systemd_accepts_the_units(tmp_path: Path, user: bool) -> None:
    folder = _written(tmp_path, replace(NIGHTLY, user=user))
    files = [str(folder / "aiready-bench.service"), str(folder / "aiready-bench.timer")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if "aiready" in line]) == (0, [])


@needs_analyze
@pytest.mark.parametrize("name", ["a b", "100% of it", "$HOME", "a;b", "é"])
def test_systemd_finds_the_program_in_any_folder(tmp_path: Path, name: str) -> None:
    """It looks for the program while it verifies: a word that was quoted wrongly is not there."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "python").symlink_to("/bin/true")
    run = (str(folder / "python"), "-m", "bench", "run", "--storage", str(folder))
    nightly = replace(NIGHTLY, run=run, prune=(run[0], "-m", "bench"), writes=(folder,))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(_written(tmp_path, nightly) / "aiready-bench.service")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, [line for line in done.stderr.splitlines() if "aiready" in line]) == (0, [])


@pytest.mark.parametrize("name", ['a"b', "it's", "a\\b"])
def test_a_program_that_systemd_cannot_start_is_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError, match="systemd cannot start"):
        schedule.service(replace(NIGHTLY, run=(f"/opt/{name}/python", "-m", "bench")))


@needs_analyze
def test_a_broken_unit_would_be_seen(tmp_path: Path) -> None:
    folder = _written(tmp_path, replace(NIGHTLY, at="25:00"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(folder / "aiready-bench.timer")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0


@needs_analyze
def test_exposure_is_at_most_two_and_a_half(tmp_path: Path) -> None:
    folder = _written(tmp_path, NIGHTLY)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(folder / "aiready-bench.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = re.search(r"Overall exposure level for .*: (\d+\.\d)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= 2.5


def test_the_sandbox_hides_no_gpu_and_stops_no_compiler() -> None:
    text = schedule.service(NIGHTLY)
    assert "DeviceAllow=char-* rw" in text  # ProtectClock without it would allow the clock's device alone
    assert not re.search(r"^(PrivateDevices|MemoryDenyWriteExecute|DevicePolicy)=", text, re.M)
    assert "~@resources" not in text
    assert "LimitMEMLOCK=infinity" in text


def test_measuring_keeps_its_priority_and_tidying_waits() -> None:
    text = schedule.service(NIGHTLY)
    started = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    tidied = next(line for line in text.splitlines() if line.startswith("ExecStopPost="))
    assert "nice" not in started and not re.search(r"^(Nice|IOSchedulingClass)=", text, re.M)
    assert "ionice -c 3" in tidied


def test_the_timer_is_spread_by_a_fixed_part_and_made_up_for() -> None:
    text = schedule.timer(replace(NIGHTLY, at="03:15", delay_minutes=45))
    for line in ("OnCalendar=*-*-* 03:15:00", "RandomizedDelaySec=45min", "FixedRandomDelay=true", "Persistent=true"):
        assert line in text


@pytest.mark.parametrize(
    ("word", "quoted"),
    [("/data", "/data"), ("/my data", '"/my data"'), ("100%", "100%%"), ("$HOME", "$$HOME"), ('a"b', '"a\\"b"')],
)
def test_words_reach_the_program_as_they_are(word: str, quoted: str) -> None:
    text = schedule.service(replace(NIGHTLY, run=("/bin/true", word)))
    assert f"ExecStart=/bin/true {quoted}\n" in text


@pytest.mark.parametrize(
    ("folder", "quoted"),
    [("/data", "-/data"), ("/my data", '"-/my data"'), ("/100%", "-/100%%"), ("/$HOME", "-/$HOME")],
)
def test_folders_that_are_written_to_are_named_as_they_are(folder: str, quoted: str) -> None:
    """No variable stands in a path, so that its dollar is none."""
    assert f"\nReadWritePaths={quoted}\n" in schedule.service(replace(NIGHTLY, writes=(Path(folder),)))


def test_a_line_break_cannot_add_a_line_to_a_unit() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        schedule.service(replace(NIGHTLY, run=("/bin/true", "x\nExecStart=/bin/evil")))
    with pytest.raises(ValueError, match="cannot hold"):
        schedule.cron_line(replace(NIGHTLY, run=("/bin/true", "x\n* * * * * evil")), "n")


def test_install_then_remove_leaves_nothing(tmp_path: Path) -> None:
    systemd = Systemd()
    place = _place(tmp_path, systemd)
    assert "02:00" in schedule.install(NIGHTLY, place)
    assert sorted(path.name for path in place.units.iterdir()) == ["aiready-bench.service", "aiready-bench.timer"]
    assert systemd.asked == [["daemon-reload"], ["enable", "--now", "aiready-bench.timer"]]
    assert len(schedule.remove(place)) == 2
    assert list(place.units.iterdir()) == []
    assert ["clean", "--what=state", "aiready-bench.timer"] in systemd.asked  # the persistent timer's stamp
    assert schedule.remove(place) == []


def test_a_refusal_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    place = _place(tmp_path, Systemd(fails="enable"))
    with pytest.raises(
        ScheduleError, match=r"^systemctl enable --now aiready-bench.timer: Failed to do it: Access denied$"
    ):
        schedule.install(NIGHTLY, place)
    assert list(place.units.iterdir()) == []


def test_systemctl_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    def absent(argv: Sequence[str]) -> Completed:
        raise Unsupported.told(f"tool_missing: {argv[0]} is not installed")

    place = replace(_place(tmp_path, Systemd()), run=absent)
    with pytest.raises(ScheduleError, match="tool_missing: systemctl is not installed"):
        schedule.install(NIGHTLY, place)


def test_status_says_when_it_ran_how_it_ended_and_when_it_runs(tmp_path: Path) -> None:
    answers = {
        "show aiready-bench.timer": "LastTriggerUSec=Sun 2026-11-22 02:31:07 UTC\n"
        "NextElapseUSecRealtime=Mon 2026-11-23 02:31:07 UTC\n",
        "show aiready-bench.service": "Result=exit-code\nExecMainStatus=1\n"
        "ExecMainExitTimestamp=Sun 2026-11-22 02:36:40 UTC\n",
    }
    place = _place(tmp_path, Systemd(answers))
    assert schedule.status(place).installed is None
    schedule.install(NIGHTLY, place)
    found = schedule.status(place)
    assert found.last_status == 1
    assert found.last_result == "exit-code"
    assert found.last_ended == "Sun 2026-11-22 02:36:40 UTC"
    assert found.next_start == "Mon 2026-11-23 02:31:07 UTC"


def test_never_run_is_not_a_success(tmp_path: Path) -> None:
    answers = {"show aiready-bench.service": "Result=success\nExecMainStatus=0\nExecMainExitTimestamp=\n"}
    place = _place(tmp_path, Systemd(answers))
    schedule.install(NIGHTLY, place)
    found = schedule.status(place)
    assert (found.last_status, found.last_result, found.last_ended) == (None, None, None)


def test_without_systemd_there_is_a_line_for_cron(tmp_path: Path) -> None:
    place = _place(tmp_path, Systemd(), booted=False)
    schedule.install(NIGHTLY, place)
    line = place.cron.read_text()
    assert re.match(r"^\d{1,2} [0-3] \* \* \* root /usr/bin/python3 -m bench run ", line)
    assert "'/srv/my data/100\\%'" in line
    assert schedule.status(place).installed == str(place.cron)
    assert schedule.remove(place) == [place.cron]
    assert not list(place.cron.parent.iterdir())


def test_cron_spreads_the_nodes_and_keeps_each_ones_time() -> None:
    lines = [schedule.cron_line(NIGHTLY, f"node{number}") for number in range(50)]
    starts = {tuple(map(int, line.split()[:2])) for line in lines}
    minutes = [60 * hour + minute for minute, hour in starts]
    assert len(starts) > 25
    assert min(minutes) >= 120 and max(minutes) < 120 + 90
    assert schedule.cron_line(NIGHTLY, "node7") == lines[7]


@pytest.mark.skipif(os.geteuid() != 0, reason="the command installs for the system, which takes root")
def test_the_command_prints_what_it_would_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            "bench",
            "schedule",
            "install",
            "--print",
            "--storage",
            str(tmp_path),
            "--results",
            str(tmp_path / "r"),
            "--at",
            "04:10",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    assert f"--storage {tmp_path}" in done.stdout and "OnCalendar=*-*-* 04:10:00" in done.stdout
    assert not (tmp_path / "r").exists()
