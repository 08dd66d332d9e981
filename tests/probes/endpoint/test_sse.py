"""The parser of server-sent events and of deltas against texts that peers' parsers get wrong."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.endpoint.load.deltas import Delta, Garbled, delta
from probes.endpoint.load.sse import Events, TooLong


def parsed(*reads: bytes) -> list[bytes]:
    events = Events()
    return [event for read in reads for event in events.feed(read)] + events.end()


@pytest.mark.parametrize(
    ("reads", "events"),
    [
        ([b"data: a\n\ndata: b\n\n"], [b"a", b"b"]),  # several events a read
        ([b"data:a\n\n"], [b"a"]),  # no space
        ([b"data: a\r\n\r\ndata: b\r\n\r\n"], [b"a", b"b"]),
        ([b"data: a\r", b"\n\r", b"\ndata: b\r\n\r\n"], [b"a", b"b"]),  # CRLF across reads
        ([b"data: a\r\rdata: b\r\r"], [b"a", b"b"]),
        ([b": ping\n\n: ping\n\ndata: a\n\n: ping\n\n"], [b"a"]),
        ([b"event: message\nid: 7\nretry: 3\ndata: a\n\n"], [b"a"]),
        ([b"data: a\ndata: b\n\n"], [b"a\nb"]),
        ([b"\xef\xbb\xbfdata: a\n\n"], [b"a"]),
        ([b"data: \xe6", b"\xa8\xa1\n\n"], ["模".encode()]),  # a character across reads
        ([b"data: a\n\ndata: [DONE]"], [b"a", b"[DONE]"]),  # the last blank line is missing
        ([b"data: a\n"], [b"a"]),
        ([b""], []),
        ([b"data\n\n"], [b""]),
    ],
)
def test_each_event_is_found_once(reads: list[bytes], events: list[bytes]) -> None:
    assert parsed(*reads) == events


@given(
    st.lists(st.binary(max_size=20).filter(lambda b: not set(b) & set(b"\r\n")), min_size=1, max_size=8),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_where_the_reads_are_cut_changes_nothing(events: list[bytes], end: bytes, cuts: list[int]) -> None:
    text = b"".join(b"data: " + event + end + end for event in events)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert parsed(*(text[a:b] for a, b in pairwise(edges))) == events


def test_an_event_of_ten_megabytes_is_refused_long_before_it_ends() -> None:
    events, taken = Events(), 0
    with pytest.raises(TooLong):
        for _ in range(160):
            taken += 1
            events.feed(b"x" * 65536 if taken > 1 else b"data: ")
    assert taken < 20
    with pytest.raises(TooLong):
        parsed(*[b"data: " + b"x" * 1000 + b"\n"] * 2000)  # one event of many lines


def said(**fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (said(choices=[{"delta": {"role": "assistant"}}]), False),
        (said(choices=[{"delta": {"role": "assistant", "content": None}}]), False),
        (said(choices=[{"delta": {"content": ""}}]), False),
        (said(choices=[], usage={"completion_tokens": 3}), False),
        (said(choices=[{"delta": {"content": "a"}}]), True),
        (said(choices=[{"delta": {"content": None, "reasoning_content": "a"}}]), True),
        (said(choices=[{"delta": {"reasoning": "a"}}]), True),
        (said(choices=[{"delta": {"tool_calls": [{"index": 0}]}}]), True),
        (said(choices=[{"text": "a"}]), True),
        (said(choices=[{"text": "", "finish_reason": "stop"}]), False),
        (said(choices=[{"delta": None}]), False),
    ],
)
def test_only_what_carries_content_is_a_token(data: bytes, content: bool) -> None:
    assert delta(data).content is content


def test_usage_finish_and_errors_are_read() -> None:
    usage = {"completion_tokens": 5, "prompt_tokens": 9}
    last = delta(said(choices=[{"delta": {}, "finish_reason": "length"}], usage=usage))
    assert last == Delta(finished=True, completion=5, prompt=9)
    assert delta(said(error={"message": "out of memory"})).error == "out of memory"
    assert delta(said(error="busy")).error == "busy"
    assert delta(said(choices=[{"delta": {}}], usage={"completion_tokens": True})).completion is None


@pytest.mark.parametrize("data", [b"{", b"[]", b"3", b"null", b"\xff", b"{}", b"[" * 100_000])
def test_what_is_no_event_of_the_protocol_is_garbled(data: bytes) -> None:
    with pytest.raises(Garbled):
        delta(data)
