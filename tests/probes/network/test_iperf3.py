"""iperf3's JSON, as real programs of four versions wrote it over a link shaped to 100 Mbit/s, and as none should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench.measure.probe import Failed, ProbeError
from bench.model import Code, Measurement
from probes.common import iperf3
from probes.network import bandwidth
from probes.peer.options import bits
from probes.peer.protocol import Interface

RECORDED = sorted((Path(__file__).parents[2] / "recorded").glob("iperf3-*"), key=lambda p: p.name)
SERVER = iperf3.Iperf3Server("10.9.0.2", 5201)
#: Of every frame that tbf counts (Ethernet's 14 bytes on top of the MTU), TCP with time stamps carries 1448 bytes.
TCP_BYTES_PER_SECOND = 100e6 / 8 * 1448 / 1514

versions = pytest.mark.parametrize("folder", RECORDED, ids=lambda p: p.name)


def read(folder: Path, name: str) -> iperf3.Document:
    stderr = folder / f"{name}.stderr"
    said = stderr.read_text() if stderr.exists() else ""
    return iperf3.document((folder / f"{name}.json").read_text(), SERVER, said)


def test_four_versions_are_recorded() -> None:
    assert [folder.name for folder in RECORDED] == ["iperf3-3.12", "iperf3-3.18", "iperf3-3.22", "iperf3-3.9"]


@versions
@pytest.mark.parametrize("direction", ["send", "receive"])
def test_throughput_is_what_the_link_can_carry(folder: Path, direction: str) -> None:
    (flow,) = iperf3.tcp_flows(read(folder, f"tcp-{direction}"), direction)
    assert flow.bytes_per_second == pytest.approx(TCP_BYTES_PER_SECOND, rel=0.01)
    assert (flow.direction, flow.congestion) == (direction, "cubic")
    assert flow.retransmits is not None


@versions
def test_both_directions_are_told_apart(folder: Path) -> None:
    flows = iperf3.tcp_flows(read(folder, "tcp-both"), "both")
    assert [flow.direction for flow in flows] == ["send", "receive"]
    assert flows[0].bytes_per_second != flows[1].bytes_per_second
    assert all(0.9 < flow.bytes_per_second / TCP_BYTES_PER_SECOND < 1.0 for flow in flows)


@versions
@pytest.mark.parametrize("direction", ["send", "receive"])
def test_udp_is_read_at_its_receiver(folder: Path, direction: str) -> None:
    got = iperf3.udp_datagrams(read(folder, f"udp-{direction}"), direction)
    assert got.lost == 0
    assert got.packets == pytest.approx(10e6 * 2 / 8 / 1400, rel=0.03)
    assert got.bytes_per_second == pytest.approx(10e6 / 8, rel=0.03)
    assert all(0 < jitter < 0.001 for jitter in got.jitter_seconds)
    assert len(got.jitter_seconds) == (3 if direction == "receive" else 1)


@versions
def test_more_than_the_link_carries_does_not_arrive(folder: Path) -> None:
    """The sender's figure would be a lie: what was received is no more than the link."""
    got = iperf3.udp_datagrams(read(folder, "udp-overload"), "send")
    assert got.bytes_per_second < 1.01 * 100e6 / 8 * 1400 / 1442


@versions
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("error-busy", Code.PEER_BUSY),
        ("error-refused", Code.PEER_REFUSED),
        ("error-congestion", Code.CONGESTION_CONTROL),
        ("error-socket-buffer", Code.SOCKET_BUFFER),
    ],
)
def test_errors_are_known_whatever_the_exit_status(folder: Path, name: str, code: Code) -> None:
    with pytest.raises(Failed) as caught:
        read(folder, name)
    assert caught.value.code is code and caught.value.reason.startswith(f"{code}: ")
    assert "\n" not in caught.value.reason


GOOD = (RECORDED[0] / "tcp-send.json").read_text()


@pytest.mark.parametrize("text", [GOOD + "\nwarning: later text {", GOOD + GOOD, "banner\n" + GOOD])
def test_text_around_the_document_is_ignored(text: str) -> None:
    assert iperf3.tcp_flows(iperf3.document(text, SERVER), "send")[0].bytes_per_second > 0


@pytest.mark.parametrize(
    "text", ["", "Segmentation fault", "{", "[1, 2]", '{"end": []}', '{"start": {}}', "{}" * 9, "[" * 99999]
)
def test_garbage_is_one_clear_line(text: str) -> None:
    with pytest.raises(Failed, match=r"^(tool_output|peer_\w+): .*10\.9\.0\.2") as caught:
        iperf3.document(text, SERVER)
    assert "\n" not in caught.value.reason
    assert len(caught.value.reason) < 300


@pytest.mark.parametrize("value", [None, "fast", float("nan"), -1, True, {}, 10**400], ids=lambda v: str(v)[:9])
def test_a_figure_that_is_no_number_is_refused(value: object) -> None:
    doc = json.loads(GOOD)
    doc["end"]["sum_received"]["bits_per_second"] = value
    with pytest.raises(Failed, match=r"^tool_output: .*bits_per_second"):
        iperf3.tcp_flows(iperf3.document(json.dumps(doc), SERVER), "send")


def test_nothing_received_is_no_throughput_of_zero() -> None:
    doc = json.loads(GOOD)
    doc["end"]["sum_received"]["bytes"] = 0
    with pytest.raises(Failed, match="nothing_arrived"):
        iperf3.tcp_flows(iperf3.document(json.dumps(doc), SERVER), "send")


