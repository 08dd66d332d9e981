"""Croissant, data packages and data contracts: what they say of files and fields, and what is no description."""

from __future__ import annotations

import copy
from decimal import Decimal
from fnmatch import fnmatch
from typing import Any

import pytest

from probes.data import description as description_module
from probes.data.description import Field, NotUnderstood, Table, mismatch, read, undocumented
from tests.probes.data.sets import CROISSANT

PACKAGE: dict[str, Any] = {
    "resources": [
        {"name": "a", "path": ["a/1.csv", "a/2.csv"], "hash": "sha256:" + "A" * 64, "schema": {"fields": [
            {"name": "id", "type": "integer", "constraints": {"required": True}}, {"name": "day", "type": "date"},
            {"name": "untyped"}]}},
        {"name": "b", "path": "b.jsonl", "schema": "schemas/b.json"},
    ]
}  # fmt: skip
CONTRACT: dict[str, Any] = {
    "kind": "DataContract", "apiVersion": "v3.0.2", "id": "x", "version": "1", "status": "active",
    "schema": [{"name": "orders", "properties": [{"name": "amount", "logicalType": "number", "required": True}]}],
}  # fmt: skip


def no_file(_: str) -> Any:
    raise AssertionError("nothing else is to be read")


def test_croissant_names_files_fields_and_checksums() -> None:
    found = read(CROISSANT, no_file)
    assert found is not None and found.standard == "croissant" and found.lacking == ()
    table = found.of("people.csv")
    assert table is not None and table.fields == {"id": Field("integer"), "name": Field("any")}
    assert table.sha256 == "0" * 64
    assert found.of("pictures/1.jpg") == Table(("pictures/1.jpg",))
    assert found.of("other.csv") is None


def test_croissant_that_lacks_what_its_standard_asks_for_says_so() -> None:
    document = {name: value for name, value in CROISSANT.items() if name not in ("license", "creator")}
    found = read(document, no_file)
    assert found is not None and found.lacking == ("license", "creator")


def test_croissant_of_a_set_that_is_published_elsewhere_covers_its_copy() -> None:
    """The form of the large hubs: a repository by its address, files in it by patterns. Nothing of it is fetched."""
    document = copy.deepcopy(CROISSANT)
    hub = "https://hub.example/datasets/people"
    document["distribution"] = [
        {"@type": "cr:FileObject", "@id": "repo", "contentUrl": f"{hub}/tree/main", "encodingFormat": "git+https"},
        {
            "@type": "cr:FileSet",
            "@id": "pictures",
            "containedIn": {"@id": "repo"},
            "includes": "data/*/*.parquet",
            "excludes": ["data/*/*.draft.parquet"],
        },
        {"@type": "cr:FileObject", "@id": "people.csv", "contentUrl": f"{hub}/resolve/main/my%20people.csv?download=1"},
    ]
    found = read(document, no_file)
    assert found is not None and found.of("data/train/0.draft.parquet") is None
    for path in ("people.csv", "my people.csv", "data/train/0.parquet"):
        assert found.of(path) is not None, path
    assert found.of("main") is None and found.of("repo") is None


def test_a_resource_at_an_address_is_none_of_this_set() -> None:
    remote = {
        "name": "far",
        "path": "https://example.org/far.csv",
        "schema": {"fields": [{"name": "a", "type": "any"}]},
    }
    package = {"resources": [PACKAGE["resources"][0], remote]}
    found = read(package, no_file)
    assert found is not None and found.of("a/1.csv") is not None and found.of("far.csv") is None


def test_a_data_package_with_its_schema_in_another_file() -> None:
    asked = []

    def other(path: str) -> Any:
        asked.append(path)
        return {"fields": [{"name": "text", "type": "string"}]}

    found = read(PACKAGE, other)
    assert found is not None and asked == ["schemas/b.json"]
    table = found.of("a/2.csv")
    assert table is not None and table.sha256 == "a" * 64 and table.fields["id"] == Field("integer", True)
    assert undocumented(["id", "untyped"], table) == "the description gives its field 'untyped' no type"
    assert undocumented(["id", "extra"], table) == "the description lacks its field 'extra'"
    assert undocumented(["id", "day"], table) is None
    assert undocumented([], None) == "no description covers its file"


def test_a_data_contract() -> None:
    found = read(CONTRACT, no_file)
    assert found is not None and found.standard == "odcs"
    for path in ("orders.parquet", "orders/part-1.parquet", "orders"):
        assert found.of(path) is not None, path
    assert found.of("borders.parquet") is None


@pytest.mark.parametrize("document", [None, [], "text", {}, {"name": "x"}, {"@type": "sc:Dataset"}])
def test_what_is_none_of_the_three_is_no_description(document: Any) -> None:
    assert read(document, no_file) is None


