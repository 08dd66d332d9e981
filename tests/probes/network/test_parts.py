"""The small pure parts: addresses, packets, streams, plans, counters, and the ranks of an all-reduce."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.judge.collective import Ranks, bus_bandwidths, late_rank, slow_port
from bench.judge.gate import status_of
from bench.measure.probe import Failed, TimedOut
from bench.model import Effort, Limit, Status
from probes.collective.load.rank import rounds
from probes.collective.parse import measurements, parse, stragglers
from probes.common.iperf3 import Datagrams, Flow
from probes.network import bandwidth
from probes.network import bandwidth as figures
from probes.network.plan import LOOPBACK_PLANS, PEER_PLANS, for_peers
from probes.network.probe import announcement
from probes.peer import datagram as echo_packet
from probes.peer import protocol as peer_protocol
from probes.peer.children import Refused, rank_argv
from probes.peer.link import answered
from probes.peer.protocol import Interface

# --- addresses and keys


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.2", ("10.0.0.2", 5201)),
        ("node-2.example.org:7000", ("node-2.example.org", 7000)),
        ("[fe80::1%eth0]:6000", ("fe80::1%eth0", 6000)),
        ("[::1]", ("::1", 5201)),
        ("fd00::2", ("fd00::2", 5201)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert peer_protocol.address(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":5201", "host:", "host:0", "host:65536", "host:port", "[::1]:x", "host:-1", "h:²"]
)
def test_no_addresses(text: str) -> None:
    if text == "host:":
        assert peer_protocol.address(text) == ("host", 5201)
        return
    with pytest.raises(ValueError, match="HOST"):
        peer_protocol.address(text)


def test_a_request_is_bound_to_its_nonce_and_key() -> None:
    line = peer_protocol.sign({"op": "lease"}, "n1", b"k" * 16)
    assert peer_protocol.verify(line, "n1", b"k" * 16) == {"op": "lease"}
    assert peer_protocol.verify(line, "n2", b"k" * 16) is None, "a replay"
    assert peer_protocol.verify(line, "n1", b"x" * 16) is None
    assert peer_protocol.verify(line.replace(b"lease", b"other"), "n1", b"k" * 16) is None
    assert peer_protocol.verify(b'{"op": "lease"}', "n1", b"k" * 16) is None
    digits = b"9" * 400
    assert peer_protocol.verify(b'{"op": "lease", "seconds": ' + digits + b"}", "n1", b"") is None, "no double holds it"


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    short = tmp_path / "key"
    short.write_text("secret\n")
    with pytest.raises(peer_protocol.UnusableKey, match="16 bytes"):
        peer_protocol.read_key(str(short))


@pytest.mark.parametrize(
    "hello",
    [None, [], "x", {"kind": 3}, {"kind": "bench-peer", "token": "1"}, {"kind": "bench-peer", "token": 1 << 64},
     {"kind": "bench-peer", "iperf3_port": 99999}, {"kind": "bench-peer", "max_bits_per_second": -1},
     {"kind": "iperf3", "udp": {"a": []}}, {"kind": "\x1b[2J", "error": "\x1b]0;x\x07\n"},
     {"kind": "peer_gone", "error": 1}],
)  # fmt: skip
def test_whatever_a_lease_says_is_an_answer_or_one_clean_line(hello: object) -> None:
    with pytest.raises(Failed) as caught:
        answered(json.dumps({"hello": hello}), "10.0.0.2")
    assert caught.value.reason.isprintable()


# --- packets

packets = st.builds(
    echo_packet.Packet,
    kind=st.sampled_from([echo_packet.REQUEST, echo_packet.REPLY]),
    token=st.integers(0, 2**64 - 1),
    run=st.integers(0, 2**32 - 1),
    sequence=st.integers(0, 2**32 - 1),
    received_at=st.integers(0, 2**62),
    sent_at=st.integers(0, 2**62),
    requests_seen=st.integers(0, 2**32 - 1),
    follow_ups=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 2**62)), max_size=3).map(tuple),
)


@given(packets, st.integers(echo_packet.SMALLEST, echo_packet.LARGEST), st.sampled_from([b"", b"key" * 8]))
def test_packets_there_and_back(packet: echo_packet.Packet, size: int, key: bytes) -> None:
    data = echo_packet.pack(packet, size, key)
    assert len(data) == size
    assert echo_packet.unpack(data, packet.kind, key) == packet
    assert echo_packet.unpack(data, 1 - packet.kind, key) is None
    assert echo_packet.unpack(data, packet.kind, b"another key" * 2) is None


@given(st.binary(max_size=1600))
def test_no_datagram_is_an_error(data: bytes) -> None:
    for key in (b"", b"k" * 16):
        for kind in (0, 1):
            echo_packet.unpack(data, kind, key)
            echo_packet.unpack(b"ABE1" + bytes([kind]) + data, kind, key)


# --- streams and plans


def test_one_stream_is_kept_when_it_fills_the_link() -> None:
    assert bandwidth.streams_next({}) == 1
    assert bandwidth.streams_next({1: [100.0]}) == 4
    assert bandwidth.streams_next({1: [100.0], 4: [102.0]}) == 1


def test_more_streams_as_needed_to_fill() -> None:
    assert bandwidth.streams_next({1: [100.0], 4: [350.0]}) == 8
    assert bandwidth.streams_next({1: [100.0], 4: [350.0], 8: [355.0]}) == 4
    assert bandwidth.streams_next({1: [100.0], 4: [350.0], 8: [500.0]}) == 8
    assert bandwidth.streams_settled({1: [100.0], 4: [350.0]}) == 4


def test_more_effort_is_more_time_and_never_less_of_anything() -> None:
    for plans in (PEER_PLANS, LOOPBACK_PLANS):
        for less, more in pairwise(plans[effort] for effort in Effort):
            assert less.seconds <= more.seconds
            assert less.idle_packets <= more.idle_packets and less.tcp_rounds <= more.tcp_rounds


def test_it_says_how_much_it_will_send() -> None:
    plan = PEER_PLANS[Effort.QUICK]
    assert plan.link_seconds == pytest.approx(8 + 2 * plan.load_seconds)
    assert f"{plan.link_seconds * 0.1 / 8:.1f} GB, at most 100 Mbit/s" in announcement(plan, 100e6, Interface())
    assert f"up to {plan.link_seconds * 100 / 8:.1f} GB" in announcement(
        plan, 0.0, Interface(bits_per_second=100_000_000_000)
    )
    assert "for each Gbit/s" in announcement(plan, 0.0, Interface())


def test_many_peers_get_a_plan_that_fits() -> None:
    assert for_peers(Effort.STANDARD, 1, 1000) is PEER_PLANS[Effort.STANDARD]
    assert for_peers(Effort.STANDARD, 8, 500) is PEER_PLANS[Effort.QUICK]


# --- figures


def flow(rate: float, cpu: float = 0.1, retransmits: int | None = 0) -> Flow:
    return Flow("send", rate, 2.0, retransmits, congestion="cubic", cpu_local=cpu)


def through(*flows: Flow, ceiling: float = 0.0) -> list[Any]:
    both = (*flows, *(Flow("receive", f.bytes_per_second, 2.0, 0) for f in flows))
    found = bandwidth.Bandwidth(both, {"send": 1, "receive": 1}, 1448)
    return [
        m for m in figures.throughput(found, {"peer": "p"}, ceiling, Interface()) if m.labels["direction"] == "send"
    ]


def test_a_core_that_is_full_is_named() -> None:
    assert "limited_by" not in through(flow(1e9), flow(1e9))[0].labels
    assert through(flow(1e9, cpu=0.99), flow(1e9, cpu=0.98), flow(1e9))[0].labels["limited_by"] == "cpu"


def held_back(**more: Any) -> Any:
    """30 Gbit/s over four streams, with one core's worth of work at this end."""
    flows = tuple(Flow(way, 3.75e9, 2.0, cpu_local=0.99, **more) for way in bandwidth.DIRECTIONS)
    return bandwidth.Bandwidth(flows, dict.fromkeys(bandwidth.DIRECTIONS, 4), 1448)


