"""A device that computes wrong is caught, whatever it does wrong, and the card is named."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch

from bench.model import Measurement
from probes.inference import probe as inference
from probes.inference.events import Checked, DeviceFacts, NodeFacts, read
from probes.inference.load import multi_gpu
from probes.inference.load.device import Device
from probes.inference.load.multi_gpu import Assignment, main, work
from probes.inference.load.soak import correlation, soak
from probes.inference.parse import MISMATCHED, parse, parse_node
from tests.probes.inference.test_parse import CPU, Line, NodeTools, Tools, context, decode

MATMUL = torch.matmul
DEVICE = Device("cpu", "cpu", torch.float32, {})


class Wrong:
    """torch, but the products whose numbers are given (all, for none) have one value that is wrong."""

    def __init__(self, *products: int) -> None:
        self.products, self.made = products, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        found = MATMUL(a, b, out=out)
        if not self.products or self.made in self.products:
            found[5, 7] += 1
        self.made += 1
        return found


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight products of each kind: a second each."""
    monkeypatch.setattr("probes.inference.load.soak.time.monotonic", iter(range(1000)).__next__)


def values(found: dict[str, Any]) -> tuple[int, int, int]:
    return found["products"], found["wrong"], found["mismatches"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sound_device_gives_the_known_answer_bit_for_bit(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.inference.load.soak.MATRIX", {"cpu": 192})
    device = Device("cpu", "cpu", dtype, {})
    found = soak(torch, device, 8.0, seed=7)
    assert values(found) == (8, 0, 0)
    assert soak(torch, device, 3.0, seed=7)["digest"] == found["digest"] != soak(torch, device, 3.0, seed=8)["digest"]


def test_the_known_answer_is_a_correlation_in_whole_numbers() -> None:
    a, b = torch.tensor([1, -1, 0, 2, 1]), torch.tensor([0, 3, 1, -1, 1])
    by_hand = [sum(int(a[(s + m) % 5]) * int(b[m]) for m in range(5)) for s in range(5)]
    assert correlation(torch, a, b).tolist() == by_hand


@pytest.mark.parametrize(
    ("wrong", "told"),
    [((9,), (8, 1, 0)), ((10,), (8, 0, 1)), ((0,), (8, 0, 8)), ((1, 2, 3, 4), (8, 2, 2)), ((), (8, 8, 0))],
)
def test_one_wrong_value_is_counted(wrong: tuple[int, ...], told: tuple[int, int, int]) -> None:
    """Once in seventeen products of one kind or the other, or in the first that the others are held against. A device
    that is wrong the same way each time gives equal bits, which was called sound.
    """
    sound = soak(torch, DEVICE, 8.0, seed=7)
    found = soak(Wrong(*wrong), DEVICE, 8.0, seed=7)
    assert values(found) == told
    assert (found["digest"] == sound["digest"]) is (0 not in wrong and wrong != ())


def told(found: Sequence[Measurement], by: str, **labels: str) -> dict[str, float]:
    named = [m for m in found if m.metric == MISMATCHED and labels.items() <= m.labels.items()]
    return {m.labels[by]: m.value for m in named}


def test_what_one_card_computed_is_told_by_what_it_was_held_against() -> None:
    card = DeviceFacts("cuda", 0, "8b", "NVIDIA H200")
    found = parse([card, Checked(8, 4, 3, "aa")])
    assert told(found, "against") == {"first": 4.0, "answer": 3.0}
    assert {m.samples for m in found} == {8}
    assert told(parse([card, Checked(8, 4)]), "against") == {"first": 4.0}, "of a run before there was an answer"


H200, B200 = "NVIDIA H200", "NVIDIA B200"


@pytest.mark.parametrize(
    ("names", "digests", "differ"),
    [
        ((H200,) * 4, "aaba", {"0": 0, "1": 0, "2": 1, "3": 0}),
        ((H200,) * 2, "ab", {"0": 1, "1": 1}),  # one of them is wrong, and nobody knows which
        ((H200, H200, B200, B200), "aabb", {"0": 0, "1": 0, "2": 0, "3": 0}),
        ((H200, H200, B200), "aab", {"0": 0, "1": 0}),  # one of its kind has nobody to be held against
    ],
)
def test_cards_of_one_kind_are_held_against_each_other(
    names: tuple[str, ...], digests: str, differ: dict[str, float]
) -> None:
    checks = [Checked(8, 0, 0, digest, str(card)) for card, digest in enumerate(digests)]
    found = parse_node([NodeFacts("cuda", names), *checks])
    assert told(found, "device", against="cards") == differ
    assert set(told(found, "device", against="answer").values()) == {0.0}


def test_a_card_that_is_known_to_compute_wrong_has_no_say() -> None:
    checks = [Checked(8, 0, 0, "a", "0"), Checked(8, 0, 9, "b", "1"), Checked(8, 0, 9, "b", "2")]
    found = parse_node([NodeFacts("cuda", (H200,) * 3), *checks])
    assert told(found, "device", against="cards") == {"0": 0.0, "1": 1.0, "2": 1.0}


def sick_work(pipe: Connection, mine: Assignment) -> None:
    """A worker whose card 1 has one sick multiplier: the same value is wrong each time."""
    if mine.index == 1:
        torch.matmul = Wrong().matmul
    work(pipe, mine)


@pytest.mark.slow
def test_the_sick_card_of_a_node_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(multi_gpu, "work", sick_work)
    words = ["--accelerator", "cpu", "--workers", "3", "--seconds", "1.5", "--soak", "0.5"]
    assert main(words) == 0
    found = parse_node(read(capsys.readouterr().out))
    assert told(found, "device", against="cards") == {"0": 0.0, "1": 1.0, "2": 0.0}
    answers = told(found, "device", against="answer")
    assert answers["1"] > 0 and answers["0"] == answers["2"] == 0.0


def test_a_warning_names_the_card_and_what_is_wrong() -> None:
    checks: list[Line] = [
        {
            "event": "checked",
            "products": 8,
            "mismatches": 0,
            "wrong": 2 * (card == 1),
            "digest": "a",
            "device": str(card),
        }
        for card in range(2)
    ]
    ctx = context(NodeTools([{"event": "node", "kind": "cuda", "names": [H200, H200]}, *checks, {"event": "done"}]))
    assert inference.measure(ctx)
    (warning,) = (text for text in ctx.warnings if "computes wrong" in text)
    assert warning.startswith("accelerator 1 computes wrong: 2 values of products with a known answer")


def test_a_sound_device_is_no_warning() -> None:
    checked: Line = {"event": "checked", "products": 8, "mismatches": 0, "wrong": 0, "digest": "a"}
    ctx = context(Tools([CPU, *decode([10])[1:], checked, {"event": "done"}]))
    assert inference.measure(ctx) and not any("wrong" in text for text in ctx.warnings)
