"""The golden screens. ``python -m tests.show.terminal.golden_screens`` writes them anew: read the difference, then
commit."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from bench.show.terminal.lineage import explain
from bench.show.terminal.screen import render
from tests.show.runs import CATALOG, SHOWN, no_gpu
from tests.show.terminal.sample import cpu_run, talking_run

FOLDER = Path(__file__).parent / "golden"
WIDTHS = (100, 80, 60, 40)


@cache
def screens() -> dict[str, str]:
    """File name -> what it must hold."""
    shown = {name: make() for name, make in SHOWN.items()}
    found = {
        f"{name}-{width}.txt": render(run, CATALOG.probes, width=width, colour=False, ascii_only=False)
        for name, run in shown.items()
        for width in (WIDTHS if name == "no-gpu" else (100,))
    }
    more = {
        "no-gpu-ascii.txt": render(no_gpu(), CATALOG.probes, width=100, colour=False, ascii_only=True),
        "no-gpu-colour.txt": render(no_gpu(), CATALOG.probes, width=100, colour=True, ascii_only=False),
        "no-gpu-all.txt": render(no_gpu(), CATALOG.probes, width=100, colour=False, ascii_only=False, all_gates=True),
        "made-by-hand-100.txt": render(cpu_run(), CATALOG.probes, width=100, colour=False, ascii_only=False),
        "talking-80.txt": render(talking_run(), CATALOG.probes, width=80, colour=False, ascii_only=False),
        "explain.txt": explain(cpu_run()),
    }
    return found | more


if __name__ == "__main__":
    for old in FOLDER.iterdir():
        old.unlink()
    for name, text in screens().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