def test_what_a_cpu_held_back_is_a_lower_bound() -> None:
    """30 Gbit/s with a full core failed a limit of 50, although the link may carry 100."""
    asked = Limit(min=50e9 / 8)
    for interface, most in ((Interface("eth0", 1500, 100_000_000_000), 12.5e9), (Interface("eth0", 1500), 2e11)):
        found = figures.throughput(held_back(), {"peer": "p"}, 0.0, interface)[0]
        assert (found.value, found.interval) == (3.75e9, (3.75e9, most))
        assert status_of(found, asked) is Status.UNDECIDED
        assert status_of(found, Limit(min=25e9 / 8)) is Status.PASS
    slow = figures.throughput(held_back(), {"peer": "p"}, 0.0, Interface("eth0", 1500, 40_000_000_000))[0]
    assert status_of(slow, asked) is Status.FAIL, "its own link cannot carry what is asked"


def test_one_core_s_worth_of_many_threads_is_no_full_core() -> None:
    """iperf3 3.16 has a thread a stream: four at a quarter each were a full core, and no slow link would fail."""
    found = figures.throughput(held_back(threaded=True), {"peer": "p"}, 0.0, Interface())[0]
    assert "limited_by" not in found.labels and found.interval == (3.75e9, 3.75e9)
    assert figures.full(Flow("send", 1e9, 2.0, cpu_local=3.9, threaded=True), 4)
    assert figures.full(Flow("send", 1e9, 2.0, cpu_remote=0.97, threaded=True), 4)
    assert not figures.full(Flow("send", 1e9, 2.0, cpu_remote=2.0, threaded=True), 4)


