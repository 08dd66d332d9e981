"""The page in Chromium: no console error, no request, every picture laid out, a planted script shown as text."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.model import Run
from bench.show.html.page import PICTURES
from bench.show.text import clean
from tests.show.export.sample import HOSTILE, good, hostile, inconclusive, starved
from tests.show.html.chromium import look
from tests.show.html.test_report_page import full, history, page

pytestmark = pytest.mark.slow


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("make", [good, starved, inconclusive], ids=["good", "starved", "inconclusive"])
def test_the_page_is_quiet_and_whole(make: Callable[[], Run], tmp_path: Path) -> None:
    seen = look(written(tmp_path, page(full(make), history=history())))
    assert (seen.console, seen.requests) == ([], [])
    undrawn = 0 if make is starved else 1  # only the first has a profile with a 200 ms budget
    assert seen.dom.count("<figure>") == len(PICTURES) - undrawn
    assert "<script" not in seen.dom


def test_a_planted_script_is_shown_as_text(tmp_path: Path) -> None:
    seen = look(written(tmp_path, page(full(hostile), history=history())))
    assert (seen.console, seen.requests) == ([], [])
    assert "<script" not in seen.dom
    heading = re.search(r"<h1>.*?</h1>", seen.dom, re.S)
    assert heading is not None
    assert clean(HOSTILE, 100) in html.unescape(heading[0])


def test_this_test_would_see_a_request_and_an_error(tmp_path: Path) -> None:
    """Without the policy, the same browser does load and does complain."""
    bad = '<img src="http://127.0.0.1:8099/x.png"><script>throw new Error("planted")</script>'
    seen = look(written(tmp_path, bad))
    assert any("127.0.0.1:8099/x.png" in line for line in seen.requests)
    assert any("planted" in line for line in seen.console)


def test_the_policy_stops_what_the_template_would_let_through(tmp_path: Path) -> None:
    bad = '<img src="http://127.0.0.1:8099/x.png"><script>document.title = "owned"</script></body>'
    seen = look(written(tmp_path, page(good()).replace("</body>", bad)))
    assert seen.requests == []
    assert "owned</title>" not in seen.dom
