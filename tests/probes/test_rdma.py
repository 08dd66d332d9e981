"""perftest's tables as version 4.5 prints them (its own format strings), and who may start what at the peer."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from pathlib import Path
from random import Random

import pytest

from bench.measure.probe import Failed
from bench.measure.recording import LiveTools, Recorder
from probes import rdma
from probes.peer.children import Refused, perftest_argv
from probes.rdma import bandwidth, latency
from tests.probes.network.driver import context
from tests.probes.network.test_peer import HOST, peer

HEAD = """---------------------------------------------------------------------------------------
                    RDMA_Write BW Test
 Dual-port       : OFF          Device         : mlx5_0
 Link type       : IB
---------------------------------------------------------------------------------------
 local address: LID 0x02 QPN 0x0127 PSN 0x6b33c2 RKey 0x017fff VAddr 0x007f6e1f4d0000
---------------------------------------------------------------------------------------
"""
RATE = HEAD + (
    " #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]\n"
    f" {65536:<7}    {1767700:<10}       {0.0:<7.2f}            {375.25:<7.2f}\t\t   {0.715733:<7.6f}\n"
    "---------------------------------------------------------------------------------------\n"
)
TIMES = HEAD + (
    " #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]"
    "   99% percentile[usec]   99.9% percentile[usec] \n"
    f" {2:<7} {5000}          {1.05:<7.2f}        {9.1:<7.2f}      {1.09:<7.2f}  \t       {1.1:<7.2f}"
    f"     \t{0.08:<7.2f}\t\t{1.25:<7.2f} \t\t{3.5:<7.2f}\n"
)

#: Both ends meet over TCP and print the tables above. A server opens its device first, and listens then.
PERFTEST = f"""#!/usr/bin/env python3
import socket, sys, time
words = sys.argv[1:]
port = int(words[words.index("-p") + 1])
if words[0].startswith("-"):
    time.sleep(START)
    with socket.create_server(("", port)) as server:
        server.accept()
else:
    try:
        socket.create_connection((words[0], port), 10)
    except OSError:
        sys.exit(f"Couldn't connect to {{words[0]}}:{{port}}")
    print({RATE!r} if sys.argv[0].endswith("bw") else {TIMES!r})
"""


def with_perftest(folder: Path, start_seconds: float = 0.0) -> Path:
    """A folder for PATH."""
    folder.mkdir()
    for tool in ("ib_write_bw", "ib_write_lat"):
        (folder / tool).write_text(PERFTEST.replace("START", str(start_seconds)))
        (folder / tool).chmod(0o755)
    return folder


@pytest.mark.slow
def test_a_server_that_is_slow_to_listen_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It had half a second; a node with eight cards takes longer to open one, and RDMA had no figure."""
    monkeypatch.setenv("PATH", f"{with_perftest(tmp_path / 'tools', 1.5)}:{os.environ['PATH']}")
    monkeypatch.setattr(rdma, "_DEVICES", str(tmp_path))  # the folder in it will do for a card
    with peer() as (_, port):
        host = f"{HOST}:{port}"
        ctx = dataclasses.replace(
            context(host, tmp_path), probe=rdma.PROBE, tools=LiveTools("rdma", Recorder(tmp_path / "raw"))
        )
        found = {m.metric: m.value for m in rdma.measure(ctx) if m.labels.get("statistic", "p50") == "p50"}
    assert found == pytest.approx({"rdma_write_bytes_per_second": 375.25e9 / 8, "rdma_write_latency_seconds": 1.09e-6})


def test_bandwidth_is_the_average_in_bytes() -> None:
    assert bandwidth(RATE) == pytest.approx(375.25e9 / 8)


def test_latencies_are_seconds() -> None:
    assert latency(TIMES) == pytest.approx({"p50": 1.09e-6, "p99": 1.25e-6, "p99.9": 3.5e-6, "max": 9.1e-6})


@pytest.mark.parametrize(
    "text",
    ["", HEAD, RATE.replace("Gb/sec", "MB/sec"), RATE.partition(" 65536")[0], RATE.replace("375.25", "0.00  "),
     RATE.replace("375.25", "nan   "), "Couldn't connect to 10.0.0.2:18515\n"],
)  # fmt: skip
def test_no_figure_is_made_up(text: str) -> None:
    with pytest.raises(Failed, match=r"^tool_output: "):
        bandwidth(text)


def test_no_latency_is_made_up() -> None:
    for text in ("", HEAD, RATE, TIMES.replace("1.09", "x.xx")):
        with pytest.raises(Failed, match=r"^tool_output: "):
            latency(text)


@pytest.mark.parametrize(
    "request_",
    [
        {"tool": "bash", "words": []},
        {"tool": "ib_write_bw", "words": ["--out_json_file=/etc/passwd"]},
        {"tool": "ib_write_bw", "words": ["-D", "5", "; reboot"]},
        {"tool": "ib_write_bw", "words": "-D 5"},
        {"tool": "ib_write_bw", "words": ["-n"] * 9},
        {"tool": None},
    ],
)
def test_the_peer_starts_nothing_else(request_: dict[str, object]) -> None:
    with pytest.raises(Refused, match=r"^garbage: "):
        perftest_argv(request_)


def test_whatever_perftest_prints_gives_a_figure_or_one_clean_line() -> None:
    draw = Random(4)
    junk = ["\x1b[2J", "nan", "-inf", "1e308", "9" * 400, "-1", "#bytes", "\n", "\t\t", "\x00", "Gb/sec]", ""]
    for _ in range(3000):
        words = re.split(r"(\s+)", draw.choice([RATE, TIMES]))
        for _ in range(draw.randint(1, 4)):
            words[draw.randrange(len(words))] = draw.choice(junk)
        for read in (bandwidth, latency):
            try:
                found = read("".join(words))
            except Failed as error:
                assert error.reason.startswith("tool_output: ") and error.reason.isprintable()
                continue
            values = found.values() if isinstance(found, dict) else [found]
            assert all(0 < value < math.inf for value in values)
