"""A fleet of four hosts for the tests of this folder; hosts that a test breaks, it mends or rebuilds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.testbed import Testbed, reason_for_none


@pytest.fixture(scope="module")
def hosts() -> Iterator[Testbed]:
    """Four hosts, up for a whole file of tests."""
    reason = reason_for_none()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="fl", dir="/tmp"))
    testbed = Testbed(folder, 4)
    try:
        yield testbed.up()
    finally:
        testbed.down()
        shutil.rmtree(folder, ignore_errors=True)
