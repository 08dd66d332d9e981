"""One peer while it is being measured: what answers there, and iperf3 against it, waited for while it is busy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bench.measure.jsonl import record, refusal
from bench.measure.probe import Context, Failed, TimedOut, Unsupported, python_argv
from bench.model import Code
from probes.common.iperf3 import Document, Iperf3Server, document
from probes.peer.protocol import Interface, PeerLine, address

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


@dataclass(slots=True)
class Link:
    """A peer that answered. ``labels`` go on every measurement; ``echo_port`` is None for a plain iperf3 server."""

    ctx: Context
    name: str
    labels: Mapping[str, str]
    iperf3: Iperf3Server
    interface: Interface
    leased: bool
    token: int | None = None
    echo_port: int | None = None
    runs: int = 0

    def iperf(self, name: str, argv: list[str], seconds: float) -> Document:
        """One iperf3 test that takes ``seconds``; a busy server is waited for as long as the probe has time.

        Raises Failed or TimedOut with one line that names the peer.
        """
        restarts = 0
        while True:
            try:
                return self._once(name, argv, seconds)
            except Failed as error:
                if error.code is Code.PEER_BUSY:
                    if self.ctx.remaining() < seconds + _BUSY_PAUSE + _RESERVE_SECONDS:
                        reason = f"{error.reason}, and still was when the time was up"
                        raise TimedOut.told(reason, "wait, or use another peer") from error
                    self.ctx.progress(f"{self.name} is busy with another test; waiting", None)
                    self.ctx.tools.sleep(_BUSY_PAUSE)
                elif error.code is Code.PEER_REFUSED and self.leased and restarts < _RESTARTS:
                    restarts += 1
                    self.ctx.tools.sleep(_RESTART_PAUSE)  # its server for the next test is just being started
                else:
                    raise

    def _once(self, name: str, argv: list[str], seconds: float) -> Document:
        try:
            done = self.ctx.tools.run(argv, name=name, timeout=seconds + _GRACE_SECONDS)
        except TimedOut as late:
            text = f"{self.name} stopped answering in the middle of an iperf3 test"
            raise TimedOut(Code.PEER_TIMED_OUT, text, _REMEDIES["peer_timed_out"]) from late
        return document(done.stdout, self.iperf3, done.stderr)


@contextmanager
def connected(ctx: Context, peer: str, labels: Mapping[str, str], seconds: float) -> Iterator[Link]:
    """The peer, with its servers held for as long as the ``with`` lasts. Raises Failed, TimedOut, Unsupported."""
    with lease(ctx, peer, "lease", seconds) as line:
        hello, (host, port) = line.hello, address(peer)
        if hello.iperf3_problem:
            raise Unsupported.told(f"{hello.iperf3_problem} ({peer})", "install iperf3 on the peer")
        leased, own = hello.kind == "bench-peer", ctx.option("max_rate") or 0.0
        if line.here and "stand_in" not in labels:
            ctx.warn(f"{peer} is this very machine: what was measured is its loopback, and no network")
        ceiling = min(hello.max_bits_per_second or own, own or hello.max_bits_per_second)  # 0 is none
        yield Link(
            ctx=ctx,
            name=peer,
            labels={"peer": peer, **labels},
            iperf3=Iperf3Server(host, (hello.iperf3_port or 0) if leased else port, ceiling),
            interface=line.local,
            leased=leased,
            token=hello.token,
            echo_port=hello.echo_port,
        )


@contextmanager
def lease(ctx: Context, peer: str, op: str, seconds: float, *more: str, name: str = "lease") -> Iterator[PeerLine]:
    """What the peer gives for ``op``, held for as long as the ``with`` lasts. Raises Failed or TimedOut."""
    argv = python_argv("probes.peer.client", op, *client_words(ctx, peer), "--seconds", f"{seconds:.0f}", *more)
    with ctx.tools.serve(argv, name=name, ready='{"hello"', timeout=20) as line:
        yield answered(line, peer)


def client_words(ctx: Context, peer: str) -> list[str]:
    """The options of `probes.peer.client` that say whom to ask, and with which key. Raises Failed."""
    try:
        host, port = address(peer)
    except ValueError as error:
        raise Failed(Code.PEER_UNKNOWN, str(error)) from error
    return ["--host", host, "--port", str(port), *key_words(ctx)]


def key_words(ctx: Context) -> list[str]:
    """How a child program is told of the peers' key."""
    return ["--key-file", ctx.option("key_file")] if ctx.option("key_file") else []


def answered(line: str, peer: str) -> PeerLine:
    """What the lease program said: a ``hello`` of a kind that can be used. Raises Failed or TimedOut."""
    if (answer := record(line, PeerLine)) is None:
        raise Failed(Code.PEER_FAILED, f"no answer about {peer} could be had ({line[:80]!r})")
    kind, text = answer.hello.kind, answer.hello.error
    if kind not in ("bench-peer", "iperf3"):
        said = text if address(peer)[0] in text else f"{peer}: {text}"
        raise refusal(kind, said, {"peer_timed_out": TimedOut}, _REMEDIES)
    return answer
