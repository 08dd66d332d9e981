"""The parts of a run without ssh: letters in a folder that may be hostile, a node's side, the leader's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.fleet import agent as agents
from bench.fleet import mail as mails
from bench.fleet.agent import Agent
from bench.fleet.errors import FleetError, Occupied
from bench.fleet.mail import MAIL, Mail, Sight, Watch
from bench.fleet.member import Member
from bench.fleet.plan import HostVars
from bench.fleet.post import Post
from bench.fleet.transport.base import Kind, Reply
from bench.measure.tools import Signals
from tests.fleet.drive import plan_of
from tests.fleet.make import judgement

HOSTS = ["gpu-1", "gpu-2", "gpu-3"]


# --- letters


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mail]:
    for module in (mails, agents):
        monkeypatch.setattr(module, "beat_seconds", lambda _: 0.02)
    found = Mail(tmp_path)
    yield found
    found.close()


def others_can_write(place: Path) -> None:
    place.mkdir()
    place.chmod(0o770)


def a_link(place: Path) -> None:
    place.with_name("elsewhere").mkdir(mode=0o700)
    place.symlink_to(place.with_name("elsewhere"))


def of_another_user(place: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root: to make a folder of another user")
    place.mkdir(mode=0o700)
    os.chown(place, 12345, 12345)


@pytest.mark.parametrize("make", [others_can_write, a_link, of_another_user])
def test_a_folder_of_letters_that_is_not_ours_alone_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """What lies there is run, so whoever can write there could run anything."""
    make(tmp_path / MAIL)
    with pytest.raises(FleetError) as caught:
        Mail(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / MAIL)) and "\n" not in str(caught.value)


def test_what_is_no_letter_is_none(box: Mail, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("a", "{not json"), ("b", "[1]"), ("c", "[" * 100_000), ("d", '"x"')):
        (box.path / name).write_text(text)
    os.mkfifo(box.path / "pipe")
    (box.path / "link").symlink_to("/etc/hostname")
    (box.path / "folder").mkdir()
    assert [box.get(name) for name in ("a", "b", "c", "d", "pipe", "link", "folder", "absent")] == [None] * 8
    box.put("e", {"x": 1})
    assert box.get("e") == {"x": 1}
    monkeypatch.setattr(mails, "MOST_BYTES", 4)
    assert box.get("e") is None


def test_only_a_beat_that_changes_is_alive(box: Mail, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier start has left lies there unchanged; no clock of another node is asked."""
    monkeypatch.setattr(mails, "SILENT_BEATS", 10)
    beat: dict[str, Any] = {"host": "gpu-2", "who": "w", "count": 1}
    box.put("beat.1", beat)
    box.put("beat.2", {"host": "of another list", "who": "w", "count": 1})
    watch = Watch(box, tuple(HOSTS))

    def look(rank: int = 1) -> Sight:
        time.sleep(0.02)
        return watch.look(rank)

    assert [look(), look(0)] == [Sight.UNKNOWN] * 2, "nobody is absent at the first look"
    time.sleep(0.1)
    assert [look(), look(0)] == [Sight.ABSENT] * 2
    box.put("beat.1", beat | {"count": 2})
    assert look() is Sight.HERE and watch.card(1)["count"] == 2
    time.sleep(0.3)
    assert look() is Sight.GONE
    box.put("beat.1", beat | {"count": 3, "left": True})
    assert look() is Sight.LEFT
    box.put("beat.1", beat | {"who": "started anew", "count": 1})
    assert look() is Sight.HERE
    box.put("beat.2", {"host": "of another list", "who": "w", "count": 2})
    assert look(2) is Sight.UNKNOWN
    time.sleep(0.1)
    assert look(2) is Sight.ABSENT


# --- a node's side


def agent_of(box: Mail, rank: int = 0) -> Agent:
    found = Agent(box, rank, {"host": HOSTS[rank], "address": "x", "python": "python3"}, len(HOSTS))
    found.begin()
    return found


