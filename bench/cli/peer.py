"""``bench peer``: the far end of the network probes, on another node."""

from __future__ import annotations

import signal
from typing import Annotated

from typer import Option

from bench.cli.options import Word, Words
from bench.cli.output import emit
from bench.errors import UserError


def peer(
    bind: Annotated[str, Option(help="Address of this node to listen on; required, nothing is assumed.")] = "",
    port: Annotated[int, Option(min=1, max=65000, help="TCP control and UDP echo; iperf3 takes the 16 above.")] = 5201,
    allow: Annotated[Words, Option(help="Only clients in this CIDR network; again for more.")] = None,
    key_file: Annotated[Word, Option(help="Shared key, in a file; clients need the same.")] = None,
    max_rate: Annotated[Word, Option(help="Ceiling in bit/s for bandwidth tests: 500M, 1G.")] = None,
    idle_timeout: Annotated[float, Option(min=0, help="End after so many seconds without a client.")] = 0.0,
) -> int:
    """Be the far end of the network probes, until SIGTERM or the idle time. Needs no root.

    Prints one line on standard output when it is ready.

    Exit status: 0, 2 it cannot listen, 130 by Control-C.

    Example:  bench peer --bind 10.0.0.2 --allow 10.0.0.0/24
    """
    from bench.measure.probe import ProbeError
    from bench.measure.tools import Signals
    from probes.peer.options import bits
    from probes.peer.protocol import read_key
    from probes.peer.server import Peer, Settings, networks

    if not bind:
        raise UserError("peer: --bind ADDRESS is required: name the address of this node that the others reach")
    try:
        settings = Settings(
            address=bind.strip("[]"),
            port=port,
            allow=networks(allow or []),
            key=read_key(key_file),
            max_bits_per_second=bits(max_rate) if max_rate else 0.0,
            idle_seconds=idle_timeout,
        )
    except ValueError as error:
        raise UserError(f"peer: {error}") from error
    with Signals() as signals:
        try:
            server = Peer(settings)
        except OSError as error:
            raise UserError(f"peer: cannot listen on {bind} port {port}: {error.strerror or error}") from error
        emit(f"bench peer: ready on {bind} port {port}")
        try:
            ended_by = server.serve(signals)
        except ProbeError as error:
            raise UserError(f"peer: {error.reason}") from error
    return 0 if ended_by in (None, signal.SIGTERM) else 128 + ended_by
