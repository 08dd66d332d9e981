"""The folder of a fleet is joined and exported to the letter as when it was measured.

Left out is only what a join adds: the moment, which is now, and the version that joins.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden import recorded


@pytest.mark.parametrize("file", recorded.commands("fleets"))
def test_a_recorded_fleet_is_joined_as_before(file: str, where: Path) -> None:
    recorded.check("fleets", file, where)
