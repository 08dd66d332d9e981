"""What a node should be: held against the fake driver of the GPU tests, through the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probes.expect.inventory import Gpu, Inventory
from probes.expect.parse import compared, written
from probes.expect.plan import expectation, within
from probes.expect.probe import stops
from tests.cli.bench import bench
from tests.probes.gpu.conftest import Fake, fake, new_driver

__all__ = ["fake", "new_driver"]

NAME = "NVIDIA H100 80GB HBM3"
EIGHT = {"gpus": {"count": 8, "name": NAME, "memory_bytes": 80e9}, "driver": ">=570, <600", "port": [{"name": "ib0/1"}]}


def node(cards: int = 8, **changes: Any) -> Inventory:
    whole = {
        "gpus": [Gpu(NAME, 85_000_000_000)] * cards, "driver": "580.159.04", "memory_bytes": 1 << 40,
        "ports": {"ib0/1": 5e10},
    }  # fmt: skip
    return Inventory(**{**whole, **changes})


def wrong(wanted: dict[str, Any], found: Inventory) -> dict[str, int]:
    """The parts that are not as expected, and how many of each."""
    parts = compared(expectation(json.dumps(wanted)), found)
    return {part: many for part, (many, _) in parts if many}


def test_a_node_that_is_as_expected_has_nothing_wrong() -> None:
    assert wrong(EIGHT, node()) == {}
    assert wrong({"memory_bytes": 1 << 40, "port": [{"name": "ib0/1", "bytes_per_second": 5e10}]}, node()) == {}


@pytest.mark.parametrize(
    ("found", "parts"),
    [
        (node(7), {"gpus": 1}),
        (node(9), {"gpus": 1}),
        (node(gpus=None, driver=None, why="nvml_missing: no driver"), {"gpus": 8, "driver": 1}),
        (node(gpus=[Gpu(NAME, 85_000_000_000)] * 7 + [Gpu("NVIDIA L4", 24_000_000_000)]),
         {"gpu name": 1, "gpu memory": 1}),
        (node(gpus=[Gpu(NAME)] * 8), {"gpu memory": 8}),
        (node(driver="550.90.07"), {"driver": 1}),
        (node(driver="600"), {"driver": 1}),
        (node(ports={}), {"port ib0/1": 1}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_counted_by_part(found: Inventory, parts: dict[str, int]) -> None:
    assert wrong(EIGHT, found) == parts


def test_a_port_whose_rate_the_kernel_does_not_know_does_not_pass() -> None:
    slow = {"port": [{"name": "ib0/1", "bytes_per_second": 5e10}]}
    assert wrong(slow, node(ports={"ib0/1": 1.25e10})) == wrong(slow, node(ports={"ib0/1": None})) == {"port ib0/1": 1}


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [("580.159.04", ">=580.159.4", True), ("580.95", ">=580.159", False), ("570", "==570.0", True),
     ("570.1", ">570, <571", True), ("570.0.0.1", ">570, <570.0.1", True), ("", ">=1", False)],
)  # fmt: skip
def test_versions_are_compared_as_numbers(version: str, wanted: str, fits: bool) -> None:
    assert expectation(json.dumps({"driver": wanted})).driver == wanted and within(version, wanted) is fits


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"gpus": {"count": "8"}}, "gpus.count"), ({"gpu": {"count": 8}}, "gpu: there is no such key"),
        ({"driver": "570 or newer"}, "driver: '570 or newer' is no range of versions, such as '>=570, <600'"),
        ({"driver": ">=570 <600"}, "is no range"), ({"driver": ""}, "is no range"), ({"driver": 570}, "driver: "),
        ({"driver": ">=600, <570"}, "driver: no version is >=600, <570"), ({"driver": "<0"}, "no version is <0"),
        ({"driver": ">570, <=570"}, "no version is"), ({}, "it expects nothing"),
        ({"port": []}, "it expects nothing"), ({"port": [{"speed": 1}]}, "port.0.name"),
        ({"gpus": {"count": 8, "memory_bytes": float("1e999")}}, "memory_bytes"),
    ],
)  # fmt: skip
def test_a_slip_is_refused_by_its_key(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        expectation(json.dumps(wanted))
    assert "\n" not in str(caught.value)


def test_what_doctor_writes_expects_a_node_like_this_one() -> None:
    import tomllib

    mixed = node(gpus=[Gpu("NVIDIA L40S", 48_000_000_000), Gpu("NVIDIA T400", 4_000_000_000)])
    for found in (node(), node(gpus=None, driver=None), node(0, ports={"eth0": None}), mixed):
        tables = tomllib.loads(written(found))
        assert wrong(tables, found) == {}
    assert wrong(tomllib.loads(written(node())), node(7)) == {"gpus": 1}


def test_a_driver_may_keep_a_little_more_of_a_card_for_itself() -> None:
    import tomllib

    tables = tomllib.loads(written(node()))
    assert wrong(tables, node(gpus=[Gpu(NAME, 84_000_000_000)] * 8)) == {}
    assert wrong(tables, node(gpus=[Gpu(NAME, 83_000_000_000)] * 8)) == {"gpu memory": 8}


# --- through the command, with the fake driver


def run(folder: Path, fake: Fake, *words: str) -> tuple[int, dict[str, Any], str]:
    done = bench("run", "--json", "--effort", "quick", "--probe", "fabric", "--results", folder, *words,
                 cwd=folder, env=fake.env())  # fmt: skip
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_a_missing_card_is_no_go_before_anything_is_measured(tmp_path: Path, fake: Fake) -> None:
    """Was: measured for minutes, and GO with the seven that were left."""
    fake.say(count=2)
    assert bench("doctor", "--write-expect", "node.toml", cwd=tmp_path, env=fake.env()).returncode == 0
    assert "count = 2" in (tmp_path / "node.toml").read_text()

    status, document, _ = run(tmp_path, fake, "--expect", "node.toml")
    assert status == 3, "as expected, and the rest of the gates have no data"
    facts = document["node"]["facts"]
    assert (facts["gpus"], facts["nvidia_driver"]) == (["Fake H200"] * 2, "570.00.fake"), "no /proc/driver/nvidia here"
    last = document["verdicts"][0]["findings"][-1]
    assert (last["metric"], last["status"]) == ("node_mismatches", "pass")
    ran = {result["probe"]: result["outcome"] for result in document["results"]}
    assert ran["expect"] == "ok" and ran["storage"] == "skipped"

    fake.say(count=1)
    status, document, _ = run(tmp_path, fake, "--expect", "node.toml", "--probe", "storage")
    assert status == 1 and {verdict["decision"] for verdict in document["verdicts"]} == {"NO-GO"}
    ran = {result["probe"]: result for result in document["results"]}
    assert ran["storage"]["outcome"] == "skipped"
    assert ran["storage"]["reason"].startswith("not_as_expected: 1 of 2 GPUs")
    (bad,) = [m for m in ran["expect"]["measurements"] if m["value"]]
    assert bad["labels"]["part"] == "gpus" and stops_with(document) == "1 of 2 GPUs"

    again = bench("gate", "--json", "--results", tmp_path, cwd=tmp_path)
    assert again.returncode == 1, "judged again without hardware, it is the same"


def stops_with(document: dict[str, Any]) -> str | None:
    from bench.model import Run

    return stops(Run.model_validate(document).find("node_mismatches"))


def test_the_site_s_table_is_expected_of_every_run(tmp_path: Path, fake: Fake) -> None:
    fake.say(count=2)
    (tmp_path / "bench.toml").write_text("[expect.gpus]\ncount = 3\n")
    status, document, _ = run(tmp_path, fake)
    assert status == 1 and "expect" in document["request"]["probes"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("gpus = 8", "gpus"), ("[gpus]\ncount = 8\nkind = 'H100'", "gpus.kind"), ("[gpus\ncount = 8", ":1: ")],
)
def test_a_file_that_expects_nonsense_is_status_2_and_names_the_place(
    tmp_path: Path, fake: Fake, text: str, words: str
) -> None:
    (tmp_path / "node.toml").write_text(text)
    status, _, told = run(tmp_path, fake, "--expect", "node.toml")
    assert status == 2 and "node.toml" in told and words in told and told.count("\n") == 1


def test_no_file_and_one_that_is_there_already(tmp_path: Path, fake: Fake) -> None:
    status, _, told = run(tmp_path, fake, "--expect", "none.toml")
    assert status == 2 and "none.toml" in told and "--write-expect" in told
    (tmp_path / "mine.toml").write_text("driver = '>=1'\n")
    status, _, told = run(tmp_path, fake, "--expect", "/dev/zero")
    assert status == 2 and "/dev/zero" in told
    done = bench("doctor", "--write-expect", "mine.toml", cwd=tmp_path)
    assert done.returncode == 2 and (tmp_path / "mine.toml").read_text() == "driver = '>=1'\n"


@pytest.mark.parametrize(
    ("answers", "word"),
    [({"count": 2, "1.lost": 1}, "GPU 1: GpuIsLost"), ({"error.nvmlInitWithFlags": 18}, "nvml_broken"),
     ({"error.nvmlDeviceGetCount_v2": 999}, "nvml_broken")],
)  # fmt: skip
def test_a_node_whose_cards_do_not_all_answer_is_no_example(
    tmp_path: Path, fake: Fake, answers: dict[str, float], word: str
) -> None:
    """It was written with the cards that were left, and its like were then held against that."""
    fake.tell(answers)
    done = bench("doctor", "--write-expect", "node.toml", cwd=tmp_path, env=fake.env())
    assert done.returncode == 2 and word in done.stderr and not (tmp_path / "node.toml").exists()
