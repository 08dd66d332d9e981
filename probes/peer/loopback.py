"""A `bench peer` on this node's own loopback, for a run without a peer: a stand-in, and named so everywhere.

Prints one line, ``{"loopback": PORT}``, when it is ready.
"""

from __future__ import annotations

import json
import random
import sys

from bench.measure.tools import Signals
from probes.peer.server import Peer, Settings

ADDRESS = "127.0.0.1"
_ATTEMPTS = 50


def main() -> None:
    with Signals() as signals:
        for _ in range(_ATTEMPTS):
            port = random.randrange(20000, 32000)
            try:
                peer = Peer(Settings(ADDRESS, port, idle_seconds=20.0))
            except OSError:
                continue
            print(json.dumps({"loopback": port}), flush=True)
            peer.serve(signals)
            return
    sys.exit(f"no free port on {ADDRESS}")


if __name__ == "__main__":
    main()
