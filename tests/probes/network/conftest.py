"""A network of its own for each test, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.probes.network.testbed import Net, network, pair, unusable

_REASON: list[str | None] = []


def needed() -> None:
    """Leave the test out where no network can be made, and say why."""
    if not _REASON:
        _REASON.append(unusable())
    if _REASON[0]:
        pytest.skip(_REASON[0])


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Net]:
    """Hosts ``a`` 10.98.0.1 and ``b`` 10.98.0.2."""
    needed()
    with pair(tmp_path) as net:
        yield net


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Net]:
    """Hosts ``a`` and ``b`` without a cable."""
    needed()
    with network(tmp_path) as net:
        for name in ("a", "b"):
            net.host(name)
        yield net
