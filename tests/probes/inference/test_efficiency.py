"""Ratios of the load to its ceilings, the cards of a node beside each other, and what voids them."""

from __future__ import annotations

from typing import Any

import pytest

from bench.model import Measurement
from probes.inference import parse as parsing
from probes.inference import probe as inference
from tests.probes.inference.test_parse import CPU, QUIET, Line, one, parse, request, serve, typed

H200 = {"event": "device", "kind": "cuda", "index": 0, "shape": "8b", "name": "NVIDIA H200"}


def window(stage: str, number: int, seconds: float = 1.0, steps: int = 1, **fields: Any) -> Line:
    base = {"event": "window", "stage": stage, "round": number, "seconds": seconds, "steps": steps}
    return {**base, "busy_seconds": 0.99 * seconds, "step_seconds": [seconds / steps] * steps, **QUIET, **fields}


def drifting() -> list[Line]:
    """A host whose speed doubles from round to round: every ratio of one round stays what it is."""
    events: list[Line] = [H200]
    for number, speed in enumerate((1.0, 2.0, 4.0)):
        events += [
            window("matmul", number, 1 / speed, flops=700e12),
            window("copy", number, 1 / speed, bytes=4.0e12),
            window("prefill", number, 1 / speed, batch=8, tokens=16384, flops=420e12),
            window("decode", number, 1 / speed, batch=1, tokens=1, bytes=3.2e12),
        ]
    return events


def test_utilization_is_a_ratio_within_each_round_so_drift_falls_out() -> None:
    found = parse(drifting())
    mbu, mfu = one(found, "inference_bandwidth_utilization_ratio"), one(found, "inference_flops_utilization_ratio")
    assert mbu.value == pytest.approx(0.8) and mbu.interval == pytest.approx((0.8, 0.8))
    assert mfu.value == pytest.approx(0.6) and mfu.repeats == pytest.approx((0.6, 0.6, 0.6))
    assert one(found, "inference_tokens_per_second", stage="decode").interval[0] < 2.0


def test_a_ceiling_is_held_against_the_data_sheet_and_the_limit() -> None:
    found = parse([H200, window("matmul", 0, flops=791.2e12), window("copy", 0, bytes=2.4e12)])
    assert one(found, "accelerator_datasheet_ratio", quantity="matmul").value == pytest.approx(0.8)
    assert one(found, "accelerator_datasheet_ratio", quantity="copy").value == pytest.approx(0.5)
    assert one(found, "accelerator_expectation_ratio", quantity="matmul").value > 1.0
    assert one(found, "accelerator_expectation_ratio", quantity="copy").value < 1.0  # a sick card


def test_an_unknown_card_has_no_data_sheet_rather_than_a_guessed_one() -> None:
    found = parse([{**H200, "name": "Mystery 9000"}, window("matmul", 0, flops=1e12)])
    assert not [m for m in found if m.metric in ("accelerator_datasheet_ratio", "accelerator_expectation_ratio")]


def test_joules_a_token_need_windows_longer_than_the_counters_step() -> None:
    def joules(seconds: float) -> list[Measurement]:
        windows = [window("decode", i, seconds, 100, batch=1, tokens=1, bytes=1, joules=600 * seconds) for i in (0, 1)]
        return [m for m in parse([H200, *windows]) if m.metric == "inference_token_joules"]

    assert joules(0.3) == []
    assert joules(2.0)[0].value == pytest.approx(12.0)
    assert [m for m in parse(drifting()) if m.metric == "inference_token_joules"] == []


def test_a_large_batch_is_no_users_waiting() -> None:
    found = parse([H200, window("decode", 0, 1.0, 100, batch=256, tokens=256, bytes=1)])
    assert not [m for m in found if m.metric == "inference_inter_token_seconds"]
    found = parse([H200, window("prefill", 0, 1.0, 100, batch=8, tokens=16384, flops=1)])
    assert not [m for m in found if m.metric == "inference_first_token_seconds"]


def test_other_programs_on_the_card_void_every_figure() -> None:
    found = parse([{**H200, "foreign_processes": 2}, *drifting()[1:]])
    assert found and all(m.invalid == "contended: 2 other programs use this GPU" for m in found)
    assert all(m.invalid is None for m in parse([{**H200, "foreign_processes": 0}, *drifting()[1:]]))


