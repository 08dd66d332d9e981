"""The nightly run: its systemd units or its line for cron, installed, asked after, and removed without a trace."""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.measure import tools
from bench.measure.probe import Completed, ProbeError
from bench.store.atomic import write_atomically
from bench.store.home import own_folder

NAME = "aiready-bench"
_SECONDS = 30.0

#: Not set, each for a reason: PrivateDevices hides GPUs and RDMA devices, MemoryDenyWriteExecute stops CUDA's compiler,
#: ProtectProc hides who keeps the node busy, PrivateUsers takes the owner of the data from it, and @resources holds
#: sched_setaffinity and mbind, which pin loads to their processors.
_SANDBOX = """\
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
KeyringMode=private
UMask=0027
"""
#: ProtectClock alone would allow no device but the clock's: every character device is named beside it (GPUs and RDMA
#: are such, also those whose driver is loaded on first use), and no disk, so that none can be written to raw.
_SYSTEM_ONLY = """\
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateMounts=yes
DeviceAllow=char-* rw
CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH
"""
_TIMER, _SERVICE = f"{NAME}.timer", f"{NAME}.service"
Run = Callable[[Sequence[str]], Completed]


class ScheduleError(UserError):
    """It could not be installed, removed or asked; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Nightly:
    """What is to be run every night. ``at`` is ``HH:MM``; ``delay_minutes`` spreads the nodes, each by a fixed part.

    ``run`` and ``prune`` are argument lists; ``writes`` the folders that they write to. ``user``: a unit of the user's
    own manager; ``account``: the system unit runs as that account instead of root.
    """

    run: tuple[str, ...]
    prune: tuple[str, ...]
    writes: tuple[Path, ...]
    at: str = "02:00"
    delay_minutes: int = 90
    user: bool = False
    account: str | None = None


@dataclass(frozen=True, slots=True)
class InstallPlace:
    """Where the files go, and how systemd is spoken to. ``systemd`` is False where cron has to do."""

    units: Path
    cron: Path
    systemd: bool
    user: bool
    run: Run

    def systemctl(self, *words: str) -> Completed:
        """One answer of systemctl. Raises ScheduleError when it is not there or says no."""
        try:
            done = self.run(["systemctl", "--user" if self.user else "--system", "--no-pager", *words])
        except ProbeError as error:
            raise ScheduleError(f"systemctl {words[0]}: {error.reason}") from error
        if done.returncode != 0:
            why = (done.stderr or done.stdout).strip() or f"status {done.returncode}"
            raise ScheduleError(f"systemctl {' '.join(words)}: {why.splitlines()[0]}")
        return done


@dataclass(frozen=True, slots=True)
class TimerStatus:
    """How the nightly run stands. Times as systemd prints them; None where there was none or it is not known."""

    installed: str | None
    last_started: str | None = None
    last_ended: str | None = None
    last_result: str | None = None
    last_status: int | None = None
    next_start: str | None = None


def place(user: bool) -> InstallPlace:
    """This machine's place: of the system, or of the user's own manager. Raises ScheduleError."""
    own = own_folder("XDG_CONFIG_HOME", ".config") if user else Path("/etc")
    if own is None:
        raise ScheduleError("this account has no home folder for a unit of its own; give --system, as root")
    folder = own / "systemd" / ("user" if user else "system")
    booted = Path("/run/systemd/system").is_dir()
    cron = Path("/etc/cron.d") / NAME
    return InstallPlace(folder, cron, booted, user, lambda argv: tools.run(argv, timeout=_SECONDS))


def install(nightly: Nightly, where: InstallPlace) -> str:
    """Write the files and start the timer; what was done, in words. Raises ScheduleError; then nothing is left."""
    if not where.systemd:
        return _install_cron(nightly, where)
    files = {where.units / _SERVICE: service(nightly), where.units / _TIMER: timer(nightly)}
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


def _install_cron(nightly: Nightly, where: InstallPlace) -> str:
    line = cron_line(nightly, platform.node())
    if where.user or not where.cron.parent.is_dir():
        return f"no systemd here; add this line with `crontab -e`:\n{line}"
    _write(where.cron, cron_line(nightly, platform.node(), nightly.account or "root"))
    return f"no systemd here; {where.cron}: {line}"


def status(where: InstallPlace) -> TimerStatus:
    """When it last ran, how it ended, when it runs next. Raises ScheduleError."""
    installed = next((path for path in (where.cron, where.units / _TIMER) if path.is_file()), None)
    if installed in (None, where.cron) or not where.systemd:
        return TimerStatus(str(installed) if installed else None)
    timer = _properties(where, _TIMER, "LastTriggerUSec", "NextElapseUSecRealtime")
    ran = _properties(where, _SERVICE, "Result", "ExecMainStatus", "ExecMainExitTimestamp")
    ended = _known(ran.get("ExecMainExitTimestamp"))
    code = ran.get("ExecMainStatus", "")
    return TimerStatus(
        installed=str(installed),
        last_started=_known(timer.get("LastTriggerUSec")),
        last_ended=ended,
        last_result=_known(ran.get("Result")) if ended else None,
        last_status=int(code) if ended and code.isdigit() else None,
        next_start=_known(timer.get("NextElapseUSecRealtime")),
    )


def remove(where: InstallPlace) -> list[Path]:
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


def _properties(where: InstallPlace, unit: str, *names: str) -> dict[str, str]:
    done = where.systemctl("show", unit, f"--property={','.join(names)}")
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def _known(text: str | None) -> str | None:
    return text if text not in (None, "", "n/a", "0") else None


def _write(path: Path, text: str) -> None:
    """Atomically, so that systemd never reads half of a unit. Raises ScheduleError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        raise ScheduleError(f"{path}: cannot be written: {error.strerror}; try --user, or as root") from error


