"""A writer to be killed: saves and completes runs for ever, and prints each id when the store said that it is stored.

``python -m tests.store.writer ROOT PREFIX [COUNT]``
"""

from __future__ import annotations

import itertools
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.model import Node
from bench.store.runs import Store
from tests.store.sample import judged, measured


def main(root: Path, prefix: str, count: int | None) -> None:
    store = Store(root)
    facts = {"ballast": ["x" * 100] * 800}  # 80 kB, as a real run
    for number in itertools.count() if count is None else range(count):
        run = measured(
            id=f"{prefix}-{number}",
            started_at=datetime.now(UTC).isoformat(),
            node=Node(hostname="node-17", fingerprint="f", facts=facts),
        )
        store.save(run)
        print(run.id, flush=True)
        if number % 2:
            store.complete(judged(run))
            print(f"judged {run.id}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)