def broken(change: Any) -> Any:
    made = copy.deepcopy(CROISSANT)
    change(made)
    return made


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (broken(lambda d: d.update({"@type": "sc:Person"})), "@type"),
        (broken(lambda d: d["distribution"][0].update(contentUrl="/etc/passwd")), "distribution[0].contentUrl"),
        (broken(lambda d: d["distribution"][0].update(contentUrl="a/../../b")), "distribution[0].contentUrl"),
        (broken(lambda d: d["distribution"].append("x")), "distribution[2]"),
        (broken(lambda d: d["distribution"][1].update({"@type": "cr:Other"})), "distribution[1].@type"),
        (broken(lambda d: d["recordSet"][0]["field"][0]["source"].update(fileObject={"@id": "gone"})), "'gone'"),
        (broken(lambda d: d["recordSet"][0]["field"].append(7)), "recordSet[0].field[2]"),
        ({"resources": [{"name": "a"}]}, "resources[0]"),
        ({"resources": [{"path": "/srv/a.csv"}]}, "resources[0].path"),
        ({"resources": [{"path": "a.csv", "schema": {"fields": [{"type": "integer"}]}}]}, "fields[0]"),
        ({"resources": ["a.csv"]}, "resources[0]"),
        ({"kind": "DataContract", "schema": [{"properties": []}]}, "schema[0]"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused_with_its_place(document: Any, place: str) -> None:
    with pytest.raises(NotUnderstood) as refused:
        read(document, no_file)
    assert place in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("integer", ["7", "-1", " 3 "], ["1.5", "one", "1e3"]),
        ("number", ["7", "1e3", "-.5"], ["one", "1,5"]),
        ("boolean", ["true", "0"], ["yes", "2"]),
        ("date", ["2026-11-26", "2026-11-26T10:00:00"], ["26.11.2026", "yesterday"]),
    ],
)
def test_texts_are_held_against_their_types(kind: str, right: list[str], wrong: list[str]) -> None:
    table = Table((), {"x": Field(kind)})
    assert [mismatch({"x": text}, table, texts=True) for text in right] == [None] * len(right)
    assert all(mismatch({"x": text}, table, texts=True) for text in wrong)


def test_values_are_held_against_their_types_and_what_is_required_must_be_there() -> None:
    table = Table((), {"x": Field("integer", required=True), "y": Field("number")})
    assert mismatch({"x": 1, "y": None}, table) is None
    assert mismatch({"x": True}, table) == "its field 'x' is no integer"
    assert mismatch({"y": 1.0}, table) == "its field 'x' is missing"
    assert mismatch({"x": 1, "y": Decimal("2.50")}, table) is None
    for none in (float("nan"), float("inf"), -float("inf"), True, "1"):
        assert mismatch({"x": 1, "y": none}, table) == "its field 'y' is no number"


def test_croissant_of_lists_and_of_objects() -> None:
    """The form of the large hubs for what is no single value: each record of such a set was called broken."""

    def field(name: str, **more: Any) -> dict[str, Any]:
        source = {"fileObject": {"@id": "people.csv"}, "extract": {"column": name.partition("/")[0]}}
        return {"@type": "cr:Field", "@id": f"people/{name}", "source": source, **more}

    part = field("answers/start", dataType="sc:Integer")
    part["source"] = {**part["source"], "transform": {"jsonPath": "start"}}
    document = copy.deepcopy(CROISSANT)
    document["recordSet"] = [
        {
            "@type": "cr:RecordSet",
            "@id": "people",
            "field": [
                field("tokens", dataType="sc:Integer", repeated=True),
                field("pair", dataType="sc:Float", isArray=True),
                {"@type": "cr:Field", "@id": "people/answers", "subField": [part]},
                field("id", dataType="sc:Integer"),
            ],
        }
    ]
    found = read(document, no_file)
    table = found.of("people.csv") if found else None
    record = {"tokens": [1, 2], "pair": [0.5, 1], "answers": {"start": 3}, "id": 4}
    assert table is not None and undocumented(list(record), table) is None and mismatch(record, table) is None
    assert mismatch({**record, "id": "four"}, table) == "its field 'id' is no integer"


def test_a_description_may_name_each_of_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file was held against each pattern: 5,000 files with a line each took longer than the survey may."""
    calls = []

    def counted(name: str, pattern: str) -> bool:
        calls.append(pattern)
        return fnmatch(name, pattern)

    monkeypatch.setattr(description_module, "fnmatch", counted)
    resources = [{"name": f"r{n}", "path": f"part/{n}.csv"} for n in range(300)]
    found = read({"resources": [*resources, {"name": "all", "path": "*.jsonl"}]}, no_file)
    assert found is not None
    assert all(found.of(f"part/{n}.csv") for n in range(300)) and found.of("x/1.jsonl") and not found.of("part/300.csv")
    assert len(calls) <= 2 * 302
