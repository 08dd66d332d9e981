"""A fleet of four hosts for the tests of this folder; hosts that a test breaks, it mends or rebuilds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fleet.testbed import Testbed, standing


@pytest.fixture(scope="module")
def hosts() -> Iterator[Testbed]:
    """Four hosts, up for a whole file of tests."""
    with standing(4) as testbed:
        yield testbed
