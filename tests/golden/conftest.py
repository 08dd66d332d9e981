"""The recorded runs, nights and fleets, laid out once for the tests that read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden import recorded


@pytest.fixture(scope="session")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that was recorded: ``results``, ``nights`` and ``fleets``."""
    folder = tmp_path_factory.mktemp("recorded")
    recorded.lay_out(folder)
    return folder
