"""Hosts on one machine: each with its own network, names, processes and mounts, and an sshd; a bridge between them.

As root, without a container engine. The bridge lives in a namespace of its own and nothing touches the machine's real
interfaces, so that many fleets may be up at once. Each host has a machine-id, a boot-id, a /run/lock and the product's
folder in /var/tmp of its own (the rest of /var/tmp is the machine's: this checkout may lie there), and a cgroup (v1) in
which its CPU and its disk can be throttled. Killing one process is a power cut.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuacct", "blkio")
_SSHD = "/usr/sbin/sshd"
#: `ip netns exec` mounts a new /sys, so the cgroups are entered before it.
_ENTER = 'for g in $0; do echo $$ > "$g/cgroup.procs"; done; exec "$@"'
_START = """
hostname "$1"; ip link set lo up
jobs=/var/tmp/aiready-bench-$(id -u)
mkdir -p "$HOME/.ansible" /run/sshd /run/lock
mkdir -p -m 700 "$jobs"
for place in "$HOME/.ansible" "$jobs" /run/lock; do mount -t tmpfs -o size=256m,mode=700 tmpfs "$place"; done
mount --bind "$2/machine-id" /etc/machine-id
mount --bind "$2/boot-id" /proc/sys/kernel/random/boot_id
exec /usr/sbin/sshd -D -e -f "$3/sshd_config" -o ListenAddress="$4:22" -o PidFile=none
"""


def reason_for_none() -> str | None:
    """Why such hosts cannot be made here, None if they can."""
    if os.geteuid():
        return "needs root: hosts in network namespaces"
    missing = [
        tool for tool in ("ip", "unshare", "nsenter", "ssh", "ssh-keygen", "pgrep") if shutil.which(tool) is None
    ]
    if not Path(_SSHD).exists():
        missing.append("sshd")
    if not (Path(sys.executable).parent / "ansible-runner").exists():
        missing.append("ansible-runner in this venv (pip install 'aiready-bench[fleet]')")
    return f"not installed: {', '.join(missing)}" if missing else None


@contextmanager
def standing(count: int) -> Iterator[Testbed]:
    """So many hosts, up until the end of the ``with``. Only who is not root skips: a tool that is absent is a fault."""
    reason = reason_for_none()
    if reason:
        (pytest.skip if os.geteuid() else pytest.fail)(reason)
    folder = Path(tempfile.mkdtemp(prefix="fl", dir="/tmp"))
    testbed = Testbed(folder, count)
    try:
        yield testbed.up()
    finally:
        testbed.down()
        shutil.rmtree(folder, ignore_errors=True)


def run(argv: Sequence[str], *, timeout: float = 60, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, text=True, capture_output=True, timeout=timeout, check=False, **kwargs)  # type: ignore[call-overload,no-any-return]


def must(argv: Sequence[str], stdin: str | None = None) -> str:
    done = subprocess.run(argv, text=True, capture_output=True, timeout=60, input=stdin, check=False)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout


@dataclass
class Testbed:
    """``count`` hosts named n001.. and a controller. ``folder`` must be short and private."""

    __test__ = False
    folder: Path
    count: int
    prefix: str = field(default_factory=lambda: f"f{os.getpid() % 100000:05d}")
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def up(self) -> Testbed:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._cgroups("ctl")
        self._keys()
        self._network()
        for i in self.numbers:
            self.start(i)
        self._inventory()
        for i in self.numbers:
            self.wait_ready(i)
        return self

    def down(self) -> None:
        for i in list(self.processes):
            self._kill(i)
        for space in (self._net("sw"), self._net("ctl"), *(self._net(self.name(i)) for i in self.numbers)):
            run(["ip", "netns", "del", space])
        for group in (group for i in self.numbers for group in self._cgroups(self.name(i))):
            _remove_group(group)
        for group in self._cgroups("ctl"):
            _remove_group(group)

    @property
    def numbers(self) -> range:
        return range(1, self.count + 1)

    @property
    def names(self) -> list[str]:
        return [self.name(i) for i in self.numbers]

    @staticmethod
    def name(i: int) -> str:
        return f"n{i:03d}"

    @staticmethod
    def address(i: int) -> str:
        return f"10.77.{i // 200}.{i % 200 + 10}"

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory.ini"

    # --- what goes wrong

    def link(self, i: int, up: bool) -> None:
        """The cable: packets vanish without a word when it is out."""
        must(["ip", "-n", self._net("sw"), "link", "set", f"p{i}", "up" if up else "down"])

    def power_off(self, i: int) -> None:
        """Silence first, so that the kernel says no goodbye, then nothing of it runs any more."""
        self.link(i, False)
        self._kill(i)

    def power_on(self, i: int) -> None:
        self.start(i)
        self.link(i, True)
        self.wait_ready(i)

    def freeze(self, i: int, stopped: bool = True) -> None:
        """Every process stopped: TCP is still accepted, nobody answers."""
        pids = run(["pgrep", "--ns", str(self.init(i)), "--nslist", "pid"]).stdout.split()
        for pid in map(int, pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if stopped else signal.SIGCONT)

    def shape(self, i: int, mbit: float) -> None:
        """The host's port, both ways: what it sends and what the switch sends to it."""
        rate = ["root", "tbf", "rate", f"{mbit}mbit", "burst", "64k", "latency", "100ms"]
        must(["ip", "netns", "exec", self._net(self.name(i)), "tc", "qdisc", "replace", "dev", "e0", *rate])
        must(["ip", "netns", "exec", self._net("sw"), "tc", "qdisc", "replace", "dev", f"p{i}", *rate])

    def limit(self, i: int, controller: str, file: str, value: str) -> None:
        (CGROUPS / controller / self._group(self.name(i)) / file).write_text(value)

    # --- running something

    def controller(self, argv: Sequence[str], timeout: float = 280, **env: str) -> subprocess.CompletedProcess[str]:
        """Run in the controller's network, and in its cgroup."""
        return run(self.controller_argv(argv), timeout=timeout, env=self.environment(**env), cwd=self.folder)

    def controller_argv(self, argv: Sequence[str]) -> list[str]:
        return self.entering("ctl", ["ip", "netns", "exec", self._net("ctl"), *argv])

    def entering(self, name: str, argv: Sequence[str]) -> list[str]:
        return ["sh", "-c", _ENTER, " ".join(str(group) for group in self._cgroups(name)), *argv]

    def environment(self, **env: str) -> dict[str, str]:
        """Of the controller. What it leaves when it is killed goes with the testbed's folder."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "BENCH_"))}
        own = {"BENCH_LOCK": str(self.folder / "ctl.lock"), "TMPDIR": str(self.folder)}
        return {**kept, **own, **env}

    def on(self, i: int, argv: Sequence[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return run(self.on_argv(i, argv), timeout=timeout)

    def on_argv(self, i: int, argv: Sequence[str]) -> list[str]:
        return ["nsenter", "-t", str(self.init(i)), "-n", "-u", "-m", "-p", "--", *argv]

    def cpu_seconds(self, whose: str) -> float:
        """CPU time of ``ctl`` or of a host since it is up."""
        return int((CGROUPS / "cpuacct" / self._group(whose) / "cpuacct.usage").read_text()) / 1e9

    # --- how it is made

    def _net(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def _group(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def _cgroups(self, name: str) -> list[Path]:
        found = [CGROUPS / controller / self._group(name) for controller in CONTROLLERS if self.has_cgroups]
        for group in found:
            with suppress(OSError):
                group.mkdir(exist_ok=True)
        return [group for group in found if group.is_dir()]

    @property
    def has_cgroups(self) -> bool:
        return all((CGROUPS / controller / "cgroup.procs").exists() for controller in CONTROLLERS)

    def _keys(self) -> None:
        for name in ("id", "hostkey"):
            if not (self.folder / name).exists():
                must(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)])
        public = (self.folder / "hostkey.pub").read_text().split()
        (self.folder / "known_hosts").write_text(f"10.77.* {public[0]} {public[1]}\n")
        (self.folder / "sshd_config").write_text(
            f"HostKey {self.folder}/hostkey\nAuthorizedKeysFile {self.folder}/id.pub\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nUseDNS no\n"
            "PermitRootLogin prohibit-password\nPrintMotd no\nMaxSessions 50\nMaxStartups 100:30:200\n"
        )

    def _network(self) -> None:
        switch, hosts = self._net("sw"), {i: self._net(self.name(i)) for i in self.numbers}
        _batch(None, [f"netns add {space}" for space in (switch, self._net("ctl"), *hosts.values())])
        _batch(switch, ["link add br0 type bridge", "link set br0 up", "link set lo up"])
        ports = {"pctl": (self._net("ctl"), "10.77.255.1")}
        ports |= {f"p{i}": (hosts[i], self.address(i)) for i in self.numbers}
        _batch(
            None,
            [f"link add e0 netns {ns} type veth peer name {port} netns {switch}" for port, (ns, _) in ports.items()],
        )
        _batch(switch, [line for port in ports for line in (f"link set {port} master br0", f"link set {port} up")])
        for space, address in ports.values():
            _batch(space, [f"addr add {address}/16 dev e0", "link set e0 up", "link set lo up"])

    def start(self, i: int) -> None:
        name = self.name(i)
        place = self.folder / name
        place.mkdir(exist_ok=True)
        (place / "machine-id").write_text(f"{i:032x}\n")
        (place / "boot-id").write_text(f"00000000-0000-4000-8000-{i:012x}\n")
        inner = ["bash", "-c", _START, "_", name, str(place), str(self.folder), self.address(i)]
        with (place / "sshd.log").open("ab") as log:
            self.processes[i] = subprocess.Popen(
                self.entering(name, ["ip", "netns", "exec", self._net(name), "unshare", "--uts", "--mount", "--pid",
                                      "--fork", "--mount-proc", "--kill-child", *inner]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def init(self, i: int) -> int:
        """The process that is number 1 on the host."""
        return int(run(["pgrep", "-P", str(self.processes[i].pid)]).stdout.split()[0])

    def wait_ready(self, i: int, seconds: float = 60) -> None:
        probe = f"exec 3<>/dev/tcp/{self.address(i)}/22"
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if run(["ip", "netns", "exec", self._net("ctl"), "bash", "-c", probe], timeout=10).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.name(i)} did not come up: {(self.folder / self.name(i) / 'sshd.log').read_text()}")

    def _kill(self, i: int) -> None:
        process = self.processes.pop(i)
        with suppress(IndexError, AssertionError):
            self.freeze_all_off(self.init_of(process))
        process.kill()
        process.wait(10)

    @staticmethod
    def init_of(process: subprocess.Popen[bytes]) -> int:
        return int(run(["pgrep", "-P", str(process.pid)]).stdout.split()[0])

    @staticmethod
    def freeze_all_off(init: int) -> None:
        """A stopped process 1 is killed all the same, but nothing below it may keep the namespace."""
        for pid in map(int, run(["pgrep", "--ns", str(init), "--nslist", "pid"]).stdout.split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _inventory(self) -> None:
        common = f"-o UserKnownHostsFile={self.folder}/known_hosts -o StrictHostKeyChecking=yes -o BatchMode=yes"
        lines = [f"{self.name(i)} ansible_host={self.address(i)}" for i in self.numbers]
        self.inventory.write_text(
            "[gpu]\n" + "\n".join(lines) + "\n[gpu:vars]\nansible_user=root\n"
            f"ansible_ssh_private_key_file={self.folder}/id\nansible_ssh_common_args={common}\n"
            f"bench_python={sys.executable}\n"
        )


def _batch(space: str | None, lines: Iterable[str]) -> None:
    must(["ip", *(["-n", space] if space else []), "-batch", "-"], stdin="\n".join(lines) + "\n")


def _remove_group(group: Path) -> None:
    for _ in range(50):
        with suppress(OSError):
            group.rmdir()
            return
        if not group.exists():
            return
        time.sleep(0.1)
