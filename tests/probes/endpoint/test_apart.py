"""Network and server told apart: a delay that was put between them, or into the server, is charged to the right one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.judge.composition import composed
from bench.judge.gate import judge
from bench.judge.latency_budget import PART
from bench.judge.profile import Gate, Profile
from bench.model import Finding, Measurement, Outcome, ProbeResult, Run, Status
from bench.show.html.plots import Chart, latency
from bench.show.matrix import answer
from probes.common.metrics import quantiles
from probes.common.pipe import Record
from probes.endpoint.parse import parse
from probes.endpoint.records import Opened
from tests.judge.make import run as a_run
from tests.probes.endpoint.test_probe import CHECK, URL, a_window, an_answer
from tests.probes.network.testbed import Net, measured, network, unusable

PEER = "10.0.0.2"
PROFILE = Profile(
    name="voice",
    gate=(
        Gate(metric="network_round_trip_seconds", labels={"statistic": "p99"}, max=0.05, source="x", remedy="nearer"),
        Gate(metric="inference_first_token_seconds", labels={"statistic": "p99"}, max=0.14, source="x", remedy="less"),
    ),
)


def seen(way: float, server: float, place: str = "peer", url: str = URL, echoed: bool = True) -> Run:
    """600 requests whose server and way take so long, every third on a connection that was opened for it."""
    answers: list[Record] = []
    for n in range(600):
        opens, at, noise = n % 3 == 0, 0.1 * n, 0.00001 * (n % 7)
        taken = (way if opens else 0.0) + way + server + noise
        answers.append(an_answer(at, at + taken, at + taken + 0.01, connect=way if opens else None))
    how = Opened("chat", "m", (), 1.0, 1.0, place, PEER if place == "peer" else None)  # type: ignore[arg-type]
    found = parse([how, *answers, a_window(), CHECK], url)
    trips = quantiles(
        "network_round_trip_seconds", [way + 1e-6 * (n % 9) for n in range(900)], {"peer": PEER, "state": "idle"}
    )
    return composed(
        a_run(
            ProbeResult(probe="endpoint", outcome=Outcome.OK, measurements=tuple(found)),
            *([ProbeResult(probe="network", outcome=Outcome.OK, measurements=tuple(trips))] if echoed else []),
        )
    )


def first_token(run: Run) -> Finding:
    return next(f for f in judge(run, PROFILE).findings if f.metric == "inference_first_token_seconds")


def takes(run: Run, part: str, statistic: str = "p99") -> Measurement:
    (one,) = run.find(PART, part=part, statistic=statistic)
    return one


@pytest.mark.parametrize("place", ["peer", "elsewhere"])
def test_a_slow_way_is_the_network_s(place: str) -> None:
    """To open a connection takes a way more; that is no time of the server's."""
    run = seen(way=0.1, server=0.03, place=place, echoed=place == "peer")
    assert takes(run, "server").value == pytest.approx(0.03, abs=0.002)
    assert takes(run, "network").value == pytest.approx(0.2, abs=0.003)
    assert takes(run, "network", "p50").value == pytest.approx(0.1, abs=0.003)
    found = first_token(run)
    assert found.status is Status.FAIL and "the network to the server breaks the limit, not the server" in (
        found.reason or ""
    )
    assert "path to the server" in found.remedy
    assert ("paced echo" if place == "peer" else "time to connect") in (found.reason or "")
    assert ("paced echo" if place == "peer" else "time to connect") in answer(run)


@pytest.mark.parametrize("place", ["peer", "elsewhere"])
def test_a_slow_server_is_the_server_s(place: str) -> None:
    run = seen(way=0.01, server=0.3, place=place)
    assert takes(run, "server").value == pytest.approx(0.3, abs=0.002)
    found = first_token(run)
    assert found.status is Status.FAIL and "the server breaks the limit, not the network" in (found.reason or "")
    assert found.remedy == "less"


