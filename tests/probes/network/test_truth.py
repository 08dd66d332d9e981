"""A relay does known things to the echo's packets: the probe must find those, all of them, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.probes.network.testbed import Net, hog
from tests.probes.network.truth import PEER, compare, echo, start_echo

SETTINGS = {"delay": 0.004, "jitter": 0.002, "seed": 5}


@pytest.mark.parametrize(("height", "interval"), [(0.03, 0.002), (0.1, 0.002), (0.3, 0.004)])
def test_every_spike_is_found_and_none_invented(hosts: Net, height: float, interval: float) -> None:
    relay = hosts.relay("a", "b", {**SETTINGS, "every": 250, "height": height})
    hosts.peer("b", PEER)
    got = compare(echo(hosts, 1000, interval), relay)
    assert got.spikes == 4
    assert got.events()["network"] == got.spikes
    assert got.events()["egress"] == 0
    # A spike is one event however many packets wait behind it, and it is as high as it was made.
    excesses = [excess for place, _, _, excess in got.answer["events"] if place == "network"]
    assert excesses == pytest.approx([height] * 4, abs=0.006)


def test_times_and_losses_are_the_relays(hosts: Net) -> None:
    relay = hosts.relay("a", "b", {**SETTINGS, "loss": 0.02, "bursts": [[300, 7]]})
    hosts.peer("b", PEER)
    got = compare(echo(hosts, 1500, 0.002), relay)
    assert tuple(got.answer["lost"]) == got.lost
    assert got.lost[0] > 7 and got.lost[1] > 7
    assert [trip is None for trip in got.trips] == [held is None for held in got.held]
    for share in (0.5, 0.99):
        assert got.quantile(got.trips, share) == pytest.approx(got.quantile(got.held, share), abs=0.001)
    longest = max(m["value"] for m in got.answer["measurements"] if m["metric"] == "network_lost_burst_packets")
    assert longest >= 7


def test_single_late_packets_are_seen_as_reordered(hosts: Net) -> None:
    relay = hosts.relay("a", "b", {"delay": 0.002, "every": 100, "height": 0.05, "single": True})
    hosts.peer("b", PEER)
    got = compare(echo(hosts, 500, 0.004), relay)
    reordered = [m["value"] for m in got.answer["measurements"] if m["metric"] == "network_reordered_packets"]
    assert (got.spikes, got.events()["network"], reordered) == (5, 5, [5.0])


def test_a_clean_link_has_no_event_of_its_own(cable: Net) -> None:
    cable.peer("b", "10.98.0.2")
    answer = echo(cable, 1000, 0.002, "10.98.0.2")
    places = [place for place, *_ in answer["events"]]
    assert "network" not in places and "egress" not in places
    assert answer["lost"] == [0, 0]


def test_a_stall_is_laid_at_the_door_that_it_came_from(hosts: Net) -> None:
    relay = hosts.relay("a", "b", {"delay": 0.002})
    peer = hosts.peer("b", PEER)
    running = start_echo(hosts, 350, 0.02)
    client = child_of(running.pid, "probes.network.echo_child ")
    before = hosts.sent("a")
    hosts.wait_until_sent("a", before + 4000)  # it sends
    for pid in (peer.pid, relay.process.pid, client):
        stall(pid, 0.5)
        time.sleep(0.9)
    got = compare(_answer(running), relay)
    found = got.events(0.3)
    assert (found["peer"], found["network"], found["host"], found["egress"]) == (1, 1, 1, 0)


def _answer(running: subprocess.Popen[str]) -> dict[str, object]:
    out, err = running.communicate(timeout=60)
    assert out.strip(), err
    return dict(json.loads(out))


def stall(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def child_of(pid: int, word: str, seconds: float = 60.0) -> int:
    from bench.measure.processes import descendants

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for child in descendants(pid):
            try:
                with open(f"/proc/{child}/cmdline", "rb") as file:
                    words = file.read().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if word in words and "setpriv" not in words:
                return child
        time.sleep(0.02)
    raise AssertionError(f"no {word} below {pid}")


@contextmanager
def busy() -> Iterator[None]:
    hogs = hog(os.cpu_count() or 1)
    try:
        yield
    finally:
        for one in hogs:
            one.kill()
            one.wait()


def test_a_busy_host_is_not_the_network(hosts: Net) -> None:
    relay = hosts.relay("a", "b", {**SETTINGS, "every": 250, "height": 0.1})
    hosts.peer("b", PEER)
    with busy():
        got = compare(echo(hosts, 1000, 0.004), relay)
    assert got.events(0.05)["network"] == got.spikes == 4
    assert got.quantile(got.trips, 0.5) == pytest.approx(got.quantile(got.held, 0.5), abs=0.001), "the network's share"
    waited = [m for m in got.answer["measurements"] if m["labels"].get("place") == "host"]
    slowest = max(m["value"] for m in waited if m["metric"] == "network_place_delay_seconds")
    assert slowest > 0.001, "the scheduler's share is the host's; a calm one's is a tenth of that"
