"""Against a server that nobody here wrote: llama.cpp's, from its wheel, on random weights that the test writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.model import Measurement
from probes.common.pipe import of
from probes.endpoint.parse import parse
from probes.endpoint.records import Opened
from tests.forks import serving
from tests.probes.endpoint.harness import loaded

pytestmark = pytest.mark.slow


def test_llama_cpp_is_measured_whole(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    with serving("tests.probes.endpoint.tiny_llama", str(file), quiet=True) as port:
        assert file.stat().st_size < 600_000
        load = loaded(f"http://127.0.0.1:{port}", enough=60, rate=10.0, seconds=12.0)
    assert load.refused is None and load.returncode == 0, load.stderr
    (how,) = of(load.records, Opened)
    assert how.api == "chat" and "include_usage" in how.extras and how.words_a_token
    assert len(load.held) >= 20 and {answer.code for answer in load.held} == {None}
    assert {answer.token_count for answer in load.held} == {8}, "ignore_eos is taken"
    assert {answer.counted for answer in load.held} == {"usage"}
    prompts = {answer.prompt for answer in load.held if answer.prompt}
    assert prompts and min(prompts) >= 8 and max(prompts) <= 32, "16 tokens were asked for"
    found = parse(load.records, "here")
    named: dict[str, Measurement] = {m.metric: m for m in found}
    assert named["endpoint_success_ratio"].counts == (len(load.held),) * 2
    assert named["inference_tokens_per_second"].labels["counted"] == "usage"
    assert all(answer.first_token and answer.first_byte for answer in load.held)
    role_first = [a for a in load.held if a.first_byte and a.chunks and a.first_byte <= a.chunks[0]]
    assert len(role_first) == len(load.held)
