"""The fabric watcher on a made-up sysfs, because few test machines have InfiniBand."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from bench.measure.probe import Context, Failed, Unsupported
from bench.model import Effort, Measurement, Request
from probes.fabric import PROBE, FabricWatch, parse


def write(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    port = "infiniband/mlx5_0/ports/1"
    write(tmp_path, {
        f"{port}/rate": "400 Gb/sec (4X NDR)", f"{port}/state": "4: ACTIVE", f"{port}/link_layer": "InfiniBand",
        f"{port}/counters/symbol_error": 5, f"{port}/counters/link_downed": 2, f"{port}/hw_counters/out_of_sequence": 0,
        "net/eth0/device/vendor": "0x15b3", "net/eth0/speed": 25000, "net/eth0/operstate": "up",
        "net/eth0/carrier_changes": 3, "net/eth0/statistics/rx_crc_errors": 7, "net/veth0/speed": 10000,
    })  # fmt: skip
    return tmp_path


def figures(samples: list[dict[str, Any]]) -> tuple[dict[tuple[str, str, str], float], list[str]]:
    ctx = Context(
        probe=PROBE, request=Request(effort=Effort.QUICK, probes=()), tools=None,  # type: ignore[arg-type]
        seconds=1, remaining=lambda: 9.0,
        workspace=lambda *_: nullcontext(Path()), stage=lambda _: nullcontext(), progress=lambda *_: None,
    )  # fmt: skip
    found: list[Measurement] = parse(samples, ctx)
    return {(m.metric, m.labels.get("port", ""), m.labels.get("counter", "")): m.value for m in found}, ctx.warnings


def test_what_a_port_is(sysfs: Path) -> None:
    got, _ = figures([dict(FabricWatch(sysfs).sample("tick"))])
    assert got["fabric_link_bytes_per_second", "mlx5_0/1", ""] == 50e9
    assert got["fabric_link_lanes", "mlx5_0/1", ""] == 4
    assert got["fabric_link_bytes_per_second", "eth0", ""] == 25e9 / 8
    assert not any(port == "veth0" for _, port, _ in got), "a virtual device keeps no such rate"


def test_errors_and_flaps_are_those_of_the_run(sysfs: Path) -> None:
    watch = FabricWatch(sysfs)
    samples = [dict(watch.sample("begin"))]
    write(sysfs, {"infiniband/mlx5_0/ports/1/counters/symbol_error": 25, "net/eth0/carrier_changes": 5})
    write(sysfs, {"infiniband/mlx5_0/ports/1/rate": "100 Gb/sec (1X NDR)"})
    samples.append(dict(watch.sample("end")))
    got, _ = figures(samples)
    assert got["fabric_errors", "mlx5_0/1", "symbol_error"] == 20
    assert got["fabric_errors", "mlx5_0/1", "out_of_sequence"] == 0
    assert got["fabric_errors", "eth0", "rx_crc_errors"] == 0
    assert got["fabric_flaps", "eth0", ""] == 2
    assert got["fabric_flaps", "mlx5_0/1", ""] == 0
    assert got["fabric_link_bytes_per_second", "mlx5_0/1", ""] == 100e9 / 8, "the lowest rate counts"


def test_a_counter_that_was_cleared_still_counts(sysfs: Path) -> None:
    watch = FabricWatch(sysfs)
    samples = [dict(watch.sample("begin"))]
    write(sysfs, {"infiniband/mlx5_0/ports/1/counters/symbol_error": 3})
    got, _ = figures([*samples, dict(watch.sample("end"))])
    assert got["fabric_errors", "mlx5_0/1", "symbol_error"] == 3


def test_a_port_that_goes_down_is_seen_and_one_that_was_never_up_is_a_warning(sysfs: Path) -> None:
    watch = FabricWatch(sysfs)
    samples = [dict(watch.sample("begin"))]
    write(sysfs, {"infiniband/mlx5_0/ports/1/state": "1: DOWN"})
    got, warnings = figures([*samples, dict(watch.sample("end"))])
    assert got["fabric_up_ratio", "mlx5_0/1", ""] == 0.5 and warnings == []
    got, warnings = figures([dict(watch.sample("end"))])
    assert ("fabric_up_ratio", "mlx5_0/1", "") not in got
    assert warnings == ["port mlx5_0/1 was down for the whole run"]


def test_damaged_files_are_absent_not_zero(sysfs: Path) -> None:
    port = "infiniband/mlx5_0/ports/1"
    write(sysfs, {f"{port}/rate": "fast", f"{port}/counters/symbol_error": "N/A", "net/eth0/speed": -1})
    got, _ = figures([dict(FabricWatch(sysfs).sample("tick"))])
    assert ("fabric_link_bytes_per_second", "mlx5_0/1", "") not in got
    assert ("fabric_errors", "mlx5_0/1", "symbol_error") not in got
    assert ("fabric_link_bytes_per_second", "eth0", "") not in got


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "1.2.3 Gb/sec (4X", "9" * 5000, "-" * 9, "", "1e999 Gb/sec", "٣ Gb/sec (٤X"]
)
def test_whatever_stands_in_a_file_is_a_figure_or_none(sysfs: Path, text: str) -> None:
    names = [str(path.relative_to(sysfs)) for path in sysfs.rglob("*") if path.is_file()]
    before = dict(FabricWatch(sysfs).sample("begin"))
    write(sysfs, dict.fromkeys(names, text))
    figures([before, dict(FabricWatch(sysfs).sample("end"))])


@pytest.mark.parametrize("ports", [{"eth0": None}, {"eth0": {}}, {"eth0": {"active": "\x1b"}}])
def test_a_damaged_sample_is_one_clean_line(ports: object) -> None:
    with pytest.raises(Failed, match=r"^tool_output: ") as caught:
        figures([{"ports": ports}])
    assert caught.value.reason.isprintable()


def test_the_ports_that_training_uses_are_counted(sysfs: Path) -> None:
    """No figure told a node with a dead InfiniBand card from one that has none, so TCP alone was judged."""
    dead = "infiniband/mlx5_1/ports/1"
    write(sysfs, {f"{dead}/state": "1: DOWN", f"{dead}/link_layer": "InfiniBand"})
    write(sysfs, {"infiniband/mlx5_2/ports/1/state": "4: ACTIVE", "infiniband/mlx5_2/ports/1/link_layer": "Ethernet"})
    write(sysfs, {"infiniband/mlx5_3/ports/1/state": "1: DOWN", "infiniband/mlx5_3/ports/1/link_layer": "Ethernet"})
    write(sysfs, {"infiniband/efa_0/ports/1/state": "4: ACTIVE", "infiniband/efa_0/ports/1/link_layer": "Unspecified"})
    watch = FabricWatch(sysfs)
    got, _ = figures([dict(watch.sample("begin")), dict(watch.sample("end"))])
    assert (got["fabric_rdma_ports", "", ""], got["fabric_active_rdma_ports", "", ""]) == (3, 2)
    write(sysfs, {f"infiniband/mlx5_{card}/ports/1/state": "1: DOWN" for card in (0, 2)})
    got, _ = figures([dict(watch.sample("begin"))])
    assert (got["fabric_rdma_ports", "", ""], got["fabric_active_rdma_ports", "", ""]) == (2, 0)


def test_a_node_without_ports_has_none_to_train_over(tmp_path: Path) -> None:
    """It was unsupported, as if nobody knew."""
    write(tmp_path, {"net/lo/speed": 1})
    got, _ = figures([dict(FabricWatch(tmp_path).sample("begin"))])
    assert got == {("fabric_rdma_ports", "", ""): 0.0}


def test_where_sysfs_is_not_to_be_seen_it_is_unsupported(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no_ports"):
        FabricWatch(tmp_path)
