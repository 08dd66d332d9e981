"""Published workloads by name, and what is said about names that are not published."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.measure.probe import Unsupported
from probes.feed.load.reader import ReadyBlock
from probes.feed.load.torch_accelerator import TorchCuda
from probes.feed.workloads import catalogue, emulated_names, resolve


def test_resnet50_on_an_h100_demands_what_mlperf_published() -> None:
    work = resolve("emulated:resnet50-h100").workload
    assert work.demand_samples_per_second == pytest.approx(400 / 0.224)
    assert work.demand_samples_per_second * work.sample_bytes == pytest.approx(0.2047e9, rel=1e-3)  # type: ignore[operator]


def test_n_accelerators_demand_n_times_as_much() -> None:
    one, eight = resolve("emulated:unet3d-b200").workload, resolve("emulated:unet3d-b200*8").workload
    assert eight.demand_samples_per_second == pytest.approx(8 * one.demand_samples_per_second)  # type: ignore[operator]
    assert resolve("emulated:unet3d-b200*8").label == "unet3d-b200*8"


def test_a_sample_costs_a_real_accelerator_what_its_published_steps_say() -> None:
    """Of every sample, 146 MB of a 3D U-Net, one image of 150 kB was copied and trained: demand was 400 GB/s."""
    costs = {name: resolve("cuda", name).workload.images for name in ("resnet50", "cosmoflow", "unet3d", "dlrm")}
    assert costs == {"resnet50": 1, "cosmoflow": 6, "unet3d": 82, "dlrm": 1}


def test_a_batch_is_copied_to_the_card_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousandth of a large sample went over PCIe, and what the transfer costs was not to be seen."""
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    card = TorchCuda.__new__(TorchCuda)
    card._slots, card._turn = [torch.zeros(2 * 400_000, dtype=torch.uint8) for _ in range(2)], 0
    card._copies = SimpleNamespace(synchronize=lambda: None)
    pieces = [bytearray([n]) * 400_000 for n in (1, 2)]
    card._pending = [ReadyBlock(0.0, 1.0, len(piece), memoryview(piece)) for piece in pieces]
    assert bytes(card._gather().numpy()) == b"".join(pieces)


def test_a_card_may_have_its_own_batch_and_sample() -> None:
    work = resolve("emulated:retinanet-h100").workload
    assert (work.batch, work.sample_bytes) == (16, 153_600)
    assert work.estimate


@pytest.mark.parametrize("name", emulated_names())
def test_every_published_workload_has_a_source_and_a_demand(name: str) -> None:
    work = resolve(f"emulated:{name}").workload
    assert work.source and work.demand_samples_per_second and work.minimum_utilization


def test_bare_emulated_is_resnet50_on_an_h100_and_auto_has_no_step() -> None:
    assert resolve("emulated").label == "resnet50-h100"
    assert resolve("auto").workload.step_seconds is None


@pytest.mark.parametrize(
    ("name", "near"),
    [("emulated:resnet50-h10", "resnet50-h100"), ("emulated:resnet", "resnet50"), ("gpu", "known are")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(Unsupported) as caught:
        resolve(name)
    assert near in caught.value.reason + (caught.value.remedy or "")


@pytest.mark.parametrize("name", ["emulated:resnet50-h100*0", "emulated:resnet50-h100*", "emulated:", "emulated:a b"])
def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(Unsupported):
        resolve(name)


def test_a_file_of_the_same_form_may_take_their_place(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[mine]\nsample_bytes = 1000\nbatch = 10\n[mine.cards.x]\nstep_seconds = 0.01\n")
    assert resolve("emulated:mine-x", str(file)).workload.demand_samples_per_second == pytest.approx(1000.0)


@pytest.mark.parametrize("text", ["not toml", "[mine]\nbatch = 3\n", "mine = 3\n"])
def test_a_useless_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(Unsupported, match=r"own\.toml"):
        catalogue(file)
