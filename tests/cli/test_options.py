"""What ``--option`` takes: only what a probe declares, refused before a minute is spent, and asked for again."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.cli.app import run as cli
from bench.errors import UserError
from bench.measure.probe import Option, Probe
from bench.model import Effort, Request
from bench.workflows.catalog import Catalog, declared
from bench.workflows.nightly import same_again
from bench.workflows.request import RunOptions, probe_options, request_of
from tests.cli.bench import bench, document, measurement, stored

SEQUENTIAL = {"pattern": "sequential", "block_bytes": "1048576", "queue_depth": "deep"}
PROFILE = """
name = "nightly"
description = "a test"
[[gate]]
metric = "storage_read_bytes_per_second"
labels = { pattern = "sequential" }
min = 1.0
source = "a test"
"""


def probe(name: str, *options: Option) -> Probe:
    return Probe(
        name=name, help="h", metrics=(), seconds=dict.fromkeys(Effort, 1.0), measure=lambda _: (), options=options
    )


def option(name: str, help: str = "h") -> Option:  # noqa: A002 - the field is called so
    return Option(name, help, type=int)


SHARED = option("key")
CATALOG = Catalog((probe("one", SHARED, option("size", "of one")), probe("two", SHARED, option("size", "of two"))))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("decoed=crc32", "did you mean decode?"),
        ("feed.dekode=crc32", "did you mean feed.decode?"),
        ("storage.decode=crc32", "did you mean feed.decode?"),
        ("decode=crc16", "'crc16' is not one of none, crc32"),
        ("loader=troch", "did you mean torch?"),
        ("network.max_rate=fast", "'fast' is not a rate"),
        ("threads=0", "not a whole number above 0"),
        ("key_file=/no/such/key", "/no/such/key"),
        ("confirms=abc", "no probe declares the option 'confirms'"),
        ("decode", "must be PROBE.NAME=VALUE"),
        ("decode=", "must be PROBE.NAME=VALUE"),
    ],
)
def test_what_no_probe_takes_is_wrong_usage_and_measures_nothing(tmp_path: Path, word: str, said: str) -> None:
    done = bench("run", "--option", word, "--results", tmp_path / "r", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"bench: --option {word}: ")
    assert said in line
    assert not list(tmp_path.glob("r/runs/*/*"))


def test_an_option_is_kept_by_its_name_or_by_its_probe_s_where_that_says_more() -> None:
    assert probe_options({}, ["feed.decode=crc32"], declared()) == {"decode": "crc32"}
    assert probe_options({"pattern": "shards", "loader": None}, ["decode=crc32"], declared()) == {
        "pattern": "shards",
        "decode": "crc32",
    }
    assert probe_options({}, ["key=1"], CATALOG) == {"key": "1"}
    assert probe_options({}, ["two.key=1", "one.size=2"], CATALOG) == {"two.key": "1", "one.size": "2"}
    with pytest.raises(UserError, match=r"say which: one\.size, two\.size"):
        probe_options({}, ["size=1"], CATALOG)


def test_a_probe_reads_what_was_meant_for_it() -> None:
    one, two = CATALOG.probes
    request = Request(effort=Effort.QUICK, probes=(), options={"key": "1", "two.key": "2"})
    assert (one.option(request, "key"), two.option(request, "key"), one.option(request, "size")) == (1, 2, None)
    with pytest.raises(KeyError):
        one.option(request, "keys")


def test_they_are_listed(tmp_path: Path) -> None:
    names = {name for name, _ in declared().options()}
    listed = json.loads(bench("probes", "--json", cwd=tmp_path).stdout)
    assert {f"{one['probe']}.{entry['name']}" for one in listed for entry in one["options"]} == names
    for command in (("probes",), ("run", "--help")):
        text = bench(*command, cwd=tmp_path).stdout
        assert [name for name in names if name not in text] == []


def test_the_second_measurement_is_asked_as_the_first() -> None:
    given = {"decode": "crc32", "key_file": "k", "network.key_file": "n", "confirms": "x", "quiet_check": "off"}
    request = Request(
        effort=Effort.QUICK, probes=("storage", "feed"), storage=("/a",), peers=("h:1",), options=given,
        accelerator="emulated:resnet50-h100",
    )  # fmt: skip
    words = same_again(request, ["storage"], declared())
    assert words == [
        "run", "--quiet", "--exit-zero", "--effort", "quick", "--accelerator", "emulated:resnet50-h100",
        "--probe", "storage", "--storage", "/a", "--peer", "h:1", "--no-quiet-check",
        "--option", "feed.decode=crc32", "--option", "key_file=k", "--option", "network.key_file=n",
    ]  # fmt: skip
    said = [value for word, value in pairwise(words) if word == "--option"]
    kept = {name: value for name, value in given.items() if name not in ("confirms", "quiet_check")}
    keyless = Catalog(tuple(probe(p.name, *(_unchecked(o) for o in p.options)) for p in declared().probes))
    assert probe_options({}, said, keyless) == kept


@pytest.mark.parametrize(
    "word",
    ["key_file=key", "network.max_rate=500M", "network.udp_rate=5M", "feed.decode=spin:0.01", "feed.loader=torch",
     "feed.pattern=shards", "feed.workload=unet3d", "inference.shape=nano", "inference.rate=3",
     'expect.expectation={"gpus": {"count": 0}}'],
)  # fmt: skip
def test_the_command_line_of_a_second_measurement_is_understood(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--udp-rate`` and ``--decode`` were written as flags, which `bench run` has not: nothing was ever confirmed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_bytes(b"k" * 32)
    (tmp_path / "key").chmod(0o600)
    catalog, asked = declared(), []
    given = probe_options({}, [word], catalog)
    accelerator = "emulated:resnet50-h100" if "workload" not in given else "auto"
    first = Request(effort=Effort.QUICK, probes=("storage", "feed"), storage=(str(tmp_path),), peers=("h:1",),
                    accelerator=accelerator, options=given)  # fmt: skip

    def measured(words: RunOptions, *, progress: bool) -> None:
        asked.append(request_of(words, {}, catalog))
        raise UserError("this is as far as it goes")

    monkeypatch.setattr("bench.workflows.run.measure_and_judge", measured)
    assert cli([*same_again(first, first.probes, catalog), "--confirms", "first"]) == 2
    (again,) = asked
    assert again.model_copy(update={"options": {**again.options, "confirms": None}}) == first.model_copy(
        update={"options": {**given, "confirms": None}, "probes": again.probes}
    )
    assert set(first.probes) <= set(again.probes)
    assert [one.terms(again) for one in catalog.probes] == [one.terms(first) for one in catalog.probes]


def _unchecked(one: Option) -> Option:
    return Option(one.name, one.help, type=one.type, choices=one.choices)


def night(seed: dict[str, Any], number: int, labels: dict[str, str]) -> dict[str, Any]:
    """The same node's run of an earlier night, on which storage was faster than any is."""
    value = (100 + number % 3) * 1e12
    figure = measurement("storage_read_bytes_per_second", value, 0.99 * value, 1.01 * value, **labels)
    results = document([figure])["results"]
    at = datetime.fromisoformat(seed["started_at"]) - timedelta(days=number)
    return {**seed, "id": f"night{number:02}", "started_at": at.isoformat(), "results": results, "verdicts": []}