def test_more_lost_than_sent_is_refused() -> None:
    """What 3.12 makes of -O with -u: 134 % loss."""
    doc = json.loads((RECORDED[0] / "udp-send.json").read_text())
    for part in ("sum", "sum_received"):
        doc["end"][part]["lost_packets"] = doc["end"][part]["packets"] + 1
    with pytest.raises(Failed, match="lost"):
        iperf3.udp_datagrams(iperf3.document(json.dumps(doc), SERVER), "send")


def test_udp_is_never_run_with_omit() -> None:
    words = iperf3.udp_arguments(SERVER, "receive", 2, 1e6, 1400, 0)
    assert "-u" in words and "-R" in words and "-O" not in words and "-w" not in words


def test_the_peers_ceiling_holds_for_all_streams_together() -> None:
    server = iperf3.Iperf3Server("h", 1, max_bits_per_second=100e6)
    tcp = iperf3.tcp_arguments(server, "send", 2, 1, 4, "cubic")
    assert int(tcp[tcp.index("-b") + 1]) * 4 <= 100e6
    udp = iperf3.udp_arguments(server, "send", 2, 1e9, 1400, 0)
    assert int(udp[udp.index("-b") + 1]) <= 100e6


@pytest.mark.parametrize(
    ("text", "value"), [("1G", 1e9), ("500M", 5e8), ("1.5g", 1.5e9), ("64k", 64e3), ("100", 100.0)]
)
def test_rates(text: str, value: float) -> None:
    assert bits(text) == value


@pytest.mark.parametrize("text", ["", "0", "-1M", "fast", "1X", "nan", "infG"])
def test_no_rates(text: str) -> None:
    with pytest.raises(ValueError):
        bits(text)


# --- anything else that could stand there


NODES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**30, 10**400, -(10**400), 0.5, 1e308, 5e-324, float("nan"), float("inf"), "",
    "fast", "\x1b[2J\x1b]0;title\x07", "a\nb\r\x85\u2028c\ud800", "9" * 5000, [], [[]], [None, 1, "x"], {}, {"sum": []},
    {"error": "\x1b[31mbusy"},
)  # fmt: skip
OUTPUTS = [(path, path.with_suffix(".stderr")) for folder in RECORDED for path in sorted(folder.glob("*.json"))]


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) below ``node``."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(pairs):
        yield node, key
        yield from places(value)


def mutated(draw: Random) -> tuple[str, str, str]:
    """A recorded output that was damaged in one to three places: its name, the text, what stood on standard error."""
    path, stderr = draw.choice(OUTPUTS)
    text, said = path.read_text(), stderr.read_text() if stderr.exists() else ""
    doc = json.loads(text)
    for _ in range(draw.randint(1, 3)):
        container, key = draw.choice(list(places(doc)))
        damage = draw.randrange(5)
        if damage == 0:
            del container[key]
        elif damage == 1 and isinstance(container, dict):
            container[draw.choice(["error", "end", "sum", "intervals", key + "\x1b"])] = deepcopy(container[key])
        elif damage == 2:
            other, there = draw.choice(list(places(doc)))
            container[key] = deepcopy(other[there])
        else:
            container[key] = deepcopy(draw.choice(NODES))
    text = json.dumps(doc, ensure_ascii=draw.random() < 0.5)
    cut, glue = draw.randrange(len(text)), draw.randrange(12)
    if glue == 0:
        text = text[:cut]
    elif glue == 1:
        text = text[:cut] + draw.choice(['"', "{", "\x1b[2J", "1e400", "[" * 3000]) + text[cut:]
    elif glue == 2:
        text = text[:cut] + path.read_text()[draw.randrange(cut + 1) :]
    elif glue == 3:
        text += path.read_text()
    elif glue == 4:
        text, said = (
            "",
            draw.choice(["iperf3: error - \x1b[2Jbusy\n", "error - unable\x00 to \x9b31m connect", "x" * 999]),
        )
    return path.stem, text, said


def figures(name: str, text: str, said: str) -> list[Measurement]:
    """All that the probe makes of one output."""
    doc = iperf3.document(text, SERVER, said)
    if name.startswith("udp"):
        direction = "receive" if "receive" in name else "send"
        return bandwidth.datagrams([iperf3.udp_datagrams(doc, direction)], {}, {})
    flows = iperf3.tcp_flows(doc, name.removeprefix("tcp-").replace("overload", "send"))
    both = (*flows, *(iperf3.Flow(way, 1.0, 1.0) for way in bandwidth.DIRECTIONS))
    found = bandwidth.Bandwidth(both, dict.fromkeys(bandwidth.DIRECTIONS, 1), iperf3.mean_segment([doc]))
    return bandwidth.throughput(found, {}, 1e6, Interface())


def damage(count: int, seed: int) -> tuple[int, int]:
    """How many of ``count`` damaged outputs still gave figures, and how many a reason."""
    draw, sound = Random(seed), 0
    for _ in range(count):
        name, text, said = mutated(draw)
        try:
            found = figures(name, text, said)
        except ProbeError as error:
            assert error.code is not None and error.reason.isprintable() and len(error.reason) < 500, error.reason
            continue
        assert found and all(label.isprintable() for m in found for label in m.labels.values())
        sound += 1
    return sound, count - sound


def test_whatever_iperf3_prints_gives_figures_or_one_clean_line() -> None:
    sound, refused = damage(4000, seed=12)
    assert sound > 400 and refused > 400, "both ways are trodden"


@versions
def test_from_316_on_a_stream_has_a_thread(folder: Path) -> None:
    doc = iperf3.document((folder / "tcp-send.json").read_text(), iperf3.Iperf3Server("h", 1))
    flow = iperf3.tcp_flows(doc, "send")[0]
    assert flow.threaded is (folder.name in ("iperf3-3.18", "iperf3-3.22"))
