"""One peer while it is being measured: what answers there, and iperf3 against it, waited for while it is busy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.measure.jsonl import decoded, refusal
from bench.measure.probe import Context, Failed, Option, ProbeError, TimedOut, python_argv
from bench.model import Code, Measurement
from probes.common.iperf3 import Busy, Refused, Server, bits, document
from probes.peer.protocol import address, read_key

_BUSY_PAUSE, _RESTART_PAUSE, _RESTARTS = 1.0, 0.15, 40
_RESERVE_SECONDS = 5.0
#: A full queue and the exchange of results after the test; more is a peer that hangs.
_GRACE_SECONDS = 6.0
_REMEDIES = {
    "peer_refused": "start `bench peer --bind ADDRESS` (or `iperf3 -s`) there, and open its port in the firewall",
    "peer_timed_out": "check the address, the route and the firewall between the two nodes",
    "peer_unreachable": "check the address and the route",
    "peer_unknown": "check the name, or give the address",
    "peer_garbage": "check the port: `bench peer` or `iperf3 -s` must listen there",
    "key_needed": "give the peer's key with --key-file",
    "key_refused": "give the same --key-file on both nodes",
    "not_allowed": "start the peer with --allow for this node's network",
}


def bit_rate(text: str) -> float:
    """``500M`` or ``1.5G`` as bits per second. Raises ValueError."""
    try:
        return bits(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a rate above 0; give 500M or 1G say") from error


KEY_FILE = Option(
    "key_file", "file with the key that the peer shares with us", check=read_key, affects_comparability=False
)
MAX_RATE = Option("max_rate", "ceiling in bit/s for bandwidth tests, 500M say", type=bit_rate)


@dataclass(slots=True)
class Link:
    """A peer that answered. ``labels`` go on every measurement; ``echo_port`` is None for a plain iperf3 server."""

    ctx: Context
    name: str
    labels: Mapping[str, str]
    iperf3: Server
    control_port: int
    leased: bool
    token: int | None = None
    echo_port: int | None = None
    interface: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    key_file: str | None = None
    runs: int = 0

    def iperf(self, name: str, arguments: Callable[[Server], list[str]], seconds: float) -> dict[str, Any]:
        """One iperf3 test that takes ``seconds``; a busy server is waited for as long as the probe has time.

        Raises Failed or TimedOut with one line that names the peer.
        """
        restarts = 0
        while True:
            try:
                return self._once(name, arguments(self.iperf3), seconds)
            except Busy as busy:
                if self.ctx.remaining() < seconds + _BUSY_PAUSE + _RESERVE_SECONDS:
                    reason = f"{busy.reason}, and still was when the time was up"
                    raise TimedOut.told(reason, "wait, or use another peer") from busy
                self.ctx.progress(f"{self.name} is busy with another test; waiting", None)
                self.ctx.tools.sleep(_BUSY_PAUSE)
            except Refused:
                restarts += 1
                if not self.leased or restarts > _RESTARTS:
                    raise
                self.ctx.tools.sleep(_RESTART_PAUSE)  # its server for the next test is just being started

    def _once(self, name: str, argv: list[str], seconds: float) -> dict[str, Any]:
        self.ctx.tools.require("iperf3")
        try:
            done = self.ctx.tools.run(argv, name=name, timeout=seconds + _GRACE_SECONDS)
        except TimedOut as late:
            text = f"{self.name} stopped answering in the middle of an iperf3 test"
            raise TimedOut(Code.PEER_TIMED_OUT, text, _REMEDIES["peer_timed_out"]) from late
        return document(done.stdout, self.iperf3, done.stderr)


def each_peer(ctx: Context, measure: Callable[[str], list[Measurement]]) -> list[Measurement]:
    """Every peer in turn; one that fails is a warning as long as another one answered, else the first one's error."""
    found: list[Measurement] = []
    failures: list[ProbeError] = []
    for peer in ctx.request.peers:
        try:
            found += measure(peer)
        except ProbeError as error:
            failures.append(error)
            ctx.warn(error.reason)
    if failures and not found:
        raise failures[0]
    return found


@contextmanager
def connected(ctx: Context, peer: str, labels: Mapping[str, str], seconds: float) -> Iterator[Link]:
    """The peer, with its servers held for as long as the ``with`` lasts. Raises Failed or TimedOut."""
    try:
        host, port = address(peer)
    except ValueError as error:
        raise Failed(Code.PEER_UNKNOWN, str(error)) from error
    with _lease(ctx, host, port, seconds) as line:
        answer = answered(line, peer)
        yield _link(ctx, peer, labels, answer, port, host)


@contextmanager
def _lease(ctx: Context, host: str, port: int, seconds: float) -> Iterator[str]:
    words = ["--host", host, "--port", str(port), "--seconds", f"{seconds:.0f}"]
    if ctx.option("key_file"):
        words += ["--key-file", ctx.option("key_file")]
    argv = python_argv("probes.peer.client", *words)
    with ctx.tools.serve(argv, name="lease", ready='{"hello"', timeout=20) as line:
        yield line


def answered(line: str, peer: str) -> dict[str, Any]:
    """What the lease program said: ``hello`` of a ``kind`` that can be used. Raises Failed or TimedOut."""
    answer = decoded(line) or {}
    hello = answer.get("hello")
    if not isinstance(hello, dict) or "kind" not in hello:
        raise Failed(Code.PEER_FAILED, f"no answer about {peer} could be had ({line[:80]!r})")
    kind = str(hello["kind"])
    if kind not in ("bench-peer", "iperf3"):
        text, host = str(hello.get("error")), address(peer)[0]
        raise refusal(kind, text if host in text else f"{peer}: {text}", {"peer_timed_out": TimedOut}, _REMEDIES)
    return answer


def _link(ctx: Context, peer: str, labels: Mapping[str, str], answer: Mapping[str, Any], port: int, host: str) -> Link:
    hello = answer["hello"]
    leased = hello["kind"] == "bench-peer"
    ceiling = _lowest(float(hello.get("max_bits_per_second") or 0.0), ctx.option("max_rate") or 0.0)
    iperf3_port = hello.get("iperf3_port") if leased else port
    return Link(
        ctx=ctx,
        name=peer,
        labels={"peer": peer, **labels},
        iperf3=Server(host, int(iperf3_port or 0), ceiling),
        control_port=port,
        leased=leased,
        token=hello.get("token"),
        echo_port=hello.get("echo_port"),
        interface=answer.get("local") or {},
        problem=hello.get("iperf3_problem"),
        key_file=ctx.option("key_file"),
    )


def _lowest(first: float, second: float) -> float:
    """The lower of two ceilings; 0 is none."""
    return min(first or second, second or first)
