"""A store of nights, with a pin and a reset, is compared with to the letter as when it was stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden import recorded


@pytest.mark.parametrize("file", recorded.commands("nights"))
def test_recorded_nights_are_compared_with_as_before(file: str, where: Path) -> None:
    recorded.check("nights", file, where)
