"""The folder of runs: where they lie, saved once, completed once, found again."""

from __future__ import annotations

import json
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.model import Node, Run
from bench.store.documents import load
from bench.store.errors import StoreError, UnusableRun
from bench.store.index import Index
from bench.store.runs import Store, folder_name, short_id, stem
from tests.store.sample import judged, measured

NAME = "20261122T105103Z-3f2a9c1b77de"


def store(root: Path, lines: list[str] | None = None) -> Store:
    return Store(root, warn=(lines if lines is not None else []).append)


def on(hostname: str) -> Node:
    return Node(hostname=hostname, fingerprint="abc")


def test_a_run_lies_where_the_contract_says_and_comes_back_equal(tmp_path: Path) -> None:
    path = store(tmp_path).save(measured())
    assert path == tmp_path / "runs" / "node-17" / f"{NAME}.json" == store(tmp_path).path_for(measured())
    assert load(path) == measured()
    assert stat.S_IMODE(path.stat().st_mode) & 0o137 == 0
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    document = json.loads(path.read_text())
    assert (document["schema"], document["schema_version"]) == ("aiready-bench/run", 1)


def test_no_folder_of_the_store_is_open_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = store(tmp_path / "new" / "results").save(measured())
    finally:
        os.umask(before)
    made = [folder for folder in path.parents if tmp_path in folder.parents]
    assert len(made) == 4 and {stat.S_IMODE(folder.stat().st_mode) for folder in made} == {0o750}


def test_the_start_is_written_in_utc_and_sorts_by_time() -> None:
    assert stem("2026-11-22T10:51:03+02:00", "a") == "20261122T085103Z-a"
    assert stem("2026-11-22T10:51:03", "a") == "20261122T105103Z-a"
    for wrong in ("", "yesterday", "0001-01-01T00:00:00+14:00", "2026-13-01T00:00:00Z", "../../x"):
        with pytest.raises(ValueError, match="started_at"):
            stem(wrong, "a")


def test_a_saved_run_is_never_replaced(tmp_path: Path) -> None:
    path = store(tmp_path).save(measured())
    before = path.read_bytes()
    with pytest.raises(StoreError, match="never replaced"):
        store(tmp_path).save(measured(finished_at=None))
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_verdicts_are_added_once_and_nothing_else_changes(tmp_path: Path) -> None:
    runs = store(tmp_path)
    path = runs.save(measured())
    assert runs.complete(judged(measured())) == path
    assert load(path) == judged(measured())
    with pytest.raises(StoreError, match="completed already"):
        runs.complete(judged(measured()))
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("results", ()), ("finished_at", None), ("replay_of", "x"), ("node", Node(hostname="node-17", fingerprint="z"))],
)
def test_a_completion_that_would_edit_a_measurement_is_refused(tmp_path: Path, field: str, value: object) -> None:
    runs = store(tmp_path)
    path = runs.save(measured())
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"{field} would change"):
        runs.complete(judged(measured()).model_copy(update={field: value}))
    assert path.read_bytes() == before


def test_completing_what_was_never_saved_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        store(tmp_path).complete(judged(measured()))
    store(tmp_path).check("node-17")
    with pytest.raises(UnusableRun, match="No such file"):
        store(tmp_path).complete(judged(measured()))


def test_only_one_of_many_completions_wins(tmp_path: Path) -> None:
    runs = store(tmp_path)
    runs.save(measured())
    refused: list[str] = []

    def complete() -> None:
        try:
            runs.complete(judged(measured()))
        except StoreError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=complete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(refused) == 7
    assert all("completed already" in line for line in refused)


def test_facts_that_json_cannot_hold_do_not_lose_the_run(tmp_path: Path) -> None:
    facts = {"clock": float("nan"), "name": "caf\udce9", "deep": [{"x": float("inf")}], "path": Path("/data")}
    path = store(tmp_path).save(measured(node=Node(hostname="node-17", fingerprint="f", facts=facts)))
    stored = load(path).node.facts
    assert (stored["clock"], stored["deep"], stored["path"]) == (None, [{"x": None}], "/data")
    assert stored["name"].startswith("caf")
    store(tmp_path).complete(judged(measured(node=Node(hostname="node-17", fingerprint="f", facts=facts))))