def test_a_figure_at_the_ceiling_decides_nothing() -> None:
    assert through(flow(1.1e7), ceiling=100e6)[0].invalid.startswith("rate_ceiling: ")
    assert through(flow(0.5e7), ceiling=100e6)[0].invalid is None


def test_retransmits_are_a_share_of_all_segments() -> None:
    found = {m.metric: m for m in through(flow(1.448e6, retransmits=20), flow(1.448e6, retransmits=20))}
    assert found["network_retransmits"].value == 20
    assert found["network_retransmit_ratio"].value == pytest.approx(20 / 2000)
    assert len(through(flow(1e6, retransmits=None))) == 1, "what is not told is not zero"


def test_loss_in_the_receivers_own_socket_is_not_the_networks() -> None:
    results = [Datagrams("receive", 1000, 40, (1e-5,), 1e6), Datagrams("send", 1000, 1, (1e-5,), 1e6)]
    found = {
        (m.metric, m.labels["direction"]): m
        for m in figures.datagrams(results, {"peer": "p"}, {"receive": 40, "send": 0})
    }
    lost = found["network_loss_ratio", "receive"]
    assert lost.value == 0.04 and lost.interval[0] < 0.04 < lost.interval[1]
    assert (lost.invalid or "").startswith("receiver_socket: 40 ")
    assert found["network_loss_ratio", "send"].invalid is None


def test_a_link_is_measured_against_its_own_speed() -> None:
    rate = 100e9 / 8 * 1448 / 1538
    found = bandwidth.Bandwidth((flow(rate), Flow("receive", rate / 2, 2.0)), {"send": 1, "receive": 1}, 1448)
    shares = figures.utilization(found, Interface("eth0", 1500, 100_000_000_000), {})
    assert [m.value for m in shares] == pytest.approx([1.0, 0.5])
    assert figures.utilization(found, Interface("eth0", 1500), {}) == [], "a virtual device tells no speed"


def test_kernel_counters() -> None:
    text = "Ip: A B\nIp: 1 2\nUdp: InDatagrams RcvbufErrors\nUdp: 10 3\nUdpLite: InDatagrams\nUdpLite: 0\n"
    assert peer_protocol.counters(text, "Udp") == {"InDatagrams": 10, "RcvbufErrors": 3}
    assert peer_protocol.counters("Udp6InDatagrams \t7\nUdp6RcvbufErrors 2\n", "Udp6")["RcvbufErrors"] == 2
    assert peer_protocol.counters("", "Udp") == {}


# --- ranks


@pytest.mark.parametrize("world", range(2, 10))
def test_every_pair_meets_once_in_disjoint_rounds(world: int) -> None:
    plan = list(rounds(world))
    pairs = [frozenset(pair) for one in plan for pair in one]
    assert len(pairs) == len(set(pairs)) == world * (world - 1) // 2
    assert all(len({rank for pair in one for rank in pair}) == 2 * len(one) for one in plan)
    assert len(plan) == (world - 1 if world % 2 == 0 else world)


