"""Small networks of namespaces for tests: hosts, links, queues, a relay that is told what to do to each packet.

Everything is made by and for one test and gone after it. Needs root, `ip` and `tc` (iproute2).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
_number = 0


def unusable() -> str | None:
    """Why no network can be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "tc", "iperf3") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    made = subprocess.run(["ip", "netns", "add", name_of("try")], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name_of("try")], check=False)
    return None


def name_of(host: str) -> str:
    return f"bt{os.getpid()}-{host}"


def sh(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


@dataclass
class Net:
    """Hosts by name; what runs in them is ended with the network."""

    stack: ExitStack
    folder: Path
    hosts: list[str] = field(default_factory=list)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def host(self, name: str) -> None:
        sh("ip", "netns", "add", name_of(name))
        self.hosts.append(name)
        self.stack.callback(subprocess.run, ["ip", "netns", "del", name_of(name)], check=False, capture_output=True)
        sh("ip", "-n", name_of(name), "link", "set", "lo", "up")

    def link(self, first: str, second: str, subnet: str = "10.98.0", mtu: int = 1500) -> None:
        """A cable: ``first`` gets .1, ``second`` .2; its ends are called e0."""
        ends = ("netns", name_of(first), "type", "veth", "peer", "name", "e0", "netns", name_of(second))
        sh("ip", "link", "add", "e0", *ends)
        for host, last in ((first, 1), (second, 2)):
            self.address(host, "e0", f"{subnet}.{last}/24", mtu)

    def switch(self, hosts: Sequence[str], subnet: str = "10.96.0") -> None:
        """A bridge; each host gets .1, .2, ... on its e0, and the bridge's port to it is called p-HOST."""
        self.host("switch")
        sh("ip", "-n", name_of("switch"), "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", name_of("switch"), "link", "set", "br0", "up")
        for number, host in enumerate(hosts, 1):
            ends = ("netns", name_of(host), "type", "veth", "peer", "name", f"p-{host}", "netns", name_of("switch"))
            sh("ip", "link", "add", "e0", *ends)
            sh("ip", "-n", name_of("switch"), "link", "set", f"p-{host}", "master", "br0", "up")
            self.address(host, "e0", f"{subnet}.{number}/24")

    def address(self, host: str, device: str, address: str, mtu: int = 1500) -> None:
        sh("ip", "-n", name_of(host), "addr", "add", address, "dev", device)
        sh("ip", "-n", name_of(host), "link", "set", device, "mtu", str(mtu), "up")

    def shape(self, host: str, bits: float, latency: float, device: str = "e0", burst: int = 16_000) -> None:
        """A token bucket at the host's way out: bits per second, and seconds that a packet may wait at most."""
        sh("tc", "-n", name_of(host), "qdisc", "replace", "dev", device, "root", "tbf", "rate", f"{bits:.0f}bit",
           "burst", str(burst), "latency", f"{latency * 1e3:g}ms")  # fmt: skip

    def command(self, host: str, *words: str) -> list[str]:
        return ["ip", "netns", "exec", name_of(host), *words]

    def python(self, host: str, module: str, *words: str) -> list[str]:
        return self.command(host, sys.executable, "-m", module, *words)

    def environment(self) -> dict[str, str]:
        """The hosts stand for nodes of their own, so a run of this machine's must not hold theirs up."""
        return {**environment(), "BENCH_LOCK": str(self.folder / "lock")}

    def start(self, argv: Sequence[str], ready: str = "") -> subprocess.Popen[str]:
        """A program that is killed when the network goes; waits for a line of its output that contains ``ready``."""
        process = subprocess.Popen(
            list(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=self.environment()
        )
        self.started.append(process)
        self.stack.callback(_end, process)
        assert process.stdout is not None
        if ready:
            line = process.stdout.readline()
            if ready not in line:
                process.kill()
                raise RuntimeError(f"{argv}: {line!r} {process.stderr.read() if process.stderr else ''}")
        return process

    def iperf3_server(self, host: str) -> subprocess.Popen[str]:
        """A plain one, that listens."""
        return self.start(self.command(host, "iperf3", "-s", "--forceflush"), "---")

    def wait_until_sent(self, host: str, bytes_: int, seconds: float = 90.0) -> None:
        """Until the host has sent so much over its devices: what is measured there is under way."""
        end = time.monotonic() + seconds
        while self.sent(host) < bytes_:
            assert time.monotonic() < end, f"{host} has sent {self.sent(host)} bytes"
            time.sleep(0.02)

    def sent(self, host: str) -> int:
        shown = subprocess.run(["ip", "-n", name_of(host), "-s", "-j", "link"], capture_output=True, check=True)
        return sum(one["stats64"]["tx"]["bytes"] for one in json.loads(shown.stdout) if one["ifname"] != "lo")

    def run(self, argv: Sequence[str], timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(argv), capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=self.environment(), check=False
        )

    def peer(self, host: str, address: str, *words: str) -> subprocess.Popen[str]:
        return self.start(self.python(host, "bench", "peer", "--bind", address, *words), "ready")

    def relay(self, first: str, second: str, settings: Mapping[str, Any], name: str = "relay") -> Relay:
        """Two hosts joined by a relay in place of a cable; 10.97.0.1 and 10.97.0.2."""
        log = self.folder / f"{name}.log"
        process = self.start(
            [sys.executable, "-m", "tests.probes.network.relay", name_of(first), "10.97.0.1", name_of(second),
            "10.97.0.2",
             str(log), json.dumps(dict(settings))],
            "ready",
        )  # fmt: skip
        return Relay(process, log)


@dataclass
class Relay:
    process: subprocess.Popen[str]
    log: Path

    def end(self) -> list[dict[str, Any]]:
        """Stop it; what it did to each echo packet."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


@contextmanager
def network(folder: Path) -> Iterator[Net]:
    with ExitStack() as stack:
        yield Net(stack, folder)


@contextmanager
def pair(folder: Path) -> Iterator[Net]:
    """Hosts ``a`` (10.98.0.1) and ``b`` (10.98.0.2) on one cable."""
    with network(folder) as net:
        for name in ("a", "b"):
            net.host(name)
        net.link("a", "b")
        yield net


def bench_run(net: Net, host: str, *words: str, timeout: float = 200.0, module: str = "bench") -> dict[str, Any]:
    """The run document of ``bench run --probe network --json`` on that host."""
    folder = net.folder / f"results-{host}-{time.monotonic_ns()}"
    folder.mkdir()
    argv = net.python(host, module, "run", "--probe", "network", "--json", "--results", str(folder), *words)
    done = net.run(argv, timeout)
    assert done.stdout.strip(), f"no run document (status {done.returncode}): {done.stderr[-2000:]}"
    document: dict[str, Any] = json.loads(done.stdout)
    document["status"] = done.returncode
    document["stderr"] = done.stderr
    return document


def measured(document: Mapping[str, Any], metric: str, **labels: str) -> list[dict[str, Any]]:
    return [
        m
        for result in document["results"]
        for m in result["measurements"]
        if m["metric"] == metric and labels.items() <= m["labels"].items()
    ]


def hog(cores: int) -> list[subprocess.Popen[bytes]]:
    """A busy loop for each core. The caller ends them."""
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
