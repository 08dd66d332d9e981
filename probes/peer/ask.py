"""Ask a `bench peer` for its kernel's UDP counters; prints a JSON object, ``{"udp": {...}}`` or ``{"error": ...}``."""

from __future__ import annotations

import argparse
import json

from probes.peer.client import NoPeer, connect, greet
from probes.peer.protocol import UnusableKey, read_key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key-file")
    asked = parser.parse_args()
    try:
        with connect(asked.host, asked.port) as sock:
            answer = greet(sock, {"op": "counters"}, read_key(asked.key_file))
        print(json.dumps({"udp": answer.get("udp") or {}}))
    except (NoPeer, UnusableKey, OSError) as error:
        print(json.dumps({"error": str(error)[:300]}))


if __name__ == "__main__":
    main()
