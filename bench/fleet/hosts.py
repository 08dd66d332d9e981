"""Which hosts were named. Without that list nobody can say what is missing, so nothing is joined without it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bench.fleet.errors import FleetError
from bench.store.errors import one_line, why

MAX_BYTES = 8 << 20
HOSTS_FILE = "hosts.txt"


def read_hosts(path: Path) -> list[str]:
    """One host a line; blank lines and what follows ``#`` are left out. Raises FleetError for none, or one twice."""
    try:
        text = small_file(path).decode("utf-8")
    except OSError as error:
        raise FleetError(one_line(f"{path}: {why(error)}; give the expected hosts with --expect FILE")) from error
    except UnicodeDecodeError as error:
        raise FleetError(one_line(f"{path}: byte {error.start}: not UTF-8; give one host a line")) from error
    return checked([line.partition("#")[0].strip() for line in text.splitlines()], str(path))


def checked(words: list[str], where: str) -> list[str]:
    """The hosts, in the order named. Raises FleetError for none, for one named twice, for what is no host name."""
    hosts = [word for word in words if word]
    if not hosts:
        raise FleetError(one_line(f"{where}: names no host; give one host a line"))
    for host in hosts:
        if len(host) > 255 or any(c.isspace() or not c.isprintable() or c in "/\\" for c in host):
            raise FleetError(one_line(f"{where}: {host!r} is not a host name; give one host a line", 200))
    doubles = sorted({host for host in hosts if hosts.count(host) > 1}) if len(set(hosts)) < len(hosts) else []
    if doubles:
        raise FleetError(one_line(f"{where}: {doubles[0]} is named twice; name each host once"))
    return hosts


def small_file(path: Path, most: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most ``most`` bytes. Raises OSError; FleetError when it is something else."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FleetError(one_line(f"{path}: is not a regular file"))
        data = file.read(most + 1)
    if len(data) > most:
        raise FleetError(one_line(f"{path}: is larger than {most >> 20} MiB, which no such file is"))
    return data


def same_host(expected: str, hostname: str) -> bool:
    """Whether a result that says it is of ``hostname`` can be of the host named ``expected``: equal, or equal up to the
    first dot when one of them is a short name. An address names no host, so it must be equal.
    """
    if expected == hostname:
        return True
    a, b = expected.lower(), hostname.lower()
    if a == b:
        return True
    if _is_address(a) or _is_address(b) or ("." in a and "." in b):
        return False
    return a.partition(".")[0] == b.partition(".")[0]


def _is_address(word: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True
