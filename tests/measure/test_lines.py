"""What programs print, read as JSON lines: hostile lines are told by their number, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest

from bench.measure.jsonl import decoded, objects, record, records, refusal
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
    with pytest.raises(Failed, match=r"^tool_output: line 3 of the load is not a JSON object: ") as caught:
        objects(f"{GOOD}\n\n{line}", "the load")
    assert len(caught.value.reason) < 400


@pytest.mark.parametrize("line", ["{}", '{"kind": 3}', '{"kind": null}', '{"Kind": "a"}'])
def test_every_object_says_what_it_is_where_that_is_asked_for(line: str) -> None:
    assert decoded(line) is not None and decoded(line, "kind") is None
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


@dataclass(frozen=True, slots=True)
class Window:
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Arm:
    """One of everything that a child's record may be made of."""

    arm: Literal["storage", "fetch"]
    curve: list[int]
    windows: tuple[Window, ...]
    steady: bool
    by_rank: dict[int, list[float]]
    demand: float | None
    stamps: tuple[int, float | None] = (0, None)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class End:
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    ratio: float
    kind: Literal["progress"] = "progress"


KINDS = {"arm": Arm, "end": End, "progress": None}
ARM = {
    "kind": "arm", "arm": "fetch", "curve": [1, 2], "windows": [{"bytes": 4, "seconds": 1}], "steady": True,
    "by_rank": {"8": [1, 0.5]}, "demand": None,
}  # fmt: skip


def changed(**fields: object) -> str:
    return json.dumps({**ARM, **fields})


def test_lines_become_typed_records() -> None:
    more = changed(stamps=[3, 1.5], facts={"a": "b"}, demand=2, new_in_a_later_version={"x": [1]})
    text = (
        f'{json.dumps(ARM)}\n\n{{"kind": "progress", "ratio": "anything"}}\n{more}\r\n{{"kind": "end", "seconds": 7}}'
    )
    first, second, end = records(text, "the load", KINDS)
    assert first == Arm("fetch", [1, 2], (Window(4, 1.0),), True, {8: [1.0, 0.5]}, None)
    assert second == Arm("fetch", [1, 2], (Window(4, 1.0),), True, {8: [1.0, 0.5]}, 2.0, (3, 1.5), {"a": "b"})
    assert isinstance(end, End) and type(end.seconds) is float
    assert records("", "the load", KINDS) == []
    assert records(text.replace("kind", "event"), "the load", KINDS, "event") == [first, second, end]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (changed(arm="resident"), "'arm'"),
        (changed(curve=3), "'curve'"),
        (changed(curve=[1, True]), "'curve.1'"),
        (changed(curve=[1, 1.5]), "'curve.1'"),
        (changed(curve=[1, "2"]), "'curve.1'"),
        (changed(windows=[{"bytes": 4}]), "'windows.0.seconds'"),
        (changed(windows=[{"bytes": 4, "seconds": None}]), "'windows.0.seconds'"),
        (changed(steady=1), "'steady'"),
        (changed(by_rank=[[1]]), "'by_rank'"),
        (changed(by_rank={"a": [1]}), "'by_rank.a"),
        (changed(demand="1"), "'demand'"),
        (changed(stamps=[1]), "'stamps"),
        (changed(facts={"a": 1}), "'facts.a'"),
        ('{"kind": "arm"}', "'arm'"),
        ('{"kind": "end", "seconds": "\\ud800"}', "line 2 of the load"),
        ('{"kind": "end", "seconds": "\udc80"}', "line 2 of the load"),
    ],
)
def test_a_field_that_is_missing_or_of_another_type_is_told_with_its_line(line: str, said: str) -> None:
    text = f'{{"kind": "end", "seconds": 7}}\n{line}'
    with pytest.raises(Failed, match=r"^tool_output: line 2 of the load") as caught:
        records(text, "the load", KINDS)
    assert said in caught.value.reason and "\n" not in caught.value.reason
    assert caught.value.reason.isprintable() and len(caught.value.reason) < 400
    assert records(text, "the load", KINDS, cut=True) == [End(7.0)]
    assert record(line, Arm) is None


@pytest.mark.parametrize("line", [*HOSTILE.values(), '{"kind": 3}', '{"kind": "\\u001b[31m"}'])
def test_a_hostile_line_is_no_record(line: str) -> None:
    with pytest.raises(Failed, match=r"^tool_output: line 1 of the load is ") as caught:
        records(line, "the load", KINDS)
    assert caught.value.reason.isprintable() and len(caught.value.reason) < 400
    assert records(f'{line}\n{{"kind": "end", "seconds": 7}}', "the load", KINDS, cut=True) == [End(7.0)]
    assert record(line, Progress) is None


def test_a_live_line_is_told_from_others_by_its_literal() -> None:
    assert record('{"kind": "progress", "ratio": 0.5}', Progress) == Progress(0.5)
    assert record('{"kind": "end", "ratio": 0.5}', Progress) is None
    assert record("Segmentation fault", Progress) is None
