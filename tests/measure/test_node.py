"""Facts of the node: read from the kernel's own files, and stable where they must be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bench.measure import node

MOUNTINFO = r"""
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 21 0:45 / /mnt/my\040data rw - nfs4 server:/export rw,vers=4.2
31 21 0:46 / /mnt rw - tmpfs tmpfs rw
32 30 8:1 / /mnt/my\040data/fast ro - xfs /dev/sda1 rw
"""


def test_the_deepest_mount_wins_and_escapes_are_read() -> None:
    def where(path: str) -> tuple[str, str] | None:
        mount = node.mount_of(Path(path), MOUNTINFO)
        return (mount.fstype, mount.device) if mount else None

    assert where("/home") == ("ext4", "254:0")
    assert where("/mnt/other") == ("tmpfs", "0:46")
    assert where("/mnt/my data/x") == ("nfs4", "0:45")
    assert where("/mnt/my data/fast/x") == ("xfs", "8:1")
    assert where("/mnt/my database") == ("tmpfs", "0:46")


def test_this_node_has_what_explains_a_figure() -> None:
    this = node.this_node([Path("/")])
    assert this.hostname == os.uname().nodename
    assert this.facts["kernel"] == os.uname().release
    assert this.facts["cpu"]["usable"] == len(os.sched_getaffinity(0))
    assert this.facts["versions"]["bench"]
    assert this.facts["mounts"]["/"]["fstype"]


@pytest.mark.parametrize(
    ("kernel", "told", "gpus", "driver"),
    [
        ([], {"gpus": ["NVIDIA H200"] * 8, "nvidia_driver": "580.95"}, ["NVIDIA H200"] * 8, "580.95"),
        (["NVIDIA H200"] * 8, {"gpus": ["NVIDIA H200"] * 7, "nvidia_driver": "580.95"}, ["NVIDIA H200"] * 8, "580.159"),
        (["NVIDIA H200"] * 8, {}, ["NVIDIA H200"] * 8, "580.159"),
        ([], {}, [], None),
    ],
    ids=["a container", "a card that hangs", "no NVML", "no card"],
)
def test_the_cards_are_the_kernels_word_and_the_drivers(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kernel: list[str],
    told: dict[str, Any],
    gpus: list[str],
    driver: str | None,
) -> None:
    """A container has no /proc/driver/nvidia: its runs had no GPU in their facts."""
    monkeypatch.setattr(node, "_NVIDIA", tmp_path)
    for number, model in enumerate(kernel):
        folder = tmp_path / "gpus" / f"0000:{number:02x}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ: 1\n")
        (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159  Tue\n")
    known = node.facts(told=told)
    assert (known["gpus"], known["nvidia_driver"]) == (gpus, driver)


def test_the_fingerprint_follows_identity_and_nothing_else() -> None:
    known = node.facts()
    first = node.fingerprint(known)
    assert node.fingerprint({**known, "boot_id": "another"}) == first
    assert node.fingerprint({**known, "kernel": "another"}) != first
    assert node.fingerprint({**known, "versions": {**known["versions"], "fio": "fio-99"}}) != first


def test_an_absent_tool_has_no_version() -> None:
    assert node.tool_version("no-such-tool") is None


def test_a_machine_is_known_by_its_id_and_its_cards_in_whatever_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "_NVIDIA", tmp_path)

    def known(machine: str, *cards: str) -> str | None:
        monkeypatch.setattr(node, "read", lambda path: machine if "machine-id" in str(path) else Path(path).read_text())
        for place in tmp_path.glob("gpus/*/information"):
            place.unlink()
        for number, card in enumerate(cards):
            place = tmp_path / f"gpus/0000:0{number}:00.0"
            place.mkdir(parents=True, exist_ok=True)
            (place / "information").write_text(f"Model: \t H100\nGPU UUID: \t {card}\n")
        return node.identity()

    assert known("m1", "GPU-a", "GPU-b") == known("m1\n", "GPU-b", "GPU-a")
    others = {known("m1", "GPU-a", "GPU-b"), known("m1", "GPU-a", "GPU-c"), known("m2", "GPU-a", "GPU-b"), known("m1")}
    assert len(others) == 4
    assert known("") is None
