"""Installing the nightly run, asking how it went, and removing every trace of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.measure import tools
from bench.measure.probe import Completed, ProbeError
from bench.schedule import unit_files as units
from bench.schedule.unit_files import NAME, Nightly

_SECONDS = 30.0
_TIMER, _SERVICE = f"{NAME}.timer", f"{NAME}.service"
Run = Callable[[Sequence[str]], Completed]


class ScheduleError(UserError):
    """It could not be installed, removed or asked; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files go, and how systemd is spoken to. ``systemd`` is False where cron has to do."""

    units: Path
    cron: Path
    systemd: bool
    user: bool
    run: Run

    def systemctl(self, *words: str) -> Completed:
        """One answer of systemctl. Raises ScheduleError when it is not there or says no."""
        scope = ["--user"] if self.user else ["--system"]
        try:
            done = self.run(["systemctl", *scope, "--no-pager", *words])
        except ProbeError as error:
            raise ScheduleError(f"systemctl {words[0]}: {error.reason}") from error
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()
            why = lines[0] if lines else f"status {done.returncode}"
            raise ScheduleError(f"systemctl {' '.join(words)}: {why}")
        return done


@dataclass(frozen=True, slots=True)
class Status:
    """How the nightly run stands. Times as systemd prints them; None where there was none or it is not known."""

    installed: str | None
    last_started: str | None = None
    last_ended: str | None = None
    last_result: str | None = None
    last_status: int | None = None
    next_start: str | None = None


def place(user: bool) -> Place:
    """This machine's place: of the system, or of the user's own manager."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folder = home / "systemd/user" if user else Path("/etc/systemd/system")
    booted = Path("/run/systemd/system").is_dir()
    return Place(folder, Path("/etc/cron.d") / NAME, booted, user, lambda argv: tools.run(argv, timeout=_SECONDS))


def install(nightly: Nightly, where: Place) -> str:
    """Write the files and start the timer; what was done, in words. Raises ScheduleError; then nothing is left."""
    if not where.systemd:
        return _install_cron(nightly, where)
    files = {where.units / _SERVICE: units.service(nightly), where.units / _TIMER: units.timer(nightly)}
    try:
        for path, text in files.items():
            _write(path, text)
        where.systemctl("daemon-reload")
        where.systemctl("enable", "--now", _TIMER)
    except ScheduleError:
        for path in files:
            path.unlink(missing_ok=True)
        raise
    return f"{where.units / _TIMER}: every night at {nightly.at} and up to {nightly.delay_minutes} min later"


def _install_cron(nightly: Nightly, where: Place) -> str:
    line = units.cron_line(nightly, platform.node())
    if where.user or not where.cron.parent.is_dir():
        return f"no systemd here; add this line with `crontab -e`:\n{line}"
    _write(where.cron, units.cron_line(nightly, platform.node(), nightly.account or "root"))
    return f"no systemd here; {where.cron}: {line}"


def status(where: Place) -> Status:
    """When it last ran, how it ended, when it runs next. Raises ScheduleError."""
    if where.cron.is_file():
        return Status(installed=str(where.cron))
    if not (where.units / _TIMER).is_file():
        return Status(installed=None)
    if not where.systemd:
        return Status(installed=str(where.units / _TIMER))
    timer = _properties(where, _TIMER, "LastTriggerUSec", "NextElapseUSecRealtime")
    ran = _properties(where, _SERVICE, "Result", "ExecMainStatus", "ExecMainExitTimestamp")
    ended = _known(ran.get("ExecMainExitTimestamp"))
    code = ran.get("ExecMainStatus", "")
    return Status(
        installed=str(where.units / _TIMER),
        last_started=_known(timer.get("LastTriggerUSec")),
        last_ended=ended,
        last_result=_known(ran.get("Result")) if ended else None,
        last_status=int(code) if ended and code.isdigit() else None,
        next_start=_known(timer.get("NextElapseUSecRealtime")),
    )


def remove(where: Place) -> list[Path]:
    """Stop and forget it: units, the timer's own stamp, the cron file. The files removed; none if there was nothing."""
    files = [path for path in (where.units / _TIMER, where.units / _SERVICE, where.cron) if path.exists()]
    if where.systemd and (where.units / _TIMER).exists():
        where.systemctl("disable", "--now", _TIMER)
        where.systemctl("clean", "--what=state", _TIMER)
    for path in files:
        try:
            path.unlink()
        except OSError as error:
            raise ScheduleError(f"{path}: cannot be removed: {error.strerror}") from error
    if where.systemd and files:
        where.systemctl("daemon-reload")
    return files


def _properties(where: Place, unit: str, *names: str) -> dict[str, str]:
    done = where.systemctl("show", unit, f"--property={','.join(names)}")
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def _known(text: str | None) -> str | None:
    return text if text not in (None, "", "n/a", "0") else None


def _write(path: Path, text: str) -> None:
    """Atomically, so that systemd never reads half of a unit. Raises ScheduleError."""
    temp = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temp.write_text(text, encoding="utf-8")
        temp.chmod(0o644)
        temp.replace(path)
    except OSError as error:
        temp.unlink(missing_ok=True)
        raise ScheduleError(f"{path}: cannot be written: {error.strerror}; try --user, or as root") from error