# --- the files' text


def service(nightly: Nightly) -> str:
    """The unit that runs once. Measuring keeps its ordinary priority; tidying up waits for everyone else."""
    paths = "".join(f"ReadWritePaths={quoted(f'-{path}')}\n" for path in (*nightly.writes, Path("/run/lock")))
    account = f"User={nightly.account}\n" if nightly.account else ""
    in_tmp = any(str(path).startswith(("/tmp/", "/var/tmp/")) for path in nightly.writes)
    private = "" if in_tmp else "PrivateTmp=yes\n"  # which would hide a folder that was asked for
    sandbox = _SANDBOX if nightly.user else _SANDBOX + _SYSTEM_ONLY + private + paths
    idle = ("/usr/bin/env", "nice", "-n", "19", "ionice", "-c", "3", *nightly.prune)
    return (
        "[Unit]\n"
        "Description=aiready-bench: nightly baseline of this node\n"
        + ("" if nightly.user else "Wants=network-online.target\nAfter=network-online.target\n")
        + "\n[Service]\nType=oneshot\n"
        + account
        + f"ExecStart={_command(nightly.run)}\n"
        f"ExecStopPost=-{_command(idle)}\n"
        "TimeoutStartSec=4h\nTimeoutStopSec=60s\nKillMode=control-group\nOOMScoreAdjust=800\nLimitMEMLOCK=infinity\n"
        + sandbox
    )


def timer(nightly: Nightly) -> str:
    """The unit that starts it: once a night, a fixed random while after ``at``, made up for after a night off."""
    return (
        "[Unit]\nDescription=aiready-bench: every night\n\n"
        f"[Timer]\nOnCalendar=*-*-* {nightly.at}:00\nRandomizedDelaySec={nightly.delay_minutes}min\n"
        "FixedRandomDelay=true\nPersistent=true\nAccuracySec=1min\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


def cron_line(nightly: Nightly, machine: str, account: str | None = None) -> str:
    """The line for cron; ``account`` for a file of /etc/cron.d. The delay is drawn from the machine's name.

    What cron does not have: a night made up for, a sandbox, and the end of the whole tree.
    """
    hours, minutes = (int(part) for part in nightly.at.split(":"))
    drawn = int.from_bytes(hashlib.sha256(machine.encode()).digest()[:8], "big") % max(nightly.delay_minutes, 1)
    start = (60 * hours + minutes + drawn) % (24 * 60)
    words, after = (" ".join(map(_for_shell, command)) for command in (nightly.run, nightly.prune))
    who = f" {account}" if account else ""
    return f"{start % 60} {start // 60} * * *{who} {words}; nice -n 19 ionice -c 3 {after}\n"


def _command(words: Sequence[str]) -> str:
    """An ExecStart line. systemd takes the program's own path as it is, but for ``%``, and none with a quote in it."""
    program, *rest = words
    if not set(program).isdisjoint("\"'\\"):
        raise ValueError(f"systemd cannot start {program!r}: there is a quote or a backslash in the path")
    return " ".join([quoted(program), *(quoted(word.replace("$", "$$")) for word in rest)])


def quoted(word: str) -> str:
    """One word of a unit file (systemd.syntax(7)). Raises ValueError for a control character."""
    if not word.isprintable():
        raise ValueError(f"a unit file cannot hold {word!r}")
    plain = word.replace("%", "%%")
    if plain and set(plain).isdisjoint(" \"'\\;"):
        return plain
    inner = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'


def _for_shell(word: str) -> str:
    """One word for cron's shell; cron itself ends the command at a ``%``."""
    if not word.isprintable():
        raise ValueError(f"a cron line cannot hold {word!r}")
    return shlex.quote(word).replace("%", "\\%")
