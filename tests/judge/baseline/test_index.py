"""The index is a cache: whatever happens to it or to its maker, it says what the run files say."""

from __future__ import annotations

import multiprocessing
import os
import random
import select
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from bench.judge.baseline.prediction import Policy
from bench.judge.baseline.series import key_of
from bench.model import Measurement, Run
from bench.store.documents import load
from bench.store.history import prune, values_of
from bench.store.index import Index, cache_file
from bench.store.runs import Store
from tests.judge.baseline.make import LATENCY, P99, READ, SEQUENTIAL, Nights, document, measurement, store

KILLS = 200
#: Before its kernel was another one.
OLD = {"hostname": "node01", "fingerprint": "a", "facts": {"kernel": "5.15"}}
KEY = (READ, tuple(sorted(SEQUENTIAL.items())))


def _truth(root: Path) -> dict[str, float]:
    """Run id -> value, from the files themselves."""
    runs = [load(path) for path in sorted((root / "runs").glob("*/*.json"))]
    return {run.id: m.value for run in runs for m in run.measurements() if key_of(m, None) == KEY}


def _indexed(root: Path, host: str = "node01") -> dict[str, float]:
    with Index(root) as index:
        numbers = [number for number, labels in index.series(READ) if labels == SEQUENTIAL]
        return {run: value for number in numbers for run, value, _ in index.values(number, host, 0.0, 1e12)}


