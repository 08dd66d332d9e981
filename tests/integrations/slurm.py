"""A Slurm of two nodes on this machine: munged, slurmctld and two slurmd on the loopback, no cgroups, no systemd."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integrations.monitoring import free_port, tool, wait_for

_CONF = """
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
MpiDefault=none
ReturnToService=1
SlurmdTimeout=300
MessageTimeout=10
InactiveLimit=0
KillWait=5
CompleteWait=0
SlurmdParameters=config_overrides
{extra}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=100 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=100 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
#: slurmd 22.05 ends without a cgroup mount point; an empty folder will do where nothing is constrained.
_CGROUP = """
CgroupPlugin=cgroup/v1
CgroupMountpoint={folder}/cgroup
CgroupAutomount=no
ConstrainCores=no
ConstrainRAMSpace=no
ConstrainDevices=no
"""


@dataclass(frozen=True, slots=True)
class Slurm:
    folder: Path

    def call(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            words,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def state(self, node: str) -> tuple[str, str]:
        """State word and reason, without who set it and when."""
        info = self.call("scontrol", "--oneliner", "show", "node", node)
        words = dict(word.partition("=")[::2] for word in info.split() if "=" in word)
        return words["State"], info.partition(" Reason=")[2].rpartition(" [")[0]


@contextmanager
def cluster(folder: Path, extra: str = "") -> Iterator[Slurm]:
    """Two idle nodes, n1 and n2. ``extra`` are lines of slurm.conf."""
    for name in ("state", "spool.n1", "spool.n2", "cgroup", "munge"):
        (folder / name).mkdir()
    (folder / "munge").chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    ports = [free_port() for _ in range(3)]
    (folder / "slurm.conf").write_text(_CONF.format(host=host, folder=folder, ports=ports, extra=extra))
    (folder / "cgroup.conf").write_text(_CGROUP.format(folder=folder))
    slurm = Slurm(folder)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(_start("munged", "--foreground", "--force", *_munge(folder)))
        assert wait_for((folder / "munge" / "socket").exists)
        conf = str(folder / "slurm.conf")
        processes.append(_start("slurmctld", "-D", "-f", conf, "-i"))
        processes += [_start("slurmd", "-D", "-f", conf, "-N", node) for node in ("n1", "n2")]
        assert wait_for(lambda: slurm.call("sinfo", "-h", "-t", "idle", "-o", "%D", check=False).strip() == "2"), _logs(
            folder
        )
        yield slurm
    finally:
        for process in reversed(processes):
            _end(process)


def _munge(folder: Path) -> list[str]:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    names = {"key-file": key, "socket": folder / "munge" / "socket", "pid-file": folder / "munge.pid",
             "log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}  # fmt: skip
    return [f"--{name}={path}" for name, path in names.items()]


def _start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [tool(name), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    end = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    if process.poll() is None:
        process.kill()
    process.wait(10)


def _logs(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace")[-1000:] for path in folder.glob("*.log"))
