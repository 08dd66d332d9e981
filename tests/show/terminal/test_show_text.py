"""Foreign text can neither rewrite the screen nor stop the program."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.show.text import cells, clean, fold, pad

ANY = st.text(st.characters(codec=None), max_size=60) | st.text("\x1b[]0;m\x9b\x9d\x07\\ ab\n\u202e\ud800", max_size=30)


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("plain text, ünïcødé 漢字 µs", "plain text, ünïcødé 漢字 µs"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[HGO", "GO"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x9b31mb\x9d0;t\x9cc", "abc"),
        ("a\x1bPq\x1b\\b\x1b(0c\x1b", "abc"),
        ("line\r\nnext\ttab\x0b\x85end\u2028x", "line next tab end x"),
        ("nul\0bell\x07del\x7f\x80", "nulbelldel"),
        ("evil\u202egnp.exe\u2066x\u2069", "evilgnp.exex"),
        ("zero\u200b\u200d\u2060\ufeff\u00adwidth\u3164\ufe0f", "zerowidth"),
        ("tag\U000e0041s private\ue000", "tags private"),
        ("sur\ud800ro\udfffgate", "surrogate"),
        ("  spaced \u00a0 out ", "spaced out"),
        ("[bold]markup[/oops]", "[bold]markup[/oops]"),
        ("", ""),
    ],
)
def test_what_is_not_plain_text_is_removed(dirty: str, expected: str) -> None:
    assert clean(dirty) == expected


@settings(max_examples=300, deadline=None)
@given(text=ANY)
def test_clean_text_is_one_printable_line_that_any_utf8_stream_takes(text: str) -> None:
    cleaned = clean(text)
    assert cleaned == "" or cleaned.isprintable()
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for c in cleaned)
    assert clean(cleaned) == cleaned
    cleaned.encode("utf-8")


@settings(deadline=None)
@given(text=ANY, longest=st.integers(3, 20))
def test_a_cut_text_is_no_longer_than_asked(text: str, longest: int) -> None:
    assert len(clean(text, longest)) <= longest


@settings(max_examples=300, deadline=None)
@given(text=st.text("ab 漢é9%x", max_size=80), width=st.integers(4, 40))
def test_folding_keeps_every_word_and_the_width(text: str, width: int) -> None:
    lines = fold(text, width)
    assert all(cells(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_number_stays_with_its_unit() -> None:
    assert fold("it takes 50 ms now", 11) == ["it takes", "50 ms now"]


def test_wide_characters_take_two_columns_and_marks_none() -> None:
    assert (cells("漢字"), cells("e\u0301"), cells("abc")) == (4, 1, 3)
    assert pad("漢", 4) == "漢  "