def test_it_follows_the_files(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    nights.add_many(5)
    assert _indexed(tmp_path) == _truth(tmp_path)
    nights.add_many(2)
    assert len(_indexed(tmp_path)) == 7
    newest = max((tmp_path / "runs/node01").iterdir())
    newest.unlink()
    store(tmp_path, document(5, [measurement(READ, 7.0, SEQUENTIAL), measurement(LATENCY, 1e-3, P99)]))
    found = _indexed(tmp_path)
    assert found == _truth(tmp_path) and len(found) == 6 and found["node01-00005"] == 7.0


def test_an_unusable_file_is_told_of_once_and_stops_nothing(tmp_path: Path) -> None:
    Nights(tmp_path).add_many(3)
    (tmp_path / "runs/node01/20260301T000000Z-bad.json").write_text('{"schema": ')
    (tmp_path / "runs/node01/20260302T000000Z-link.json").symlink_to("/etc/passwd")
    told: list[str] = []
    for _ in range(2):
        with Index(tmp_path, warn=told.append) as index:
            assert len(index.runs("node01", 0.0, 1e12, 99)) == 3
    assert len(told) == 2 and "bad.json" in " ".join(told)


@pytest.mark.parametrize("damage", ["torn", "foreign", "older", "folder"])
def test_a_spoilt_cache_is_made_anew(tmp_path: Path, damage: str) -> None:
    Nights(tmp_path).add_many(4)
    _indexed(tmp_path)
    cache = cache_file(tmp_path)
    assert cache is not None
    if damage == "torn":
        data = cache.read_bytes()
        cache.write_bytes(data[:100] + os.urandom(len(data) - 100))
    elif damage == "foreign":
        cache.write_bytes(b"this is no database" * 1000)
    elif damage == "older":
        with sqlite3.connect(cache) as db:
            db.execute("PRAGMA user_version=1")
    else:
        cache.unlink()
        cache.mkdir()
    assert _indexed(tmp_path) == _truth(tmp_path)


def test_without_a_place_for_it_the_index_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Nights(tmp_path).add_many(4)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file" / "cache"))
    assert _indexed(tmp_path) == _truth(tmp_path)


def test_two_at_once_agree(tmp_path: Path) -> None:
    Nights(tmp_path).add_many(60)
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_indexed, args=(tmp_path,)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert [one.exitcode for one in both] == [0, 0]
    assert _indexed(tmp_path) == _truth(tmp_path)


def _run(number: int) -> Run:
    made: dict[str, Any] = document(number, [measurement(READ, float(number + 1), SEQUENTIAL)])
    return Run.model_validate(made | {"id": f"kill-{number:06d}"})


def _work(root: Path, first: int, told: int) -> None:
    """Store and index until killed; each id is told only when its run counts as stored."""
    runs, number = Store(root, warn=lambda _: None), first
    os.write(told, b"\n")  # begins: the parent's clock to the kill starts here, however busy the machine is
    while True:
        run = _run(number)
        runs.save(run)
        os.write(told, run.id.encode() + b"\n")
        with Index(root):
            pass
        number += 1


@pytest.mark.slow
def test_kill_9_at_two_hundred_moments_tears_and_loses_nothing(tmp_path: Path) -> None:
    """A process that stores and indexes is killed at random; after every tenth kill all is compared."""
    context, noise = multiprocessing.get_context("fork"), random.Random(1)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    told = b""
    _work_once(tmp_path)
    for kill in range(KILLS):
        worker = context.Process(target=_work, args=(tmp_path, 1000 * (kill + 1), writer))
        worker.start()
        select.select([reader], [], [], 30.0)
        time.sleep(noise.uniform(0.0, 0.05))
        os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join()
        told += _drained(reader)
        if kill % 10 == 9:
            _compare(tmp_path, told)
    os.close(reader)
    os.close(writer)
    assert len(told.split()) > KILLS / 10  # the kills did not all come before the first run was stored


def _work_once(root: Path) -> None:
    Store(root, warn=lambda _: None).save(_run(0))
    with Index(root):
        pass


def _drained(reader: int) -> bytes:
    found = b""
    try:
        while chunk := os.read(reader, 1 << 16):
            found += chunk
    except BlockingIOError:
        pass
    return found


def _compare(root: Path, told: bytes) -> None:
    truth = _truth(root)  # raises for a torn file
    assert {word.decode() for word in told.split()} <= set(truth)
    assert _indexed(root) == truth


def test_of_more_values_than_are_asked_for_the_newest_are_given_oldest_first(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    found = [nights.add() for _ in range(4)]
    with Index(tmp_path) as index:
        assert [row["run"] for row in values_of(index, READ, limit=2)] == [found[2]["id"], found[3]["id"]]


def test_prune_keeps_the_newest_the_pinned_and_their_raw_output(tmp_path: Path) -> None:
    from bench.store.baselines import Decisions, Pin, change

    nights = Nights(tmp_path)
    nights.add_many(60)
    Nights(tmp_path, host="node02").add_many(3)
    for path in list((tmp_path / "runs/node01").glob("*.json")):
        path.with_suffix(".raw").mkdir()
        (path.with_suffix(".raw") / "fio.json").write_text("{}")
    change(tmp_path, "node01", lambda _: Decisions(hostname="node01", pin=Pin(runs=("node01-00022",), at="now")))
    assert len(prune(tmp_path, "node01", 30)) == 15
    left = {load(path).id for path in (tmp_path / "runs/node01").glob("*.json")}
    numbers = [*range(Policy().own_pins), 22, *range(30, 60)]  # an epoch's first nights are what its decline is seen by
    assert left == {f"node01-{number:05d}" for number in numbers}
    assert len(list((tmp_path / "runs/node01").glob("*.raw"))) == 45
    assert len(list((tmp_path / "runs/node02").glob("*.json"))) == 3
    assert prune(tmp_path, "node01", 30) == []


def judged(finding: dict[str, Any]) -> dict[str, Any]:
    """What a document has of a verdict with one such finding."""
    found = {"metric": READ, "labels": {}, "limit": {"min": 1.0}, "required": True, "source": "s", "remedy": "",
             "observed": 2.0, **finding}  # fmt: skip
    return {"verdicts": [{"profile": "p", "digest": "d", "decision": "NO-GO", "score": 1.0, "findings": [found]}]}


@pytest.mark.parametrize("bad", [{"status": "fail", "reason": "regressed: 30 % slower"}, {"status": "fail"}])
def test_the_last_good_nights_of_a_node_that_nobody_mends_stay(tmp_path: Path, bad: dict[str, Any]) -> None:
    """After ``keep`` bad nights the good ones were gone, and what was bad had become normal."""
    nights, window = Nights(tmp_path), Policy().window
    nights.add_many(100)
    nights.add_many(60, read=0.7, **judged(bad))
    removed = prune(tmp_path, "node01", 30)
    left = {load(path).id for path in (tmp_path / "runs/node01").glob("*.json")}
    first, bad_ones = range(Policy().own_pins), range(130, 160)
    assert left == {f"node01-{number:05d}" for number in (*first, *range(100 - window, 100), *bad_ones)}
    assert len(removed) == 160 - len(left)


def test_so_do_the_nights_that_say_that_a_change_mended_nothing(tmp_path: Path) -> None:
    """Without them a drop from before a new kernel was forgotten with their files, and the node was GO."""
    nights, worse = Nights(tmp_path), judged({"status": "undecided", "reason": "suspect: 30 % slower"})
    nights.add_many(40)
    nights.add_many(12, read=0.7, **judged({"status": "fail", "reason": "regressed: 30 % slower"}))
    nights.add_many(60, read=0.7, fingerprint="beef", **worse)

    def left() -> set[str]:
        prune(tmp_path, "node01", 30)
        return {load(path).id for path in (tmp_path / "runs/node01").glob("*.json")}

    last = {f"node01-{number:05d}" for number in range(52 - Policy().shifts[-1], 52)}
    assert last < left()
    nights.add_many(Policy().window + 1, fingerprint="beef")
    assert not last & left(), "good nights end it"


def test_where_every_night_fails_the_newest_stay_as_before(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    nights.add_many(60, **judged({"status": "fail"}))
    prune(tmp_path, "node01", 30)
    assert len(list((tmp_path / "runs/node01").glob("*.json"))) == 30 + Policy().own_pins


def test_prune_keeps_what_is_signed_and_what_confirms_it(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    first = nights.add(node=OLD)
    request = {**first["request"], "options": {"confirms": first["id"]}}
    store(tmp_path, document(900, [measurement(READ, 1.0, SEQUENTIAL)], at=None, request=request, node=OLD))
    nights.add_many(45)
    path = next(path for path in (tmp_path / "runs/node01").glob("*.json") if load(path).id == first["id"])
    half = path.with_name(f"{path.stem}.intoto.json")
    half.write_text("{}")
    half.with_name(f"{half.name}.sig").write_text("signature")
    assert len(prune(tmp_path, "node01", 30)) == 1
    assert len([name for name in path.parent.iterdir() if name.suffix == ".json"]) == 30 + Policy().own_pins + 3
    half.with_name(f"{half.name}.sig").unlink()  # a statement that nobody signed keeps nothing
    assert len(prune(tmp_path, "node01", 30)) == 2


def test_where_every_night_is_signed_as_many_stay_as_were_asked_for(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    nights.add(node=OLD)
    nights.add_many(45)
    for path in list((tmp_path / "runs/node01").glob("*.json")):
        path.with_name(f"{path.stem}.intoto.json").write_text("{}")
        path.with_name(f"{path.stem}.intoto.json.sig").write_text("signature")
    assert prune(tmp_path, "node01", 30) == [] == prune(tmp_path, "node01", 30, keep_signed=46)
    gone = prune(tmp_path, "node01", 30, keep_signed=40)
    left = sorted(path.name.partition(".")[0] for path in (tmp_path / "runs/node01").iterdir())
    assert 0 < len(gone) <= 6 and not {path.stem for path in gone} & set(left)
    assert all(left.count(stem) in (3, 4) for stem in left), "a run, its statement, its signature, its raw output"
    newest = sorted(set(left))[-30:]
    prune(tmp_path, "node01", 30, keep_signed=0)
    left = sorted({path.name.partition(".")[0] for path in (tmp_path / "runs/node01").iterdir()})
    assert set(newest) <= set(left) and len(left) == 30 + Policy().own_pins


def test_a_second_measurement_goes_with_its_night(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    first = nights.add(node=OLD)
    request = {**first["request"], "options": {"confirms": first["id"]}}
    store(tmp_path, document(900, [measurement(READ, 1.0, SEQUENTIAL)], at=None, request=request, node=OLD))
    nights.add_many(31)
    assert len(prune(tmp_path, "node01", 30)) == 2


def test_a_measurement_is_found_by_its_labels_alone() -> None:
    labels = {"b": "2", "a": "1"}
    made = Measurement(metric=READ, value=1.0, interval=(1.0, 1.0), samples=1, labels=labels)
    assert key_of(made, None) == (READ, (("a", "1"), ("b", "2")))
