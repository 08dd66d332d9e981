"""Three real runs of a small machine, trimmed (tests/data): a good one, a starved one, one that could not be decided.

Made by `bench run --effort quick`, the good one by a profile of a small node, the starved one with
`--accelerator emulated:unet3d-h100*8`. Host name, kernel, mounts and paths were rewritten, series and repeats cut.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.model import Run
from bench.show.export import FORMATS, render
from bench.show.html.page import Shown
from bench.show.html.page import render as render_page
from bench.show.terminal.lineage import explain
from bench.store.documents import load
from tests.show.export.test_export_formats import export
from tests.show.html.chromium import look

DATA = Path(__file__).parents[2] / "data"
RUNS = {"good": "GO", "starved": "NO-GO", "inconclusive": "INCONCLUSIVE"}
each_run = pytest.mark.parametrize("name", RUNS)


def run(name: str) -> Run:
    return load(DATA / f"run-{name}.json")


def page(name: str) -> str:
    found = run(name)
    return render_page([Shown(found, explain(found))], "1.0")


@pytest.mark.slow
@each_run
def test_the_page_of_a_real_run(name: str, tmp_path: Path) -> None:
    text = page(name)
    assert len(text.encode()) < 400_000
    path = tmp_path / "page.html"
    path.write_text(text)
    seen = look(path)
    assert (seen.console, seen.requests) == ([], [])
    heading = re.search(r'<h1><span class="([A-Z-]+)">', seen.dom)
    assert heading is not None
    assert heading[1] == RUNS[name]
    assert seen.dom.count("<figure>") >= 6


@pytest.mark.slow
def test_the_starved_page_says_what_starves() -> None:
    text = page("starved")
    assert "Storage starves the accelerator: it needs 25 GB/s" in text
    assert re.search(r"storage costs 9\d\.\d %", text)


@each_run
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_takes_a_real_run(name: str, form: str) -> None:
    assert render(form, export(run(name)))
