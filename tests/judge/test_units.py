"""Base units for files, human ones for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.model import UNITS, unit_of
from bench.units import human
from tests.judge.make import bounded


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (1.1e9, "storage_read_bytes_per_second", "1.1 GB/s"),
        (2147483648, "storage_read_bytes_per_second", "2.15 GB/s"),
        (999.6e6, "model_bytes", "1 GB"),
        (104.4, "model_bytes", "104 B"),
        (0.0123, "network_round_trip_seconds", "12.3 ms"),
        (3.4e-6, "network_round_trip_seconds", "3.4 µs"),
        (0.0009996, "network_round_trip_seconds", "1 ms"),
        (90.0, "load_seconds", "90 s"),
        (0.0, "load_seconds", "0 s"),
        (0.663, "starvation_ratio", "66.3 %"),
        (-0.01, "starvation_ratio", "-1 %"),
        (12345.0, "inference_tokens_per_second", "12,345 tokens/s"),
        (769e12, "accelerator_flops_per_second", "769 TFLOP/s"),
        (1.98e9, "accelerator_clock_hertz", "1.98 GHz"),
        (65.25, "accelerator_celsius", "65.2 °C"),
        (0.05, "network_spike_rate_upper_bound_per_second", "0.05 /s"),
        (3.0, "network_retransmits", "3"),
        (1234567.0, "network_retransmits", "1,234,567"),
    ],
)
def test_as_people_write_it(value: float, metric: str, text: str) -> None:
    assert human(value, metric) == text


def test_fewer_digits() -> None:
    assert human(0.663, "starvation_ratio", 2) == "66 %"
    assert human(3.18e9, "demand_bytes_per_second", 2) == "3.2 GB/s"


@bounded
@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([*UNITS, "retransmits"]))
def test_every_number_of_every_unit_has_a_short_text(value: float, unit: str) -> None:
    text = human(value, f"thing_{unit}")
    assert text.strip() and "\n" not in text and len(text) < 60


@bounded
@given(st.floats(1e-9, 1e15), st.sampled_from(["bytes", "seconds", "bytes_per_second", "hertz"]))
def test_the_text_means_the_number(value: float, unit: str) -> None:
    number, suffix = human(value, f"thing_{unit}").split()
    scale = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "m": 1e-3, "µ": 1e-6, "n": 1e-9}
    factor = scale.get(suffix[0], 1.0) if suffix not in ("s", "B", "B/s", "Hz") else 1.0
    assert float(number.replace(",", "")) * factor == pytest.approx(value, rel=0.0051)


def test_the_longest_unit_is_meant() -> None:
    assert unit_of("a_bytes_per_second") == "bytes_per_second"
    assert unit_of("a_spike_rate_per_second") == "per_second"
    assert unit_of("network_retransmits") == ""
