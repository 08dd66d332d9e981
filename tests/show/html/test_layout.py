"""Every word of a page can be read: in Chromium, on a phone, a laptop and a large screen, in light and in dark."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.model import Run
from bench.show.html.page import Shown, render, render_fleet
from bench.show.terminal.lineage import explain
from bench.store.documents import load
from tests.show import images
from tests.show.html.layout import faults
from tests.show.html.sample_fleet import fleet
from tests.show.html.test_report_page import full, history
from tests.show.runs import CATALOG, ROOT, SHOWN, recorded

pytestmark = pytest.mark.slow


def six_profiles() -> Run:
    run = recorded("h200")
    return run.model_copy(update={"verdicts": run.verdicts * 2})


def shown(run: Run) -> str:
    return render([Shown(run, explain(run), history() * 3, {}, CATALOG.probes)], "1.0")


PAGES: dict[str, Callable[[], str]] = {
    **{name: (lambda make=make: shown(make())) for name, make in SHOWN.items()},  # type: ignore[misc]
    "H200": lambda: shown(recorded("h200")),
    "starved": lambda: shown(load(ROOT / "tests" / "data" / "run-starved.json")),
    "six profiles": lambda: shown(six_profiles()),
    "every picture": lambda: shown(full()),
    "two runs": lambda: render([Shown(recorded("h200")), Shown(full())], "1.0"),
    "a fleet": lambda: render_fleet(fleet(6)),
    "a large fleet": lambda: render_fleet(fleet(40)),
}
each_page = pytest.mark.parametrize("make", PAGES.values(), ids=PAGES)


@each_page
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_word_can_be_read(make: Callable[[], str], dark: bool, tmp_path: Path) -> None:
    assert faults(make(), tmp_path, dark=dark) == []


@pytest.mark.parametrize("name", ["H200", "every picture", "two-of-each", "six profiles", "two runs", "a large fleet"])
def test_on_paper_every_word_can_be_read(name: str, tmp_path: Path) -> None:
    """A page of A4 and one of US Letter between the browser's margins, where no column may be left to scroll to."""
    page = PAGES[name]().replace("@media print", "@media all").replace('class="scroll"', "")
    assert "@media all" in page
    assert faults(page.partition("<h2>Details")[0], tmp_path, (716, 740)) == []


def test_a_small_fleet_fits_a_phone_without_scrolling(tmp_path: Path) -> None:
    """Its verdicts and its pairs; what is folded away may scroll."""
    page = render_fleet(fleet(4)).partition("<h2>Details")[0].replace('class="scroll"', "")
    assert faults(page, tmp_path, (400,)) == []


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


@pytest.mark.parametrize(("name", "picture"), list(images.screens()), ids=lambda one: one[:24])
def test_every_word_of_a_picture_of_the_screen_can_be_read(name: str, picture: str, tmp_path: Path) -> None:
    assert faults(f"<!doctype html><body style='margin:0'>{picture}", tmp_path) == []
    assert (images.FOLDER / name).read_text(encoding="utf-8") == picture, "make images"


def test_a_picture_with_a_word_too_many_would_be_seen(tmp_path: Path) -> None:
    name, picture = next(images.screens())
    word = re.search(r"<text [^>]*>[^<]*standard[^<]*</text>", picture)
    assert word is not None, name
    found = faults(f"<body>{picture.replace(word[0], word[0] + word[0])}", tmp_path)
    assert {line.split(": ")[1] for line in found} == {"overlap"}


def test_the_pictures_of_the_page_are_there_and_small() -> None:
    for theme in ("light", "dark"):
        assert 20_000 < (images.FOLDER / f"report-{theme}.png").stat().st_size <= 300_000


def test_dark_is_looked_at_in_the_dark(tmp_path: Path) -> None:
    planted = (
        "<style>@media (prefers-color-scheme: dark) { .late { color: #222 } }</style><p class=late>in the dark</p>"
    )
    page = shown(full()).replace("</body>", f"{planted}</body>")
    assert faults(page, tmp_path) == []
    assert all("faint" in line for line in faults(page, tmp_path, dark=True))