def answer(agent: Agent, box: Mail, seconds: float = 10) -> Any:
    """What it replies to the letter that lies there, None when it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        agent.step()
        if found := box.get(f"reply.{agent.rank}"):
            return found
        time.sleep(0.02)
    return None


def test_a_script_is_run_once_and_answered(box: Mail) -> None:
    agent = agent_of(box)
    letter = {"id": "1", "to": agent.who, "script": "echo out; echo why >&2; exit 7", "limit": 20}
    box.put("job.0", letter)
    assert answer(agent, box) == {"id": "1", "kind": "done", "rc": 7, "stdout": "out\n", "detail": "why"}
    box.put("reply.0", {})
    assert answer(agent, box, 0.5) is None, "the same letter was obeyed twice"
    box.put("job.0", letter | {"id": "2", "script": "sleep 60", "limit": 0.3})
    assert answer(agent, box)["kind"] == "controller-timeout"
    box.put("job.0", {"id": "3", "to": agent.who, "ended": "done"})
    agent.step()
    assert agent.ended == "done"


@pytest.mark.parametrize(
    "change",
    [{"to": "an earlier process"}, {"script": 5}, {"limit": "long"}, {"limit": True, "id": None}, {"id": ["x"]}],
)
def test_a_letter_to_another_process_or_out_of_shape_is_not_obeyed(box: Mail, change: dict[str, Any]) -> None:
    agent = agent_of(box)
    box.put("job.0", {"id": "1", "to": agent.who, "script": "echo x", "limit": 5} | change)
    assert answer(agent, box, 0.3) is None


def test_of_two_processes_for_one_node_the_later_gives_way(box: Mail) -> None:
    first, second = agent_of(box), None
    with pytest.raises(Occupied, match="gpu-1"):
        second = Agent(box, 0, {"host": "gpu-1"}, len(HOSTS))
        box.put("beat.0", {"host": "gpu-1", "who": first.who, "born": 1, "count": 99})
        second._beat()
    time.sleep(0.05)
    first.step()


# --- the leader's side


def post_of(box: Mail, come: float = 5.0) -> Post:
    agent = agent_of(box)
    return Post(box, Watch(box, tuple(HOSTS)), agent, Signals(), time.monotonic() + come)


def test_the_leader_runs_its_own_part_and_one_who_never_comes_is_unreachable(box: Mail) -> None:
    post = post_of(box, come=0.5)
    assert list(post.assemble()) == ["gpu-1"]
    heard: list[Reply] = []
    replies = post.each({"gpu-1": "echo here", "gpu-2": "echo there"}, 20, listen=heard.append)
    assert replies["gpu-1"].kind is Kind.DONE and replies["gpu-1"].stdout == "here\n"
    assert replies["gpu-2"].kind is Kind.UNREACHABLE and "has not come" in replies["gpu-2"].detail
    assert sorted(reply.host for reply in heard) == ["gpu-1", "gpu-2"]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"kind": "done", "rc": 0, "stdout": "x"}, Kind.DONE),
        ({"kind": "done", "rc": "0", "stdout": "x"}, Kind.NOT_RUN),
        ({"kind": "done", "rc": 0, "stdout": ["x"]}, Kind.NOT_RUN),
        ({"kind": "controller-timeout", "rc": -9}, Kind.LATE),
        ({"kind": {}}, Kind.NOT_RUN),
    ],
)
def test_a_reply_is_what_it_can_be_read_as(box: Mail, reply: dict[str, Any], kind: Kind) -> None:
    assert speak(box, lambda letter: {"id": letter["id"], **reply}).kind is kind


def test_a_reply_to_another_letter_is_none_and_silence_ends_the_wait(
    box: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mails, "SILENT_BEATS", 30)
    found = speak(box, lambda _: {"id": "another", "kind": "done", "rc": 0, "stdout": "x"})
    assert found.kind is Kind.UNREACHABLE and "fallen silent" in found.detail


def speak(box: Mail, say: Callable[[dict[str, Any]], dict[str, Any]]) -> Reply:
    """What the leader makes of a member gpu-2 that answers its one letter so, and then is silent."""
    post = post_of(box)
    step, count = post.agent.step, 0

    def other() -> None:
        nonlocal count
        step()
        letter = box.get("job.1")
        if letter is not None:
            box.put("reply.1", say(dict(letter)))
        elif count < 200:
            count += 1
            box.put("beat.1", {"host": "gpu-2", "who": "w", "count": count})

    object.__setattr__(post, "agent", Stepping(post.agent, other))
    return post.each({"gpu-2": "echo x"}, 30)["gpu-2"]


class Stepping:
    """The agent, with another step."""

    def __init__(self, agent: Agent, step: Callable[[], None]) -> None:
        self.who, self.rank, self.step = agent.who, agent.rank, step


def test_a_leader_that_was_taken_for_dead_does_not_go_on(box: Mail) -> None:
    post = post_of(box)
    box.put("leader", {"who": "the next one", "rank": 1})
    with pytest.raises(Occupied, match="another member leads"):
        post.each({"gpu-2": "echo x"}, 30)


def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    variables = {host: HostVars(host) for host in HOSTS}
    plan_of(folder, variables, {}).save(folder)

    def member(**options: Any) -> Member:
        return Member(
            folder, tuple(HOSTS), "gpu-1", HostVars("x"), lambda _: plan_of(folder, variables, options),
            judgement(), Signals(),
        )  # fmt: skip

    with pytest.raises(FleetError, match="other options"):
        member(budget=99.0).take_part()
    assert member()._resumed(plan_of(folder, variables, {})).id == "run"
    text = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(text | {"id": "../../x; reboot"}))
    with pytest.raises(FleetError, match="id: is none of ours"):
        member().take_part()
