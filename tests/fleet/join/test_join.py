"""Expected hosts x files: what is missing is missing, what is foreign or hostile never passes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench.cli.app import run as bench
from bench.errors import UserError
from bench.fleet.files import read_hosts, same_host
from bench.fleet.join.folder import join_folder
from bench.judge.fleet.model import Fleet, State
from bench.judge.fleet.outliers import Key, Sample, shifts
from bench.model import Decision, Metric
from tests.fleet.make import PROFILE, judgement, lay, run_of

HOSTS = ["n1", "n2", "n3", "n4"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "fleet"
    for host in HOSTS:
        lay(place, run_of(host))
    return place


def joined(folder: Path, hosts: list[str] | None = None, newest: bool = False) -> Fleet:
    return join_folder(folder, hosts or HOSTS, judgement(), newest=newest)


def states(fleet: Fleet) -> dict[str, str]:
    return {node.host: node.state.value for node in fleet.nodes}


def test_four_sound_nodes_are_go(folder: Path) -> None:
    fleet = joined(folder)
    assert fleet.decision is Decision.GO
    assert states(fleet) == dict.fromkeys(HOSTS, "pass")
    assert not fleet.outliers and not fleet.reasons
    assert Fleet.model_validate_json(fleet.model_dump_json(by_alias=True)) == fleet


def test_a_missing_node_is_missing_and_never_passes(folder: Path) -> None:
    (folder / "n3.json").unlink()
    fleet = joined(folder)
    assert fleet.decision is Decision.INCONCLUSIVE
    assert states(fleet)["n3"] == "lost"
    assert fleet.verdicts[0].nodes == {"GO": 3, "lost": 1}
    assert fleet.verdicts[0].score == 0.0


def test_one_slow_node_makes_the_fleet_no_go(folder: Path) -> None:
    lay(folder, run_of("n2", read=5e7))
    fleet = joined(folder)
    assert fleet.decision is Decision.NO_GO
    assert states(fleet)["n2"] == "fail"
    assert "storage_read_bytes_per_second" in fleet.nodes[1].failed[0]


def test_a_nodes_own_verdict_counts_for_nothing(folder: Path) -> None:
    """The liar writes GO beside figures that fail; it is judged here by its figures."""
    honest = json.loads(run_of("n2", read=5e7).model_dump_json(by_alias=True))
    honest["verdicts"] = [
        {"profile": "acceptance", "digest": "d", "decision": "GO", "score": 100.0, "findings": []},
    ]
    (folder / "n2.json").write_text(json.dumps(honest))
    assert joined(folder).decision is Decision.NO_GO


HOSTILE = {
    "empty": b"",
    "garbage": b"\x00\xff\xfe not a document",
    "truncated": b'{"schema": "aiready-bench/run", "id": "x',
    "nan": b'{"schema": "aiready-bench/run", "schema_version": 1, "id": NaN}',
    "twice": b'{"schema": "aiready-bench/run", "schema": "aiready-bench/run"}',
    "deep": b"[" * 100_000,
    "list": b"[]",
    "other": b'{"schema": "other/thing"}',
    "infinite": b'{"schema": "aiready-bench/run", "schema_version": 1e999}',
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_a_hostile_file_is_a_bad_result_of_that_host_alone(folder: Path, kind: str) -> None:
    (folder / "n2.json").write_bytes(HOSTILE[kind])
    fleet = joined(folder)
    assert states(fleet) == {"n1": "pass", "n2": "bad-result", "n3": "pass", "n4": "pass"}
    assert fleet.decision is Decision.INCONCLUSIVE
    reason = fleet.nodes[1].reason or ""
    assert "n2.json" in reason and "\n" not in reason


def test_a_link_and_a_pipe_are_not_read(folder: Path, tmp_path: Path) -> None:
    (folder / "n2.json").unlink()
    (folder / "n2.json").symlink_to(folder / "n1.json")
    (folder / "n3.json").unlink()
    os.mkfifo(folder / "n3.json")
    assert states(joined(folder)) == {"n1": "pass", "n2": "bad-result", "n3": "bad-result", "n4": "pass"}


def test_a_file_that_is_named_for_one_host_and_speaks_for_another(folder: Path) -> None:
    lay(folder, run_of("n1", seed=1), name="n2")
    fleet = joined(folder)
    assert states(fleet) == {"n1": "pass", "n2": "bad-result", "n3": "pass", "n4": "pass"}
    assert "says it is of 'n1'" in (fleet.nodes[1].reason or "")


def test_two_different_runs_of_a_host_are_a_duplicate_and_none_counts(folder: Path) -> None:
    lay(folder / "second", run_of("n2", seed=1), name="again")
    fleet = joined(folder)
    assert states(fleet) == {"n1": "pass", "n2": "duplicate", "n3": "pass", "n4": "pass"}
    assert fleet.decision is Decision.INCONCLUSIVE
    assert joined(folder, newest=True).decision is Decision.GO


def test_a_copy_of_the_same_run_is_one_run(folder: Path) -> None:
    lay(folder / "copy", run_of("n2"), name="again")
    assert joined(folder).decision is Decision.GO


def test_two_names_of_one_machine_are_found_by_its_ids(folder: Path) -> None:
    twin = run_of("n2", seed=1)
    same = twin.node.model_copy(update={"facts": run_of("n1").node.facts})
    lay(folder, twin.model_copy(update={"node": same}))
    fleet = joined(folder)
    assert states(fleet) == {"n1": "pass", "n2": "duplicate", "n3": "pass", "n4": "pass"}
    assert "n1" in (fleet.nodes[1].reason or "")


def test_one_run_under_two_names_counts_once(folder: Path) -> None:
    copied = run_of("n1")
    renamed = copied.node.model_copy(update={"hostname": "n2", "facts": run_of("n2").node.facts})
    lay(folder, copied.model_copy(update={"node": renamed}))
    assert states(joined(folder))["n2"] == State.DUPLICATE.value


def test_strangers_are_named_and_not_counted(folder: Path) -> None:
    lay(folder, run_of("n9"))
    (folder / "notes.json").write_text("{}")
    fleet = joined(folder)
    assert fleet.decision is Decision.GO
    assert len(fleet.strangers) == 2 and any("n9" in line for line in fleet.strangers)


def test_a_replay_is_no_measurement(folder: Path) -> None:
    lay(folder, run_of("n2", replay_of="abc"))
    assert states(joined(folder))["n2"] == "bad-result"


def test_a_results_tree_with_full_names_is_joined_by_short_names(tmp_path: Path) -> None:
    for host in HOSTS:
        lay(tmp_path / "runs" / host, run_of(f"{host}.cluster.example"), name="20261122T105103Z-abc")
    assert joined(tmp_path).decision is Decision.GO


@pytest.mark.parametrize(
    ("expected", "hostname", "same"),
    [
        ("n1", "n1", True),
        ("n1", "N1", True),
        ("n1", "n1.a", True),
        ("n1.a", "n1", True),
        ("n1.a", "n1.b", False),
        ("n1", "n10", False),
        ("10.0.0.1", "10", False),
        ("10", "10.0.0.1", False),
    ],
)
def test_which_names_are_of_one_host(expected: str, hostname: str, same: bool) -> None:
    assert same_host(expected, hostname) is same


@pytest.mark.parametrize("text", ["", "# nobody\n", "n1\nn1\n", "a b\n", "../x\n"])
def test_lists_that_cannot_be_used_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hosts.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=r"hosts\.txt"):
        read_hosts(path)


def profile_file(tmp_path: Path) -> str:
    path = tmp_path / "acceptance.toml"
    path.write_text(PROFILE)
    return str(path)


def test_the_command_prints_one_document_and_the_contracts_status(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fleet", "join", str(folder), "--expect", ",".join(HOSTS), "--profile", profile_file(tmp_path)]
    assert bench([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "aiready-bench/fleet"
    (folder / "n4.json").unlink()
    assert bench(words) == 3
    assert "n4" in capsys.readouterr().out
    lay(folder, run_of("n1", read=1e6))
    assert bench([*words, "--quiet"]) == 1
    assert bench([*words, "--quiet", "--exit-zero"]) == 0


def test_without_a_list_nothing_is_joined(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fleet", "join", str(folder), "--profile", profile_file(tmp_path)]
    assert bench(words) == 2
    assert "--expect" in capsys.readouterr().err
    (folder / "hosts.txt").write_text("\n".join(HOSTS))
    assert bench([*words, "--quiet"]) == 0
    assert bench(["fleet", "join", str(folder / "absent"), "--expect", "n1,n2"]) == 2


def test_the_page_stands_alone_and_escapes(folder: Path, tmp_path: Path) -> None:
    lay(folder, run_of("n2", replay_of="<script>alert(1)</script>"))
    page = tmp_path / "fleet.html"
    words = ["fleet", "join", str(folder), "--expect", ",".join(HOSTS), "--profile", profile_file(tmp_path)]
    assert bench([*words, "--quiet", "--page", str(page)]) == 3
    text = page.read_text()
    assert "n2" in text and "bad-result" in text
    assert "<script" not in text and "http:" not in text and "https:" not in text


def test_a_fleet_that_moved_is_told_apart_from_a_node_that_moved(tmp_path: Path) -> None:
    before, all_slow, one_slow = tmp_path / "before", tmp_path / "all", tmp_path / "one"
    hosts = [f"n{i}" for i in range(8)]
    for host in hosts:
        lay(before, run_of(host))
        lay(all_slow, run_of(host, read=0.8e9, seed=1))
        lay(one_slow, run_of(host, read=0.8e9 if host == "n3" else 1e9, seed=1))
    moved = join_folder(all_slow, hosts, judgement(), against=before)
    assert [(s.metric, round(s.shift_ratio, 1), s.nodes) for s in moved.shifts] == [
        ("storage_read_bytes_per_second", 0.2, 8)
    ]
    assert not moved.outliers and moved.decision is Decision.INCONCLUSIVE, "one measurement alone is a suspicion"
    assert moved.reasons[0].startswith("suspect: storage_read_bytes_per_second")
    single = join_folder(one_slow, hosts, judgement(), against=before)
    assert not single.shifts
    assert [(o.host, o.part, o.level) for o in single.outliers] == [("n3", "disk /data", "act")]
    assert single.decision is Decision.INCONCLUSIVE, "one measurement alone is a suspicion"


def test_a_shift_of_the_whole_fleet_is_regressed_when_a_second_separate_measurement_says_so_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts, rates = [f"n{i}" for i in range(8)], {"before": 1e9, "now": 0.8e9, "slow": 0.8e9, "well": 1e9}
    for seed, (name, read) in enumerate(rates.items()):
        for host in hosts:
            lay(tmp_path / name, run_of(host, read=read, seed=seed))

    def joined_with(again: str | None, before: str = "before", now: str = "now") -> Fleet:
        second = tmp_path / again if again else None
        return join_folder(tmp_path / now, hosts, judgement(), against=tmp_path / before, again=second)

    regressed = joined_with("slow")
    assert regressed.decision is Decision.NO_GO and regressed.reasons[0].startswith("regressed: storage_read")
    assert [(s.level, s.confirmed) for s in regressed.shifts] == [("act", True)]
    assert joined_with("well").decision is Decision.INCONCLUSIVE, "the second one does not say so"
    assert joined_with("now").decision is Decision.INCONCLUSIVE, "the same runs are no second measurement"
    better = joined_with(None, before="now", now="before")
    assert better.decision is Decision.GO and round(better.shifts[0].shift_ratio, 1) == -0.2
    assert joined_with(None, now="before").shifts == (), "the same folder has not moved"
    assert "20 % worse than before on all of 8 nodes" in regressed.reasons[0]
    words = ["fleet", "join", str(tmp_path / "now"), "--expect", ",".join(hosts), "--profile", profile_file(tmp_path)]
    assert bench([*words, "--against", str(tmp_path / "before"), "--again", str(tmp_path / "slow")]) == 1
    assert "The whole fleet moved" in capsys.readouterr().out


def test_a_small_shift_is_shown_and_does_not_decide_and_shares_move_by_points(tmp_path: Path) -> None:
    hosts = [f"n{i}" for i in range(16)]
    for host in hosts:
        lay(tmp_path / "before", run_of(host))
        lay(tmp_path / "now", run_of(host, read=0.95e9, seed=1))
    fleet = join_folder(tmp_path / "now", hosts, judgement(), against=tmp_path / "before")
    assert [(s.metric, s.level) for s in fleet.shifts] == [("storage_read_bytes_per_second", "warn")]
    assert fleet.decision is Decision.GO
    share = Metric(name="starvation_ratio", help="h", better="lower")
    key, metrics = Key("c", "starvation_ratio", ()), {"starvation_ratio": share}
    tables = [{key: [Sample(host, value, value, value) for host in hosts]} for value in (0.01, 0.03, 0.31)]
    assert not shifts(tables[1], tables[0], metrics), "a starvation of 3 % is not three times worse than one of 1 %"
    (shift,) = shifts(tables[2], tables[0], metrics)
    assert (round(shift.shift_ratio, 2), shift.level) == (0.3, "act")
