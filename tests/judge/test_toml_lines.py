"""The line of a key, in every way that TOML lets one write it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.judge.toml_lines import Path, TomlError, line_of, lines_of, parse
from tests.judge.make import bounded

HARD = '''\
# [[gate]] in a comment
name = "x # no comment"          # = 1
description = """
[[gate]]
max = 1 \\""" still
""""
[[gate]]
metric = 'lit = "eral'
labels = { a = "1", "b c" = "}", d.e = 2 }
list = [ 1, # one ]
  "two]", [3,
  4], { f = 5 } ]
"quoted \\u0041" = 1979-05-27 07:32:00
[gate.inner]
z = -0.1
[[gate]] # second
metric = \'\'\'
[[gate]]\'\'\'
   [[gate.inner]]
   z = +inf
   [[gate.inner]]
   z = true
[other]
'''


def test_hard_text() -> None:
    tomllib.loads(HARD)
    lines = lines_of(HARD)
    assert lines[()] == 1
    assert lines[("name",)] == 2
    assert lines[("description",)] == 3
    assert (lines[("gate",)], lines[("gate", 0)], lines[("gate", 1)]) == (7, 7, 16)
    assert lines[("gate", 0, "labels", "b c")] == 9
    assert lines[("gate", 0, "labels", "d", "e")] == 9
    assert (lines[("gate", 0, "list", 1)], lines[("gate", 0, "list", 2, 1)], lines[("gate", 0, "list", 3, "f")]) == (
        11,
        12,
        12,
    )
    assert lines[("gate", 0, "quoted A")] == 13
    assert lines[("gate", 0, "inner", "z")] == 15
    assert lines[("gate", 1, "inner", 1, "z")] == 22
    assert lines[("other",)] == 23


def test_windows_line_ends() -> None:
    assert lines_of(HARD.replace("\n", "\r\n")) == lines_of(HARD)


def test_the_nearest_thing_around_has_the_line() -> None:
    lines = lines_of("a = 1\n[[gate]]\nb = 2\n")
    assert line_of(lines, ("gate", 0, "missing")) == 2
    assert line_of(lines, ("nothing", 3)) == 1


KEYS = st.sampled_from(["a", "b", "c-d", "e f", "g.h", 'q"', "é"])
LEAVES = st.sampled_from(
    ["1", "-2.5", "true", '"s # ]"', "'}'", '"""m\n[x]\n"""', "'''\n= 1'''", "1979-05-27", '"\\""', '""']
)


def _quoted(key: str) -> str:
    return key if key.replace("-", "").isascii() and key.isalnum() else '"' + key.replace('"', '\\"') + '"'


def _value(draw: st.DrawFn, depth: int) -> str:
    kind = draw(st.integers(0, 3)) if depth else 3
    if kind == 0:
        return "[" + "".join(f"\n {_value(draw, depth - 1)}," for _ in range(draw(st.integers(0, 3)))) + " # ]\n]"
    if kind == 1:
        keys = draw(st.lists(KEYS, unique=True, max_size=3))
        return "{ " + ", ".join(f"{_quoted(key)} = {_value(draw, depth - 1)}" for key in keys) + " }"
    return draw(LEAVES)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """TOML with tables, arrays of tables and values of every shape."""
    blocks = []
    for number in range(draw(st.integers(0, 5))):
        header = draw(
            st.sampled_from(["[[gate]]", "[[gate]] # x", f"[t{number}]", f"[t{number}.'u v']", f"[gates{number}.x]"])
        )
        keys = draw(st.lists(KEYS, unique=True, max_size=4))
        blocks.append(
            "\n".join(
                [header, *(f"{_quoted(key)} = {_value(draw, 2)}" for key in keys), draw(st.sampled_from(["", "# [z]"]))]
            )
        )
    return "\n".join(blocks)


def _paths(value: Any, at: Path = ()) -> set[Path]:
    found = {at}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found |= _paths(inner, (*at, key))
    return found


@bounded
@given(documents())
def test_every_key_that_tomllib_reads_has_a_line_where_it_stands(text: str) -> None:
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # inline tables over several lines, by a drawn multi-line value inside them
        return
    lines = lines_of(text)
    assert set(lines) == _paths(raw)
    source = text.split("\n")
    for path, line in lines.items():
        if path and isinstance(path[-1], str):
            assert path[-1].replace('"', '\\"') in source[line - 1]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "a = 1"])
def test_small_texts(text: str) -> None:
    assert set(lines_of(text)) == _paths(tomllib.loads(text))


@pytest.mark.parametrize(
    "key", ["a" + ".a" * 2000 + " = 1", "a" + ' . "b"' * 2000 + " = 1", "[x." + "'y'." * 300 + "z]"]
)
def test_a_key_of_endless_parts_is_refused_before_it_is_read(key: str) -> None:
    """Python's own parser takes time by the square of their number: a file of 40 kB took 42 s."""
    with pytest.raises(TomlError) as refused:
        parse(f"name = 1\n{key}\n", "c.toml")
    assert str(refused.value) == "c.toml:2: nested too deeply"
    dots = ". " * 500
    assert parse(f"x{'.y' * 90} = 1\nz = '{dots}'\n", "c.toml")["z"] == dots
