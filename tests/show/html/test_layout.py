"""Every word of a page can be read: in Chromium, on a phone, a laptop and a large screen, in light and in dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.model import Outcome, ProbeResult, Run
from bench.show.html.page import Shown, render, render_fleet
from bench.show.terminal.lineage import explain
from bench.store.runs import load
from bench.workflows.catalog import load_catalog
from tests.show.html.layout import faults
from tests.show.html.sample_fleet import fleet
from tests.show.html.test_report_page import full, history

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
H200 = ROOT / "results" / "reference" / "h200-2026-11-26" / "run-standard.json"


def interrupted() -> Run:
    """A run of a node without a GPU that somebody ended while the network was measured."""
    run = load(ROOT / "tests" / "recorded" / "runs" / "feed.json")
    reason = "interrupted: SIGINT"
    late = [ProbeResult(probe=r.probe, outcome=Outcome.FAILED, reason=reason) for r in run.results[2:]]
    return run.model_copy(update={"results": (*run.results[:2], *late), "interrupted_by": 2, "attribution": None})


def six_profiles() -> Run:
    run = load(H200)
    return run.model_copy(update={"verdicts": run.verdicts * 2})


def shown(run: Run) -> str:
    return render([Shown(run, explain(run), history() * 3, {}, load_catalog(()).probes)], "1.0")


PAGES: dict[str, Callable[[], str]] = {
    "no GPU": lambda: shown(load(ROOT / "tests" / "recorded" / "runs" / "feed.json")),
    "starved": lambda: shown(load(ROOT / "tests" / "data" / "run-starved.json")),
    "H200": lambda: shown(load(H200)),
    "two broken cards": lambda: shown(load(ROOT / "tests" / "recorded" / "runs" / "gpu.json")),
    "interrupted": lambda: shown(interrupted()),
    "six profiles": lambda: shown(six_profiles()),
    "every picture": lambda: shown(full()),
    "two runs": lambda: render([Shown(load(H200)), Shown(full())], "1.0"),
    "a fleet": lambda: render_fleet(fleet(6)),
    "a large fleet": lambda: render_fleet(fleet(40)),
}
each_page = pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)


@each_page
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_word_can_be_read(make: Callable[[], str], dark: bool, tmp_path: Path) -> None:
    assert faults(make(), tmp_path, dark=dark) == []


@pytest.mark.parametrize(
    ("fault", "planted"),
    [
        ("overlap", '<div style="position:absolute;top:35px;left:20px">over the heading</div>'),
        ("wider than the page", f'<pre style="white-space:pre">{"x" * 300}</pre>'),
        ("clipped", '<div style="width:50px;overflow:hidden;white-space:nowrap">much too long for it</div>'),
        ("faint", '<p style="color:#999;background:#fff">faint</p>'),
        ("a mark outside of its plot", '<svg class="plot" width="200"><rect x="90%" width="50%" height="5"/></svg>'),
    ],
)  # fmt: skip
def test_this_test_would_see_it(fault: str, planted: str, tmp_path: Path) -> None:
    found = faults(shown(full()).replace("</body>", f"{planted}</body>"), tmp_path)
    assert {line.split(": ")[1] for line in found} >= {fault}


def test_dark_is_looked_at_in_the_dark(tmp_path: Path) -> None:
    planted = (
        "<style>@media (prefers-color-scheme: dark) { .late { color: #222 } }</style><p class=late>in the dark</p>"
    )
    page = shown(full()).replace("</body>", f"{planted}</body>")
    assert faults(page, tmp_path) == []
    assert all("faint" in line for line in faults(page, tmp_path, dark=True))