def searched(**fields: Any) -> list[Measurement]:
    requests = [request(i, i * 0.1, [i * 0.1 + 0.05, i * 0.1 + 0.06, i * 0.1 + 0.07]) for i in range(50)]
    search = {"event": "search", "best": 8.0, "failed": 11.0, "share": 0.9, "trials": 4, **fields}
    return [m for m in parse([*serve(requests), search]) if m.metric == "inference_sustained_requests_per_second"]


def test_the_sustained_rate_reaches_from_the_last_kept_to_the_first_broken() -> None:
    (rate,) = searched()
    assert (rate.value, rate.interval, rate.samples, rate.invalid) == (8.0, (8.0, 11.0), 4, None)
    assert rate.labels["share"] == "0.9" and rate.labels["first_token_limit_seconds"] == "0.2"


def test_a_search_that_never_failed_or_never_passed_claims_nothing() -> None:
    (rate,) = searched(failed=None)
    assert rate.invalid is not None and rate.invalid.startswith("search_unfinished: ")
    assert searched(best=None) == []


# --- several cards


def parse_node(lines: list[Line]) -> list[Measurement]:
    return parsing.parse_node(typed(lines))


def cards(rates: dict[str, tuple[float, float]], **fields: Any) -> list[Line]:
    """By device: seconds of one matrix product alone and together."""
    events: list[Line] = [
        {"event": "node", "kind": "cuda", "devices": len(rates), "names": ["NVIDIA H200"] * len(rates)}
    ]
    for number in range(3):
        for device, (alone, together) in rates.items():
            for phase, seconds in (("alone", alone), ("together", together)):
                step = window("matmul", number, seconds, flops=712e12, phase=phase, device=device, **fields)
                events.append(step)
    return events


def test_the_slowest_card_is_held_against_the_median() -> None:
    found = parse_node(cards({"0": (1.0, 1.0), "1": (1.0, 1.25), "2": (1.25, 1.25)}))
    assert one(found, "accelerator_spread_ratio", stage="alone").value == pytest.approx(0.8)
    assert one(found, "accelerator_spread_ratio", stage="together").value == pytest.approx(1.0)
    assert one(found, "accelerator_together_ratio", device="1").value == pytest.approx(0.8)
    assert one(found, "accelerator_together_ratio", device="0").value == pytest.approx(1.0)
    assert one(found, "accelerator_expectation_ratio", device="2").value == pytest.approx(0.8)
    assert not any("stand_in" in m.labels for m in found)


def test_a_card_lost_on_the_way_leaves_the_others() -> None:
    events = [e for e in cards({"0": (1.0, 1.0), "1": (1.0, 1.0)}) if e.get("device") != "1" or e["round"] == 0]
    found = parse_node(events)
    assert one(found, "accelerator_matmul_flops_per_second", device="0", stage="alone").samples == 3
    assert one(found, "accelerator_matmul_flops_per_second", device="1", stage="alone").samples == 1
    assert one(found, "accelerator_spread_ratio", stage="alone").samples == 1


def test_one_card_has_no_spread_and_no_together() -> None:
    found = parse_node(cards({"0": (1.0, 1.0)}))
    assert not [m for m in found if m.metric in ("accelerator_spread_ratio", "accelerator_together_ratio")]


def test_copies_between_cards_are_told_by_both_ends() -> None:
    steps = [window("device_to_device", 0, 1.0, bytes=4e10 * k, phase="alone", device="0", peer=str(k)) for k in (1, 2)]
    steps[1]["transport"] = "nvlink"
    found = parse_node([{"event": "node", "kind": "cuda", "names": []}, *steps])
    assert one(found, "accelerator_device_to_device_bytes_per_second", device="0", peer="2").value == 8e10
    assert [m.labels["transport"] for m in found] == ["unknown", "nvlink"]


def test_cpu_workers_stand_in_and_every_figure_is_declared() -> None:
    events = [{"event": "node", "kind": "cpu", "names": []}, *cards({"0": (1.0, 1.0), "1": (1.0, 1.1)})[1:]]
    found = parse_node([*events, window("decode", 0, batch=1, tokens=1, shape="nano", phase="alone", device="0")])
    declared = {metric.name: metric for metric in inference.PROBE.metrics}
    assert found
    for m in found:
        assert m.labels["stand_in"] == "cpu"
        assert set(m.labels) <= {*declared[m.metric].labels}, m
    assert CPU["stand_in"] == "cpu"
