"""A run file may be torn, edited, of another version, or made to do harm: one line each, never a traceback."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.model import SCHEMA_VERSION, Run
from bench.store import documents as reading
from bench.store.documents import load
from bench.store.errors import StoreError, UnusableRun
from bench.store.runs import Store
from tests.store.sample import judged, measured

DOCUMENT = judged(measured()).model_dump_json(by_alias=True)


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(DOCUMENT) | changes)


def with_value(text: str) -> str:
    return DOCUMENT.replace('"value":1500000000.0', f'"value":{text}')


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is empty"),
    "blank": (" \n\t", "is empty"),
    "torn": (DOCUMENT[:400], r"line 1, column \d+: not JSON"),
    "binary": (b"\x80\x81\xff", "byte 0: not UTF-8"),
    "utf-16": (DOCUMENT.encode("utf-16"), "not UTF-8"),
    "a list": ("[1, 2]", "not a run document"),
    "null": ("null", "not a run document"),
    "another document": ('{"verdicts": []}', "schema: is not 'aiready-bench/run'"),
    "another schema": (changed(schema="aiready-bench/baseline"), "schema: is not"),
    "no version": (changed(schema_version=None), "schema_version: Input should be a whole number"),
    "version true": (changed(schema_version=True), "schema_version: Input should be a whole number"),
    "version zero": (changed(schema_version=0), "schema_version: Input should be a whole number"),
    "newer": (changed(schema_version=SCHEMA_VERSION + 1), "was written by a newer version.*upgrade"),
    "nan": (with_value("NaN"), r"results\.0\.measurements\.0\.value: Input should be a finite number"),
    "infinity": (with_value("-Infinity"), r"results\.0\.measurements\.0\.value: Input should be a finite number"),
    "1e999": (with_value("1e999"), r"results\.0\.measurements\.0\.value: Input should be a finite number"),
    "nan in a fact": (changed(node={"facts": {"x": float("nan")}}), r"node\.facts\.x"),
    "text as number": (with_value('"1"'), r"results\.0\.measurements\.0\.value: Input should be a valid number"),
    "true as number": (with_value("true"), r"results\.0\.measurements\.0\.value: Input should be a valid number"),
    "outside its interval": (with_value("1.7e9"), r"results\.0\.measurements\.0: .*outside of its interval"),
    "samples past 64 bit": (
        DOCUMENT.replace('"samples":', '"samples":9999999999999999'),
        r"measurements\.0\.samples: Input",
    ),
    "too many digits": (with_value("9" * 5000), "a number in it is too long"),
    "duplicate key": (DOCUMENT.replace('"decision"', '"decision":"NO-GO","decision"'), "'decision' stands twice"),
    "duplicate outside": (DOCUMENT[:-1] + ',"verdicts":[]}', "'verdicts' stands twice"),
    "depth of lists": ("[" * 200_000, "nested too deeply"),
    "depth of objects": ('{"a":' * 200_000, "nested too deeply"),
    "lone surrogate": (DOCUMENT.replace("not measured", "\\ud800"), "Invalid JSON|surrogate|hex escape"),
    "ok without measurements": (changed(results=[{"probe": "a", "outcome": "ok"}]), r"results\.0: a: ok without"),
    "passed without a word": (changed(results=[{"probe": "a", "outcome": "fine"}]), r"results\.0\.outcome: Input"),
    "verdict of a machine": (DOCUMENT.replace('"GO"', '"GOOD"'), r"verdicts\.0\.decision: Input should be"),
    "two faults": (changed(id="../x", node={}), r"\(and \d more\)"),
    "escape in a key": (changed(results=[{"probe": "\x1b[31m"}]), "results.0"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_with_one_line(tmp_path: Path, case: str) -> None:
    content, words = HOSTILE[case]
    path = tmp_path / "run.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UnusableRun) as caught:
        load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert re.search(words, line)
    assert line.isprintable()
    assert len(line) <= 400
    assert re.search("bench run|upgrade|name a", line), "the line must say what to do"


def test_the_table_of_hostile_files_starts_from_a_good_one(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(DOCUMENT)
    assert load(tmp_path / "run.json") == judged(measured())
    (tmp_path / "spaced.json").write_text("\n" + json.dumps(json.loads(DOCUMENT), indent=3))
    assert load(tmp_path / "spaced.json") == judged(measured())
    assert with_value("2") != DOCUMENT != DOCUMENT.replace("not measured", "x")


def test_fields_of_a_newer_minor_version_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(changed(colour="blue"))
    assert load(tmp_path / "run.json") == judged(measured())


def test_a_file_above_the_cap_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UnusableRun, match="larger than 32 MiB"):
        load(tmp_path / "run.json")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "No such file"),
        (Path.mkdir, "is a folder"),
        (fifo, "is no regular file"),
        (loop, "symbolic link"),
    ],
)
def test_only_regular_files_are_opened(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    make(tmp_path / "run.json")
    with pytest.raises(UnusableRun, match=words):
        load(tmp_path / "run.json")


def test_devices_and_impossible_names_are_refused() -> None:
    for path, words in (("/dev/zero", "is no regular file"), ("a\0b", "not a file name"), ("x" * 5000, "too long")):
        with pytest.raises(UnusableRun, match=words):
            load(Path(path))


def test_a_users_own_link_is_followed_but_a_listed_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(DOCUMENT)
    (tmp_path / "link.json").symlink_to("run.json")
    assert load(tmp_path / "link.json").id == measured().id
    with pytest.raises(UnusableRun, match="symbolic link"):
        load(tmp_path / "link.json", follow=False)


def test_older_versions_are_brought_up_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def rename(document: dict[str, Any]) -> dict[str, Any]:
        steps.append(document["schema_version"])
        return document | {"id": document.pop("name")}

    def keep(document: dict[str, Any]) -> dict[str, Any]:
        steps.append(document["schema_version"])
        return document

    monkeypatch.setattr(reading, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(reading, "_UPGRADES", {1: rename, 2: keep})
    old = json.loads(DOCUMENT)
    old["name"] = old.pop("id")
    (tmp_path / "old.json").write_text(json.dumps(old))
    run = load(tmp_path / "old.json")
    assert (run.id, run.schema_version, steps) == (measured().id, 3, [1, 2])
    monkeypatch.setattr(reading, "_UPGRADES", {1: rename})
    with pytest.raises(UnusableRun, match="no way from 2 to 3"):
        load(tmp_path / "old.json")


def test_every_version_since_the_first_has_a_way_up() -> None:
    assert sorted(reading._UPGRADES) == list(range(1, SCHEMA_VERSION))


# --- properties

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
PLACES: list[tuple[str | int, ...]] = [
    ("node",), ("node", "facts"), ("results",), ("results", 0), ("results", 0, "measurements", 0, "interval"), ("id",),
    ("results", 0, "measurements", 0, "labels"), ("verdicts", 0, "findings", 0, "limit"), ("attribution",),
]  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_json_in_any_place_is_a_run_or_one_line(place: tuple[str | int, ...], value: Any) -> None:
    document = json.loads(DOCUMENT)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        assert isinstance(reading.parse(json.dumps(document).encode()), Run)
    except UnusableRun as error:
        assert str(error)


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_run_or_one_line(data: bytes) -> None:
    with pytest.raises(UnusableRun):
        reading.parse(data)


def runs() -> st.SearchStrategy[Run]:
    """Any run that the model allows. Facts are plain JSON: that is what comes back."""
    words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    names = st.from_regex(r"[a-z][a-z0-9]{0,8}(_[a-z0-9]{1,5}){0,2}", fullmatch=True)
    number = st.floats(allow_nan=False, allow_infinity=False)
    fact = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | number | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
        max_leaves=8,
    )
    measurement = st.builds(
        lambda name, values, labels, samples: {
            "metric": name, "value": sorted(values)[1], "interval": (min(values), max(values)), "labels": labels,
            "samples": samples, "repeats": tuple(values),
        },
        names, st.lists(number, min_size=3, max_size=3), st.dictionaries(names, words, max_size=3),
        st.integers(1, 10**6),
    )  # fmt: skip
    result = st.builds(
        lambda probe, found, why: (
            {"probe": probe, "outcome": "ok", "measurements": found}
            if found
            else {"probe": probe, "outcome": "failed", "reason": why}
        ),
        names,
        st.lists(measurement, max_size=3),
        words.filter(bool),
    )
    return st.builds(
        lambda run_id, when, host, facts, results, seen: Run.model_validate(
            measured().model_dump()
            | {"id": run_id, "started_at": when.isoformat() + "Z", "results": results, "bench_version": seen}
            | {"node": {"hostname": host, "fingerprint": seen, "facts": facts}}
        ),
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True),
        st.datetimes(),
        words.filter(bool),
        st.dictionaries(words, fact, max_size=3),
        st.lists(result, max_size=3),
        words,
    )


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(run=runs())
def test_whatever_the_model_allows_is_stored_and_comes_back_equal(
    tmp_path_factory: pytest.TempPathFactory, run: Run
) -> None:
    root = tmp_path_factory.mktemp("store", numbered=True)
    path = Store(root).save(run)
    assert load(path, follow=False) == run
    assert path.is_relative_to(root / "runs")
    assert Store(root).find(run.id) == run
    assert Store(root).complete(judged(run)) == path
    assert load(path) == judged(run)


def test_a_run_made_without_checks_is_not_stored(tmp_path: Path) -> None:
    wrong = measured().model_copy(update={"finished_at": 7})
    with pytest.raises(StoreError, match="finished_at"), pytest.warns(UserWarning):
        Store(tmp_path).save(wrong)
    assert list(tmp_path.rglob("*.json")) == []