def test_what_cannot_be_a_document_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for wrong in (
        measured(node=Node(hostname="n", fingerprint="f", facts={"x": object()})),
        measured(started_at="yesterday"),
        measured().model_copy(update={"id": "../../escape"}),
    ):
        with pytest.raises(StoreError):
            store(tmp_path).save(wrong)
    assert list(tmp_path.rglob("*.json")) == []


@pytest.mark.parametrize("hostname", ["..", ".", "a/b", "/etc", ".hid", "h" * 300, "a\nb", "\x1b[31m", "-rf", "ñu"])
def test_no_host_name_leaves_the_folder(tmp_path: Path, hostname: str) -> None:
    folder = store(tmp_path).folder(hostname)
    assert folder.parent == tmp_path / "runs"
    assert folder.name.isascii()
    assert folder.name[0] not in ".-"
    assert len(folder.name) <= 100
    assert folder_name(hostname) != folder_name(hostname + "x")


def test_an_ordinary_host_name_is_kept() -> None:
    assert folder_name("gpu-17.rack_4.example.com") == "gpu-17.rack_4.example.com"


def test_ids_are_short_unique_and_of_the_models_form() -> None:
    ids = {Store.new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert measured(id=ids.pop()).id
    assert short_id("a" * 32) == "a" * 32
    assert len(short_id("a" * 128)) == 32
    assert short_id("a" * 100) != short_id("a" * 101)


def test_evidence_lies_beside_the_document(tmp_path: Path) -> None:
    run = measured()
    folder = store(tmp_path).evidence_folder(run.node.hostname, run.started_at, run.id)
    assert folder == store(tmp_path).path_for(run).with_suffix(".raw")
    assert folder.is_dir()


def test_temps_of_dead_writers_are_swept_after_an_hour_and_nothing_else_is(tmp_path: Path) -> None:
    runs = store(tmp_path)
    folder = runs.save(measured()).parent
    names = {".a.json.0123abcd.tmp": True, ".b.json.0123abcd.tmp": False, ".other": True, "x.tmp": True}
    for name, old in names.items():
        (folder / name).touch()
        if old:
            os.utime(folder / name, (1e9, 1e9))
    (folder / ".link.json.0123abcd.tmp").symlink_to("/etc/passwd")
    runs.save(measured(id="another"))
    left = {p.name for p in folder.iterdir() if p.suffix != ".json"}
    assert left == {".b.json.0123abcd.tmp", ".other", "x.tmp", ".link.json.0123abcd.tmp"}


# --- finding


def save_at(runs: Store, second: int, run_id: str, **changes: object) -> Run:
    run = measured(id=run_id, started_at=datetime.fromtimestamp(1.8e9 + second, UTC).isoformat(), **changes)
    runs.save(run)
    return run


def test_the_newest_run_of_this_node_skips_what_is_not_its_own_measurement(tmp_path: Path) -> None:
    lines: list[str] = []
    runs = store(tmp_path, lines)
    assert runs.newest("node-17") is None
    save_at(runs, 1, "old")
    wanted = save_at(runs, 2, "wanted")
    save_at(runs, 3, "replayed", replay_of="old")
    foreign = save_at(runs, 9, "foreign", node=on("node-18"))
    theirs = runs.path_for(foreign)
    (runs.folder("node-17") / theirs.name).write_bytes(theirs.read_bytes())
    (runs.folder("node-17") / "29990101T000000Z-torn.json").write_text('{"schema": "aire')
    (runs.folder("node-17") / "29990101T000000Z-link.json").symlink_to(theirs)
    assert runs.newest("node-17") == wanted
    assert len(lines) == 4
    for words in ("is a replay of old", "was measured on node-18", "not JSON", "is a symbolic link"):
        assert sum(words in line for line in lines) == 1, words


def test_a_run_of_a_clock_that_was_ahead_does_not_stay_the_newest(tmp_path: Path) -> None:
    lines: list[str] = []
    runs = store(tmp_path, lines)
    ahead = measured(id="ahead", started_at="2999-01-01T00:00:00Z")
    runs.save(ahead)
    assert runs.newest("node-17") == ahead and not lines, "a clock that is behind dates every run in the future"
    os.utime(runs.path_for(ahead), (1_700_000_000, 1_700_000_000))
    wanted = measured(id="wanted", started_at="2024-01-01T00:00:00Z")
    runs.save(wanted)
    assert runs.newest("node-17") == wanted
    assert len(lines) == 1 and "29990101T000000Z-ahead.json: is dated in the future" in lines[0]
    with Index(tmp_path) as index:
        found = index.newest("node-17")
    assert found is not None and found[0] == "wanted"


def test_the_run_of_tonight_is_the_newest_though_the_clock_is_ahead(tmp_path: Path) -> None:
    lines: list[str] = []
    runs = store(tmp_path, lines)
    for name, year in (("old", 2024), ("ahead", 2998), ("tonight", 2999)):
        runs.save(measured(id=name, started_at=f"{year}-01-01T00:00:00Z"))
    newest = runs.newest("node-17")
    assert newest is not None and (newest.id, lines) == ("tonight", [])
    with Index(tmp_path) as index:
        found = index.newest("node-17")
    assert found is not None and found[0] == "tonight"


def test_within_one_second_the_runs_own_start_decides(tmp_path: Path) -> None:
    runs = store(tmp_path)
    for run_id, start in (("zz", "10:51:03.100"), ("aa", "10:51:03.900"), ("mm", "10:51:03.500")):
        runs.save(measured(id=run_id, started_at=f"2026-11-22T{start}Z"))
    newest = runs.newest("node-17")
    assert newest is not None
    assert newest.id == "aa"


def test_all_runs_come_oldest_first_and_a_bad_file_stops_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    runs = store(tmp_path, lines)
    for second, run_id, host in ((3, "c", "n1"), (1, "a", "n2"), (2, "b", "n1")):
        save_at(runs, second, run_id, node=on(host))
    (tmp_path / "runs" / "n1" / "20260101T000000Z-x.json").write_text("[1,")
    (tmp_path / "runs" / "elsewhere").symlink_to(tmp_path / "runs" / "n1")
    (tmp_path / "runs" / "a-file").touch()
    assert [run.id for _, run in runs.all()] == ["a", "b", "c"]
    assert [run.id for _, run in runs.all("n1")] == ["b", "c"]
    assert len(lines) == 2
    assert list(store(tmp_path / "nowhere").all()) == []


def test_a_run_is_found_by_path_id_name_and_unique_prefix(tmp_path: Path) -> None:
    runs = store(tmp_path)
    one, two = save_at(runs, 1, "3f2a9c"), save_at(runs, 2, "3f2b00")
    long = save_at(runs, 3, "l" * 120)
    for reference in (str(runs.path_for(one)), "3f2a9c", "3f2a", runs.path_for(one).stem, runs.path_for(one).name):
        assert runs.find(reference) == one
    assert runs.find("3f2b") == two
    assert runs.find("l" * 120) == long
    link = tmp_path / "mine.json"
    link.symlink_to(runs.path_for(two))
    assert runs.find(str(link)) == two
    assert runs.locate("3f2b00") == runs.path_for(two)


def test_an_exact_id_wins_over_a_prefix(tmp_path: Path) -> None:
    runs = store(tmp_path)
    short, _ = save_at(runs, 1, "ab"), save_at(runs, 2, "abc")
    assert runs.find("ab") == short


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("3f2", "names 2 runs"),
        ("3f2a9d", "nearest: 3f2a9c"),
        ("", "no such run"),
        ("a\0b", "no such run"),
        ("x" * 5000, "no such run"),
        ("/no/such/file.json", "no such run"),
        ("/etc", "no such run"),
        ("\x1b[2J", "?[2J"),
    ],
)
def test_a_reference_to_no_run_or_to_many_is_one_printable_line(tmp_path: Path, reference: str, words: str) -> None:
    runs = store(tmp_path)
    save_at(runs, 1, "3f2a9c")
    save_at(runs, 2, "3f2b00")
    with pytest.raises(UnusableRun) as caught:
        runs.find(reference)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_empty_store_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(UnusableRun, match="bench run"):
        store(tmp_path).find("abc")


def test_the_default_warning_goes_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs" / "node-17"
    folder.mkdir(parents=True)
    (folder / "20260101T000000Z-x.json").write_text("")
    assert Store(tmp_path).newest("node-17") is None
    assert "is empty" in capsys.readouterr().err
