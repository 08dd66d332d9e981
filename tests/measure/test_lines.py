"""What programs print, read as JSON lines: hostile lines are told by their number, never a traceback."""

from __future__ import annotations

import pytest

from bench.measure.jsonl import decoded, objects, readable, refusal
from bench.measure.probe import Failed, TimedOut

GOOD = '{"kind": "a", "value": 1.5}'
HOSTILE = {
    "nested": "[" * 100_000,
    "nested objects": '{"kind": "a", "v": ' * 50_000,
    "NaN": '{"kind": "a", "v": NaN}',
    "infinity": '{"kind": "a", "v": -Infinity}',
    "too large": '{"kind": "a", "v": 1e999}',
    "400 digits": '{"kind": "a", "v": 1' + "0" * 400 + "}",
    "5000 digits": '{"kind": "a", "v": ' + "9" * 5000 + "}",
    "a list": '["kind"]',
    "a number": "7",
    "a text": '"kind"',
    "nothing": "null",
    "cut off": '{"kind": "a", "va',
    "two": GOOD + GOOD,
    "no JSON": "Segmentation fault",
    "a control character": '{"kind": "\x00"}',
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_line_is_told_by_its_number(line: str) -> None:
    assert decoded(line) is None
    assert readable(f"{line}\n{GOOD}\n") == [{"kind": "a", "value": 1.5}]
    with pytest.raises(Failed, match=r"^tool_output: line 3 of the load is not a JSON object: ") as caught:
        objects(f"{GOOD}\n\n{line}", "the load")
    assert len(caught.value.reason) < 400


@pytest.mark.parametrize("line", ["{}", '{"kind": 3}', '{"kind": null}', '{"Kind": "a"}'])
def test_every_object_says_what_it_is_where_that_is_asked_for(line: str) -> None:
    assert decoded(line) is not None and decoded(line, "kind") is None
    assert readable(line, "kind") == []
    with pytest.raises(Failed, match="line 1 of the load is not a JSON object with 'kind'"):
        objects(line, "the load", "kind")


def test_sound_lines_come_back_as_they_are() -> None:
    largest = 2**64
    text = f'{GOOD}\r\n\n  \n{{"kind": "b", "v": [0, -1, {largest}, 1e308, true, null, "NaN"]}}\n'
    assert objects(text, "the load", "kind") == [
        {"kind": "a", "value": 1.5}, {"kind": "b", "v": [0, -1, largest, 1e308, True, None, "NaN"]}
    ]  # fmt: skip
    assert decoded(GOOD.encode()) == decoded(GOOD)
    assert decoded(b'{"\xff": 1}') is None
    assert objects("", "the load") == []


def test_what_a_program_says_of_itself_is_one_line_with_its_remedy() -> None:
    late = refusal("path_hangs", "no answer\n  in 5 s", {"path_hangs": TimedOut}, {"path_hangs": "look at the mount"})
    assert isinstance(late, TimedOut)
    assert (late.reason, late.remedy) == ("path_hangs: no answer in 5 s", "look at the mount")
    other = refusal("unheard_of", "x" * 10_000, {"path_hangs": TimedOut}, {})
    assert type(other) is Failed and other.remedy is None and len(other.reason) == 4000