def test_the_way_is_counted_once() -> None:
    """80 and 90 ms make 170, not 250 with the network on top of what holds it already."""
    run = seen(way=0.04, server=0.09)
    (late,) = run.find("response_over_budget_ratio", until="first_token")
    assert late.value == 0.0 and late.interval[1] < 0.02
    shares = {m.labels["part"]: m.value for m in run.find("response_part_ratio", until="first_token")}
    assert set(shares) == {"network", "server"} and sum(shares.values()) == pytest.approx(1.0)
    assert shares["network"] == pytest.approx(0.04 / 0.13, abs=0.02)
    judged = run.model_copy(update={"verdicts": (judge(run, PROFILE),)})
    bar = latency.budget(judged)
    assert bar is not None and isinstance(bar.body, Chart)
    assert bar.body.rows[0].text == "170 ms of 200 ms", "80 ms network with its opening, and 90 ms server"


def test_of_tls_half_of_connecting_is_a_round_trip() -> None:
    run = seen(way=0.1, server=0.3, place="elsewhere", url="https://llm.example.org", echoed=False)
    assert takes(run, "server").value == pytest.approx(0.35, abs=0.002)


def test_a_server_on_this_node_has_no_network_in_its_times() -> None:
    run = seen(way=0.0, server=0.3, place="node")
    assert not run.find(PART) and answer(run) == ""
    assert first_token(run).reason is None
    assert {m.labels["part"] for m in run.find("response_part_ratio")} == {"network", "first_token", "further_tokens"}


def test_an_unclear_case_is_said_to_be_one() -> None:
    """Round trips of which some take very long: what they leave for the server lies on both sides of its limit."""
    run = seen(way=0.03, server=0.13)
    wide = [m.model_copy(update={"interval": (m.value - 0.05, m.value + 0.05)}) if m.metric == PART else m
            for m in run.measurements()]  # fmt: skip
    results = (ProbeResult(probe="endpoint", outcome=Outcome.OK, measurements=tuple(wide)),)
    assert "is not clear" in (first_token(run.model_copy(update={"results": results})).reason or "")


# --- on a real path


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Net]:
    assert (why := unusable()) is None, why
    with network(tmp_path) as net:
        for name in ("a", "b"):
            net.host(name)
        yield net


@pytest.mark.slow
@pytest.mark.root
def test_a_delay_of_the_path_and_one_of_the_server_are_told_apart(hosts: Net) -> None:
    """Both hosts joined by a cable that holds each packet back, and a server that waits before its first token."""
    way, server = 0.12, 0.2
    hosts.relay("a", "b", {"delay": way / 2})
    hosts.peer("b", "10.97.0.2")
    config = json.dumps({"host": "10.97.0.2", "first": server, "log": str(hosts.folder / "log.jsonl")})
    started = hosts.start(hosts.command("b", sys.executable, "-m", "tests.probes.endpoint.simulated", config))
    assert started.stdout is not None
    url = f"http://10.97.0.2:{started.stdout.readline().split()[-1]}"
    words = ["run", "--probe", "network", "--probe", "endpoint", "--peer", "10.97.0.2", "--endpoint", url, "--rate=20",
             "--endpoint-max-rate", "20", "--effort", "quick", "--no-quiet-check", "--json", "--profile",
             "realtime-inference", "--results", str(hosts.folder), "--option", "output_tokens=4"]  # fmt: skip
    done = hosts.run(hosts.python("a", "bench", *words), timeout=240.0)
    assert done.stdout.strip(), done.stderr[-2000:]
    document = json.loads(done.stdout)
    found = {m["labels"]["part"]: m for m in measured(document, PART, statistic="p50")}
    assert {m["labels"]["measured_by"] for m in found.values()} == {"echo"}
    assert found["server"]["value"] == pytest.approx(server, abs=0.02 + 0.1 * server)
    assert found["network"]["value"] == pytest.approx(way, abs=0.02 + 0.1 * way)
    (info,) = measured(document, "endpoint_info")
    assert (info["labels"]["place"], info["labels"]["peer"]) == ("peer", "10.97.0.2")
