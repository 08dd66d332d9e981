"""The golden screens. ``python -m tests.show.terminal.golden_screens`` writes them anew: read the difference, then
commit."""

from __future__ import annotations

from pathlib import Path

from bench.show.terminal.lineage import explain
from bench.show.terminal.screen import render
from tests.show.terminal.sample import DESCRIPTIONS, cpu_run, talking_run

FOLDER = Path(__file__).parent / "golden"


def screens() -> dict[str, str]:
    """File name -> what it must hold."""
    run = cpu_run()
    return {
        "screen-80.txt": render(run, width=80, colour=False, descriptions=DESCRIPTIONS),
        "screen-120.txt": render(run, width=120, colour=False, descriptions=DESCRIPTIONS),
        "screen-120-all.txt": render(run, width=120, colour=False, all_gates=True),
        "screen-80-go.txt": render(talking_run(), width=80, colour=False, descriptions=DESCRIPTIONS),
        "explain.txt": explain(run),
    }


if __name__ == "__main__":
    for name, text in screens().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