def ranks(seconds: list[list[float]], links: dict[tuple[int, int], float] | None = None) -> Ranks:
    lines = [json.dumps({"kind": "ranks", "names": ["this node", *(f"h{n}" for n in range(1, len(seconds)))]})]
    for rank, own in enumerate(seconds):
        came = {str(a): rate for (a, b), rate in (links or {}).items() if b == rank}
        lines.append(
            json.dumps({"kind": "times", "rank": rank, "backend": "gloo", "sizes": {"1048576": own}, "links": came})
        )
    return parse("\n".join(lines))


def mesh(slow: tuple[int, int] | None = None, world: int = 4) -> dict[tuple[int, int], float]:
    """All links carry 60 MB/s, but those of ``slow`` = (end, rank) a fifth of it."""
    pairs = [(a, b) for a in range(world) for b in range(world) if a != b]
    return {pair: 12e6 if slow and pair[slow[0]] == slow[1] else 60e6 for pair in pairs}


def test_bus_bandwidth_is_nccl_tests_own() -> None:
    """1 MiB in 10 ms by 4 ranks: algorithm bandwidth times 2 (n - 1) / n."""
    got = bus_bandwidths(ranks([[0.01] * 3] * 4), 1 << 20)
    assert got == pytest.approx([(1 << 20) / 0.01 * 1.5] * 3)


def test_the_straggler_is_the_one_that_waits_least() -> None:
    """Research D7: a rank that was stopped for 0.4 s saw 6.9 ms where the others saw 387."""
    found = ranks([[0.387] * 5, [0.387] * 5, [0.0069] * 5, [0.387] * 5])
    assert late_rank(found, 1 << 20) == 2
    (rank, cause, sentence), *_ = stragglers(found)
    assert (rank, cause) == (2, "late") and "rank 2 (h2)" in sentence
    assert late_rank(ranks([[0.4, 0.41], [0.4, 0.4], [0.39, 0.4]]), 1 << 20) is None


@pytest.mark.parametrize(("end", "way"), [(0, "send"), (1, "receive")])
def test_a_slow_port_is_told_from_a_slow_rank(end: int, way: str) -> None:
    found = ranks([[0.4] * 3] * 4, mesh((end, 2)))
    assert slow_port(found) == (2, way)
    (named,) = (m for m in measurements(found, {}) if m.metric == "collective_straggler_info")
    assert named.labels == {"rank": "2", "host": "h2", "cause": f"slow_{way}"}


def test_equals_have_no_straggler() -> None:
    found = ranks([[0.4] * 3] * 4, mesh())
    assert stragglers(found) == []
    assert len([m for m in measurements(found, {}) if m.metric == "collective_link_bytes_per_second"]) == 12


@pytest.mark.parametrize(
    "text",
    ["", "null", "{}", '{"kind": "ranks", "names": ["a", "b"]}', "[" * 9999,
     '{"kind": "ranks", "names": ["a"]}\n{"kind": "times", "rank": 0, "sizes": {"4": []}, "links": {}}'],
)  # fmt: skip
def test_damaged_rank_output_is_refused(text: str) -> None:
    with pytest.raises(Failed, match=r"^tool_output: "):
        parse(text)


def test_the_ranks_own_reason_is_kept() -> None:
    with pytest.raises(Failed, match=r"^peer_refused: nothing listens"):
        parse('{"kind": "error", "error": "peer_refused: nothing listens at h port 1"}')
    with pytest.raises(TimedOut, match=r"^peer_timed_out: "):
        parse('{"kind": "error", "error": "collective_failed: wait timeout after 60000ms"}')


def test_a_peer_starts_only_the_ranks_that_it_knows() -> None:
    good = {"rank": 1, "world": 2, "port": 9, "iterations": 3, "device": "cpu", "sizes": "4,8", "master": "10.0.0.1"}
    assert "probes.collective.load.rank" in rank_argv(good)
    for name, value in (("rank", 0), ("world", 1), ("port", "9"), ("sizes", "4;ls"), ("sizes", "99999999999999"),
                        ("device", "tpu"), ("master", "evil.example"), ("iterations", 1e9)):  # fmt: skip
        with pytest.raises(Refused):
            rank_argv({**good, name: value})
