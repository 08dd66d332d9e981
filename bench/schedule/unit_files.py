"""The files of the nightly run: a systemd service and timer, or a line for cron. Text only; nothing is run here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "aiready-bench"

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


def service(nightly: Nightly) -> str:
    """The unit that runs once. Measuring keeps its ordinary priority; tidying up waits for everyone else."""
    paths = "".join(f"ReadWritePaths=-{quoted(str(path))}\n" for path in (*nightly.writes, Path("/run/lock")))
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
        + f"ExecStart={command(nightly.run)}\n"
        f"ExecStopPost=-{command(idle)}\n"
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
    words = " ".join(_for_shell(word) for word in nightly.run)
    after = " ".join(_for_shell(word) for word in nightly.prune)
    who = f" {account}" if account else ""
    return f"{start % 60} {start // 60} * * *{who} {words}; nice -n 19 ionice -c 3 {after}\n"


def command(words: Sequence[str]) -> str:
    """An ExecStart line: each word quoted where it must be, with systemd's own specials taken from them."""
    return " ".join(quoted(word) for word in words)


def quoted(word: str) -> str:
    """One word of a unit file. Raises ValueError for a control character, which no path of ours has."""
    if not word.isprintable():
        raise ValueError(f"a unit file cannot hold {word!r}")
    plain = word.replace("%", "%%").replace("$", "$$")
    if plain and not set(plain) & set(" \"'\\;"):
        return plain
    inner = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'


def _for_shell(word: str) -> str:
    """One word for cron's shell; cron itself ends the command at a ``%``."""
    import shlex

    if not word.isprintable():
        raise ValueError(f"a cron line cannot hold {word!r}")
    return shlex.quote(word).replace("%", "\\%")
