"""A million random datagrams, some almost right: the responder answers none of them and does not grow."""

from __future__ import annotations

from probes.peer.datagram import REQUEST, Packet, pack
from tests.accuracy._network import Claims, main
from tests.probes.network.test_peer import ask, garbage, lease, memory, peer

COUNT = 1_000_000


def demonstrate(claims: Claims) -> None:
    with peer() as (process, port):
        sock, _ = lease(port)
        garbage(20_000, port)
        before = memory(process.pid)
        came = garbage(COUNT, port, seed=3)
        grown = memory(process.pid) - before
        claims.check(came == 0, f"{COUNT} random datagrams were answered with {came} bytes")
        claims.check(grown < 1 << 20, f"the responder grew by {grown} bytes")
        sock.close()
        sock, answer = lease(port)  # the first one's time is over by now
        request = pack(Packet(REQUEST, answer.token or 0, 1, 1), 172)
        reply = next((got for _ in range(5) if (got := ask(port, request)) is not None), None)
        claims.check(reply is not None and len(reply) <= len(request), "and it still serves a session")
        sock.close()


if __name__ == "__main__":
    main(demonstrate)
