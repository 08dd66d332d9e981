"""A Slurm cluster (Debian's packages, no cgroups, no systemd, no database) on the hosts of the testbed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.fleet.testbed import Testbed, must, run

_TOOLS = ("slurmctld", "slurmd", "srun", "munged", "sinfo")


def reason_for_none() -> str | None:
    """Why there is no Slurm here, None if there is."""
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    return f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)" if missing else None


@dataclass
class Slurm:
    hosts: Testbed
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    job: str = ""

    @property
    def place(self) -> Path:
        return self.hosts.folder / "slurm"

    @property
    def conf(self) -> Path:
        return self.place / "slurm.conf"

    def up(self) -> Slurm:
        for name in ("munge", "state", "cgroup"):
            (self.place / name).mkdir(parents=True, exist_ok=True)
        self.hosts.folder.chmod(0o755)  # munge looks at every folder above its socket
        self.place.chmod(0o755)
        (self.place / "munge").chmod(0o755)
        self._munge()
        self._configure()
        control = [
            "unshare",
            "--uts",
            "sh",
            "-c",
            'hostname ctl; exec "$@"',
            "_",
            "slurmctld",
            "-D",
            "-i",
            "-f",
            str(self.conf),
        ]
        self._start("ctld", self.hosts.controller_argv(control))
        for i in self.hosts.numbers:
            self.start(i)
        self._wait_idle()
        return self

    def start(self, i: int) -> None:
        """The daemon of a host that has been switched on."""
        name = self.hosts.name(i)
        (self.place / f"spool.{name}").mkdir(exist_ok=True)
        self._start(name, self.hosts.on_argv(i, ["slurmd", "-D", "-f", str(self.conf), "-N", name]))

    def allocate(self) -> None:
        """All hosts, in place of the allocation before."""
        if self.job:
            self._ask("scancel", self.job)
        self._wait_idle()
        done = self._ask("salloc", f"-N{self.hosts.count}", "--no-kill", "--no-shell")
        assert done.returncode == 0, done.stderr
        self.job = done.stderr.split()[-1]

    @property
    def environment(self) -> dict[str, str]:
        """What a process in the allocation has from Slurm."""
        return {
            "SLURM_CONF": str(self.conf),
            "SLURM_JOB_ID": self.job,
            "SLURM_JOB_NODELIST": ",".join(self.hosts.names),
        }

    def _ask(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.hosts.controller(argv, timeout=30, SLURM_CONF=str(self.conf))

    def down(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait(5)
        with suppress(OSError, ValueError, ProcessLookupError):
            os.kill(int((self.place / "munge.pid").read_text()), signal.SIGTERM)

    def srun(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """One step over all hosts of the allocation; a host that fails ends nobody else's task."""
        nodes = str(self.hosts.count)
        fixed = ["srun", f"-N{nodes}", "--ntasks-per-node=1", "--no-kill", "--kill-on-bad-exit=0", "--wait=0"]
        return self.hosts.controller([*fixed, *words], timeout=timeout, **self.environment)

    def _munge(self) -> None:
        key = self.place / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        words = ["key-file", "pid-file", "log-file", "seed-file"]
        options = [f"--{word}={self.place}/munge.{word.partition('-')[0]}" for word in words]
        must(["munged", "--force", f"--socket={self.place}/munge/s", *options])

    def _configure(self) -> None:
        place = self.place
        nodes = [
            f"NodeName={self.hosts.name(i)} NodeAddr={self.hosts.address(i)} CPUs=2 RealMemory=1000 State=UNKNOWN"
            for i in self.hosts.numbers
        ]
        lines = [
            "ClusterName=test", "SlurmctldHost=ctl(10.77.255.1)", "AuthType=auth/munge", "CredType=cred/munge",
            f"AuthInfo=socket={place}/munge/s", "SlurmUser=root", "SlurmdUser=root", f"StateSaveLocation={place}/state",
            f"SlurmdSpoolDir={place}/spool.%n", f"SlurmctldPidFile={place}/ctld.pid",
            f"SlurmdPidFile={place}/slurmd.%n.pid",
            f"SlurmctldLogFile={place}/ctld.log", f"SlurmdLogFile={place}/slurmd.%n.log", "TaskPlugin=task/none",
            "ProctrackType=proctrack/linuxproc", "SelectType=select/linear", "MpiDefault=none", "ReturnToService=1",
            "SlurmdTimeout=15", "MessageTimeout=10", "InactiveLimit=0", "KillWait=5", "CompleteWait=0",
            "SrunPortRange=60000-61000", "SlurmdParameters=config_overrides", *nodes,
            "PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
        ]  # fmt: skip
        self.conf.write_text("\n".join(lines) + "\n")
        (place / "cgroup.conf").write_text(
            f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={place}/cgroup\nCgroupAutomount=no\nConstrainCores=no\n"
            "ConstrainRAMSpace=no\nConstrainDevices=no\n"
        )

    def _start(self, name: str, argv: list[str]) -> None:
        with (self.place / f"{name}.out").open("wb") as log:
            self.processes.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _wait_idle(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done = self._ask("sinfo", "-h", "-t", "idle", "-o", "%D")
            if done.stdout.strip() == str(self.hosts.count):
                return
            time.sleep(0.2)
        logs = run(["tail", "-n", "5", *map(str, self.place.glob("*.out"))]).stdout
        raise AssertionError(f"Slurm did not come up: {done.stdout} {done.stderr} {logs}")
