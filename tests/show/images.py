"""The pictures in docs/images, made of committed runs. ``make images`` writes them anew.

The screen as rich exports it, of a real H200 and of a machine without a GPU; the page of the H200 as Chromium shows it.
Each in light and in dark.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import TerminalTheme

from bench.model import Run
from bench.show.html.page import Shown, render
from bench.show.matrix import Matrix
from bench.show.terminal.lineage import explain
from bench.show.terminal.screen import Screen
from tests.show.html.chromium import look
from tests.show.runs import CATALOG, no_gpu, recorded

FOLDER = Path(__file__).parents[2] / "docs" / "images"
COLUMNS = 100
#: Of the page its head, down to the end of a picture; a window of that size shows so many lines and is blank below.
_PAGE_SIZE, _PAGE_LINES = "1000,2300", 1935

#: Paper, ink, and the eight colours of a terminal from black to white, each 4.5 times as light or dark as the paper.
_THEMES = {
    "light": TerminalTheme(
        (255, 255, 255), (27, 31, 36),
        [(27, 31, 36), (179, 38, 30), (25, 113, 60), (138, 90, 0), (47, 111, 187), (138, 91, 181), (20, 110, 120),
         (92, 102, 114)],
    ),
    "dark": TerminalTheme(
        (20, 24, 29), (230, 233, 237),
        [(154, 165, 177), (242, 117, 107), (92, 199, 135), (227, 179, 65), (106, 165, 236), (181, 139, 224),
         (83, 194, 177), (230, 233, 237)],
    ),
}  # fmt: skip
#: As rich's own, without a font from the network: the widths of all words are given, so any monospace fits.
_SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, "DejaVu Sans Mono", monospace }}
.{unique_id}-title {{ font: bold 18px system-ui, sans-serif }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""


def screen(run: Run, theme: str) -> str:
    """The screen of a run as an SVG; a column wider, as rich cuts the last pixel of it off."""
    console = Console(
        record=True, width=COLUMNS + 1, file=io.StringIO(), force_terminal=True, color_system="standard",
        legacy_windows=False, _environ={},
    )  # fmt: skip
    console.print(Screen(Matrix(run, CATALOG.probes), COLUMNS).whole(), "")  # rich clips all lines but the last
    return console.export_svg(title="aiready-bench", theme=_THEMES[theme], code_format=_SVG, unique_id="screen")


def screens() -> Iterator[tuple[str, str]]:
    """File name -> SVG."""
    for name, run in {"h200": recorded("h200"), "no-gpu": no_gpu()}.items():
        for theme in _THEMES:
            yield f"screen-{name}-{theme}.svg", screen(run, theme)


def page() -> str:
    run = recorded("h200")
    descriptions = {profile.name: profile.description for profile in CATALOG.profiles}
    return render([Shown(run, explain(run), (), descriptions, CATALOG.probes)], "")


def write() -> None:
    for name, text in screens():
        (FOLDER / name).write_text(text, encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder) / "report.html"
        shown.write_text(page(), encoding="utf-8")
        for theme in _THEMES:
            picture = FOLDER / f"report-{theme}.png"
            look(shown, picture, _PAGE_SIZE, dark=theme == "dark")
            with Image.open(picture) as taken:
                top = taken.crop((0, 0, taken.width, _PAGE_LINES))
            top.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    write()
