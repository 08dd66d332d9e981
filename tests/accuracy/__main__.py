"""``make accuracy``: every demonstration of this folder, or those named."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.scripts import run_all

sys.exit(run_all("tests.accuracy", Path(__file__).parent, sys.argv[1:]))
