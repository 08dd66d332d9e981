"""What the load program says, torn, mistyped or absurd: one line of the tool's own fault, never another exception."""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import pytest

from bench.measure.probe import Failed, ProbeError
from probes.feed.load import main as feed_main
from probes.feed.load.main import main
from probes.feed.parse import parse, parse_pattern
from probes.feed.plan import Row, Spec
from tests.probes.feed.conftest import BATCH, DEMAND, SAMPLE

ABSURD: list[Any] = [0, -1, 1e308, -1e308, 1e-320, [], {}, None, "x", True, 10**18, [1], [[1, 2]], [0.0] * 4]
SPEC = Spec(
    folder="/", accelerator="emulated", sample_bytes=SAMPLE, samples_per_file=1, batch=BATCH, demand=DEMAND,
    data_bytes=1 << 20, layout_seconds=1.0, deadline_seconds=5.0, bucket=(2.0 * DEMAND * SAMPLE, 0.0),
    schedule=tuple(Row(arm, 1, 0.1, 0.3, 0.3) for arm in ("transfer", "preprocess", "fetch", "storage")),
)  # fmt: skip


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What the load program says of a short feed from a software rate."""
    assert main([SPEC.model_dump_json()]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [("ready", "batch", "many"), ("ready", "sample_bytes", None), ("arm", "curve", [1, "2"]), ("arm", "turn", 1.5),
     ("arm", "device_curve", [[1]]), ("end", "kind", "finish")],
)  # fmt: skip
def test_a_field_of_another_type_is_named_with_its_line(said: str, kind: str, field: str, value: Any) -> None:
    lines = [json.loads(line) for line in said.splitlines()]
    number, broken = next((at, line) for at, line in enumerate(lines, 1) if line["kind"] == kind)
    broken[field] = value
    with pytest.raises(Failed, match=rf"^tool_output: line {number} of the feed's load program.*{field}"):
        parse("\n".join(map(json.dumps, lines)), "/data", "")


@pytest.mark.parametrize(
    ("said_by_torch", "word"),
    [("CUDA out of memory. Tried to allocate 2 GiB\nsee the manual", "accelerator_memory"),
     ("CUDA error: an illegal memory access was encountered", "accelerator_failed")],
)  # fmt: skip
def test_what_a_card_refuses_is_named(
    said_by_torch: str, word: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read as "ended before it had measured"."""

    def refuse(_: Spec) -> None:
        raise RuntimeError(said_by_torch)

    monkeypatch.setattr(feed_main, "Program", refuse)
    monkeypatch.setattr("os._exit", lambda _: None)
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert main([SPEC.model_dump_json()]) == 0
    with pytest.raises(Failed, match=f"^{word}: RuntimeError: {said_by_torch[:12]}") as caught:
        parse(capsys.readouterr().out, "/data", "")
    assert "nvidia-smi" in (caught.value.remedy or "")


def test_an_answer_that_was_cut_off_is_none(said: str) -> None:
    for text in ("", "\n".join(said.splitlines()[:-1]), "\n".join(said.splitlines()[1:])):
        with pytest.raises(Failed, match="ended before it had measured"):
            parse(text, "/data", "")
    with pytest.raises(Failed, match=r"^tool_output"):
        parse(said[:-9], "/data", "")


def test_no_absurd_answer_raises_anything_but_a_probes_error(said: str) -> None:
    rng = random.Random(1)
    kv = {"kind": "kv", "turn": 1, "model": "m", "state": "idle", "block_bytes": 1, "latencies": [0.1, 0.2],
          "seconds": 1.0, "bytes": 10, "device_bytes": 10}  # fmt: skip
    pattern = "\n".join(map(json.dumps, [{"kind": "ready", "accelerator": "cpu"}, kv, {"kind": "end"}]))
    for text, parser in ((said, parse), (pattern, parse_pattern)):
        for _ in range(300):
            lines = [json.loads(line) for line in text.splitlines()]
            for _ in range(rng.randint(1, 3)):
                broken = rng.choice(lines)
                broken[rng.choice(list(broken))] = rng.choice(ABSURD)
            try:
                parser("\n".join(map(json.dumps, lines)), "/data", "")
            except ProbeError as error:
                assert "\n" not in error.reason
