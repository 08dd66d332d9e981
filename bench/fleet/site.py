"""ansible as the site has it: its programs, its configuration and keys, and the settings that must be ours."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.fleet.errors import FleetError

CONNECT_SECONDS = 10
INSTALL = "pip install 'aiready-bench[fleet]'"
_KEEP_ALIVE = "-o ServerAliveInterval=5 -o ServerAliveCountMax=3"  # a lost host is seen after 15 s
_SITE = ("SSH_AUTH_SOCK", "SSH_AGENT_PID", "KRB5CCNAME", "SSH_ASKPASS", "DISPLAY")
_CONFIG = "[defaults]\ninternal_poll_interval = 0.05\nretry_files_enabled = False\n"


def program(name: str) -> str:
    """The absolute path of a program of the extra ``fleet``: beside this Python, else on PATH. Raises FleetError."""
    beside = Path(sys.executable).parent / name
    path = str(beside) if beside.is_file() else shutil.which(name)
    if path is None:
        raise FleetError(f"{name} is not installed; {INSTALL}")
    return path


@contextmanager
def private() -> Iterator[Path]:
    """A 0700 folder, in memory where the system has such a place, for what ansible writes; gone afterwards. What a
    controller that was killed has left there is removed by the next.
    """
    places = (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm", tempfile.gettempdir())
    base = next(place for place in places if place and os.access(place, os.W_OK | os.X_OK))
    for left in Path(base).glob("aiready-fleet-*-*"):
        owner = left.name.split("-")[2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and left.stat().st_uid == os.geteuid():
            shutil.rmtree(left, ignore_errors=True)
    prefix = f"aiready-fleet-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=base, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def environment(folder: Path) -> dict[str, str]:
    """The site's own ansible and ssh settings, and ours where they must be so."""
    site = {k: v for k, v in os.environ.items() if k in _SITE or k.startswith("ANSIBLE_")}
    config = _site_config()
    if config is None:
        config = folder / "ansible.cfg"
        config.write_text(_CONFIG, encoding="utf-8")
        site.setdefault("ANSIBLE_SSH_ARGS", f"-o ControlMaster=no {_KEEP_ALIVE}")
    else:
        site.setdefault("ANSIBLE_SSH_EXTRA_ARGS", _KEEP_ALIVE)  # ssh takes the first that is given: the site's stand
    ours = {
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_SSH_RETRIES": "0",
        "ANSIBLE_SSH_USETTY": "False",
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_GATHERING": "explicit",
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "c"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "t"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    return {**site, "ANSIBLE_TIMEOUT": site.get("ANSIBLE_TIMEOUT", str(CONNECT_SECONDS)), **ours}


def _site_config() -> Path | None:
    """The configuration that ansible itself would take, seen from where the user stands."""
    given = os.environ.get("ANSIBLE_CONFIG")
    places = (given, "ansible.cfg", str(Path.home() / ".ansible.cfg"), "/etc/ansible/ansible.cfg")
    return next((Path(place).resolve() for place in places if place and Path(place).is_file()), None)
