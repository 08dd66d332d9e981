"""What the network demonstrations share: their lines, and their networks."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.probes.network.testbed import Net, network, unusable


class Claims:
    """One line a claim; the status is the number of those that do not hold."""

    def __init__(self) -> None:
        self.failed = 0

    def check(self, holds: bool, text: str) -> None:
        print(f"{'holds ' if holds else 'FAILED'}  {text}", flush=True)
        self.failed += not holds


def main(demonstrate: Callable[[Claims], None]) -> None:
    reason = unusable()
    if reason:
        print(f"not shown here: {reason}")
        sys.exit(0)
    claims = Claims()
    demonstrate(claims)
    sys.exit(1 if claims.failed else 0)


@contextmanager
def hosts(*names: str) -> Iterator[Net]:
    with tempfile.TemporaryDirectory(prefix="bench-accuracy-") as folder, network(Path(folder)) as net:
        for name in names:
            net.host(name)
        yield net


@contextmanager
def shaped(bits: float, latency: float) -> Iterator[Net]:
    """Hosts ``a`` and ``b`` on a cable that is shaped both ways."""
    with hosts("a", "b") as net:
        net.link("a", "b")
        for host in ("a", "b"):
            net.shape(host, bits, latency, burst=round(max(16_000, bits / 8 * 0.002)))
        net.peer("b", "10.98.0.2")
        yield net


def drive(net: Net, what: str, peer: str, *words: str) -> dict[str, Any]:
    folder = net.folder / f"raw-{what}"
    done = net.run(net.python("a", "tests.probes.network.driver", what, peer, str(folder), *words), 900)
    if not done.stdout.strip():
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(done.stdout))


def pick(answer: dict[str, Any], metric: str, **labels: str) -> list[dict[str, Any]]:
    return [m for m in answer["measurements"] if m["metric"] == metric and labels.items() <= m["labels"].items()]