@pytest.mark.slow
def test_a_regression_of_a_run_with_options_is_confirmed_by_a_second_one(tmp_path: Path) -> None:
    (tmp_path / "nightly.toml").write_text(PROFILE)
    words = ("run", "--effort", "quick", "--json", "--quiet", "--profile", "nightly.toml", "--results", "results")
    env = {"BENCH_LOCK": str(tmp_path / "lock"), "BENCH_CACHE": str(tmp_path / "cache")}
    seed = json.loads(bench(*words, "--probe", "host", cwd=tmp_path, env=env).stdout)
    (path,) = tmp_path.glob("results/runs/*/*.json")
    folder, labels = path.parent, {"path": str(tmp_path), **SEQUENTIAL}
    path.unlink()
    for number in range(1, 15):
        run = night(seed, number, labels)
        stored(tmp_path / "results", run, f"{datetime.fromisoformat(run['started_at']):%Y%m%dT%H%M%SZ}-{run['id']}")
    asked = (*words, "--probe", "storage", "--option", "decode=crc32", "--baseline")
    done = bench(*asked, cwd=tmp_path, env=env, timeout=280)
    assert "the separate measurement failed" not in done.stderr
    first = json.loads(done.stdout)
    (second,) = [
        run
        for run in map(json.loads, (path.read_text() for path in folder.glob("*.json")))
        if run["request"]["options"].get("confirms") == first["id"]
    ]
    assert first["request"]["options"] == {"decode": "crc32", "quiet_check": "off"}
    assert second["request"]["options"] == {"decode": "crc32", "quiet_check": "off", "confirms": first["id"]}
    assert done.returncode == 1
    (verdict,) = first["verdicts"]
    assert verdict["decision"] == "NO-GO"
    assert verdict["findings"][0]["reason"].startswith("regressed: ")
