"""A Ray cluster on the hosts of the testbed: a head without CPUs beside the controller, a raylet a host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure.processes import descendants, end_all
from tests.fleet.testbed import Testbed

#: A node that is silent is dead after a quarter of a minute, and not after one; a busy one answers within it.
_QUICK = {"initial_delay_ms": "1000", "period_ms": "1000", "timeout_ms": "3000", "failure_threshold": "4"}
_MOUNT = 'mkdir -p "$0"; mount -t tmpfs tmpfs "$0"; exec "$@"'


@dataclass
class Raylets:
    hosts: Testbed
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    address = "10.77.255.1:6379"

    def up(self) -> Raylets:
        if not self._venv.is_symlink():  # there from a start that failed
            self._venv.symlink_to(sys.prefix)
        head = ["--head", "--port=6379", "--node-ip-address=10.77.255.1", "--num-cpus=0", "--include-dashboard=false",
                f"--temp-dir={self._temp}"]  # fmt: skip
        self._start(self.hosts.controller_argv(self._ray(head)))
        self.start(*self.hosts.numbers)
        return self

    def start(self, *numbers: int) -> None:
        """The raylets of hosts, each of which sees a temporary folder of its own; until they are up."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._start, [self._raylet(i) for i in numbers]))

    def _raylet(self, i: int) -> list[str]:
        own = [f"--address={self.address}", f"--node-ip-address={self.hosts.address(i)}", "--num-cpus=1",
               f"--node-name={self.hosts.name(i)}"]  # fmt: skip
        return self.hosts.on_argv(i, ["sh", "-c", _MOUNT, self._temp, *self._ray(own)])

    def down(self) -> None:
        end_all(pid for process in self.processes for pid in (process.pid, *descendants(process.pid)))
        for process in self.processes:
            process.wait(10)
        shutil.rmtree(self._temp, ignore_errors=True)

    @property
    def _temp(self) -> str:
        return str(self.hosts.folder / "ray")

    @property
    def _venv(self) -> Path:
        """The virtual environment by another name: Ray gives the path of its Python to a shell, without quotes."""
        return self.hosts.folder / "venv"

    def _ray(self, words: list[str]) -> list[str]:
        fixed = ["--block", "--disable-usage-stats", "--object-store-memory=80000000"]
        return [str(self._venv / "bin" / "python"), "-m", "ray.scripts.scripts", "start", *fixed, *words]

    def _start(self, argv: list[str], seconds: float = 150) -> None:
        """Start it, and wait until it says that it is up."""
        log = self.hosts.folder / f"ray.{os.urandom(4).hex()}.log"
        env = {**os.environ, **{f"RAY_health_check_{name}": value for name, value in _QUICK.items()}}
        env["RAY_raylet_start_wait_time_s"] = "120"  # of a busy machine
        with log.open("wb") as file:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env)
        self.processes.append(process)
        end = time.monotonic() + seconds
        while "Ray runtime started" not in log.read_text():
            assert time.monotonic() < end and process.poll() is None, f"Ray did not come up: {log.read_text()[-2000:]}"
            time.sleep(0.2)
