"""``bench sign`` and ``bench verify`` with the real ssh-keygen, on a recorded run: each way to cheat has its line."""

from __future__ import annotations

import copy
import json
import os
import random
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement

from bench.fleet.join.folder import join_folder
from bench.judge.statement import OURS, TEST_RESULT
from bench.model import Run
from bench.store.evidence import digests
from bench.workflows.catalog import load_catalog
from bench.workflows.evidence import Wanted, verify
from bench.workflows.fleet import judgement
from bench.workflows.judging import concluded
from tests.golden import recorded
from tests.golden.said import Said, said

SITE = """\
name = "site"
[[gate]]
metric = "storage_read_bytes_per_second"
labels = { pattern = "sequential", queue_depth = "deep" }
min = 1e6
source = "the test's own"
[[gate]]
metric = "network_loss_ratio"
max = 0.5
accept_stand_in = true
source = "the test's own"
"""
ME = "sre@example.org"


def ssh_keygen(*words: str | Path, text: str = "") -> str:
    done = subprocess.run(
        ["ssh-keygen", *map(str, words)], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Place:
    """A folder with a run that is GO by ``site.toml``, a key, and a file of allowed signers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.run,) = (path for path in folder.glob("results/runs/*/*.json") if ".intoto." not in path.name)
        self.raw = self.run.with_suffix(".raw")
        self.statement = self.run.with_name(f"{self.run.stem}.intoto.json")
        self.signature = self.statement.with_name(f"{self.statement.name}.sig")

    def bench(self, *words: str | Path) -> Said:
        return said([*map(str, words)], self.folder, self.folder)

    def sign(self, *words: str | Path, key: str = "key", profile: str = "site.toml") -> Said:
        return self.bench("sign", self.run, "--key", key, "--profile", profile, *words)

    def verify(self, *words: str | Path, allowed: str = "allowed", profile: str = "site.toml") -> Said:
        return self.bench("verify", self.run, "--allowed-signers", allowed, "--profile", profile, *words)

    def refused(self, *words: str | Path, **more: Any) -> str:
        """The one line that says why it does not hold."""
        found = self.verify(*words, **more)
        assert (found.status, found.err) == (1, ""), found.err
        (line,) = found.text().splitlines()
        return line

    def sign_as_it_is(self, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        """What somebody with the key does who does not use our command: new digests, whatever they are of."""
        statement = json.loads(self.statement.read_text())
        found = digests(self.run).items()
        statement["subject"] = [{"name": name, "digest": {"sha256": digest}} for name, digest in found]
        change(statement)
        text = json.dumps(statement)
        self.statement.write_text(text)
        signature = ssh_keygen("-Y", "sign", "-f", self.folder / "key", "-n", "aiready-bench", text=text)
        self.signature.write_text(signature)

    def change_run(self, change: Callable[[dict[str, Any]], None]) -> None:
        document = json.loads(self.run.read_text())
        change(document)
        self.run.write_text(json.dumps(document))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    whole = tmp_path_factory.mktemp("recorded")
    recorded.lay_out(whole)
    (folder / "site.toml").write_text(SITE)
    (run,) = whole.glob("results/runs/*/*-a05c5b4f1e8e.json")
    there = folder / "results/runs/node-17"
    shutil.copytree(run.with_suffix(".raw"), there / f"{run.stem}.raw")
    judged = concluded(Run.model_validate_json(run.read_text()), load_catalog([str(folder / "site.toml")]))
    assert judged.verdicts[0].decision == "GO"
    (there / run.name).write_text(judged.model_dump_json(by_alias=True))
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-f", folder / "key", "-C", ME)
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-f", folder / "other")
    (folder / "allowed").write_text(f'{ME} namespaces="aiready-bench" {(folder / "key.pub").read_text()}')
    place = Place(folder)
    assert place.sign("--nonce", "8c1d", "--max-age", "100000d").status == 0
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Place:
    """A copy to spoil."""
    return Place(Path(shutil.copytree(made, tmp_path / "copy")))


def flip(path: Path, at: int = -1, bit: int = 0) -> None:
    """One bit of a file; by default of its middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at < 0 else at] ^= 1 << bit
    path.write_bytes(data)


# --- what holds


def test_what_was_signed_holds(place: Place) -> None:
    found = place.verify("--only-go", "--nonce", "8c1d", "--signer", ME)
    assert (found.status, found.err) == (0, "")
    assert found.text().startswith(f"holds: run {place.run.stem.partition('-')[2]} of node-17, measured 2026-")
    assert found.text().rstrip().endswith(f"signed by {ME}: GO site")


def test_anyone_verifies_it_without_us(place: Place) -> None:
    words: list[str | Path] = [
        "-Y",
        "verify",
        "-f",
        place.folder / "allowed",
        "-I",
        ME,
        "-n",
        "aiready-bench",
        "-s",
        place.signature,
    ]
    assert ssh_keygen(*words, text=place.statement.read_text()).startswith('Good "aiready-bench" signature')
    told = json.loads(place.statement.read_text())
    sums = "".join(f"{one['digest']['sha256']}  {one['name']}\n" for one in told["subject"])
    done = subprocess.run(["sha256sum", "--check", "--quiet"], input=sums, text=True, cwd=place.run.parent, check=False)
    assert done.returncode == 0
    assert len(told["subject"]) == 1 + len(list(place.raw.iterdir()))


def test_the_statement_is_a_test_result_of_in_toto(place: Place) -> None:
    """By in-toto's own definitions of both, of which the predicate has one property more, named by a URI."""
    told = json.loads(place.statement.read_text())
    Statement.copy_from_pb(ParseDict(told, statement_pb2.Statement())).validate()
    predicate = told["predicate"]
    assert ":" in OURS and predicate.pop(OURS)["decision"] == "GO"
    result = ParseDict(predicate, test_result_pb2.TestResult())
    assert (told["predicateType"], result.result, list(result.failed_tests)) == (TEST_RESULT, "PASSED", [])
    assert [test.partition("{")[0] for test in result.passed_tests] == [
        "site: storage_read_bytes_per_second", "site: network_loss_ratio <= 50 % [stand-in: loopback]"
    ]  # fmt: skip
    for descriptor in result.configuration:
        ResourceDescriptor.copy_from_pb(descriptor).validate()
    named = {descriptor["name"]: descriptor for descriptor in predicate["configuration"]}
    assert len(named["profile site"]["digest"]["sha256"]) == 64
    assert named["fio"]["uri"].startswith("pkg:generic/fio@fio-3.")
    assert named["aiready-bench"]["uri"].startswith("pkg:pypi/aiready-bench@")


@pytest.mark.parametrize("name", ["gpu", "peer"])
def test_no_go_and_inconclusive_are_failed_with_the_exact_verdict_beside_it(
    name: str, made: Path, tmp_path: Path
) -> None:
    recorded.lay_out(tmp_path)
    run_id = {"gpu": "f40b8b1b7814", "peer": "a98e98f4abf4"}[name]
    words = ["sign", run_id, "--key", str(made / "key"), "--results", "results"]
    assert said(words, tmp_path, tmp_path).status == 0
    (statement,) = tmp_path.rglob("*.intoto.json")
    predicate = json.loads(statement.read_text())["predicate"]
    (path,) = tmp_path.rglob(f"*-{run_id}.json")
    verdicts = json.loads(path.read_text())["verdicts"]
    assert predicate["result"] == "FAILED"
    assert [one["decision"] for one in predicate[OURS]["verdicts"]] == [one["decision"] for one in verdicts]
    holes = [f for v in verdicts for f in v["findings"] if f["required"] and f["status"] == "no_data"]
    assert holes and len(predicate[OURS]["unmeasured"]) >= len(holes)
    assert set(predicate[OURS]["unmeasured"]) <= set(predicate["failedTests"])
    asked = ["verify", run_id, "--allowed-signers", str(made / "allowed"), "--results", "results"]
    assert said(asked, tmp_path, tmp_path).status == 0
    assert said([*asked, "--only-go"], tmp_path, tmp_path).text().startswith("verdict: is ")


def test_a_statement_is_no_run_of_the_store(place: Place) -> None:
    found = place.bench("gate", place.run.stem.partition("-")[2][:6], "--results", "results", "--profile", "site.toml")
    assert (found.status, found.err) == (0, "")
    assert place.bench("verify", place.statement, "--allowed-signers", "allowed", "--profile", "site.toml").status == 0
    found = place.bench("fleet", "join", place.run.parent, "--expect", "node-17,node-18", "--profile", "site.toml")
    assert "bad-result" not in found.text() and "intoto" not in found.text()


def test_it_is_told_where_a_run_is_shown(place: Place) -> None:
    run = ["--results", "results"]
    ours = place.run.stem.partition("-")[2]
    for signed in (True, False):
        assert ("bench verify" in place.bench("explain", ours, "storage read", *run).text()) is signed
        exported = place.bench("export", ours, "-f", "openmetrics", *run).text()
        assert f"\nbench_run_signed {float(signed)}\n" in exported
        assert place.bench("report", ours, "-o", "page.html", *run).status == 0
        assert (f"bench verify {ours}" in (place.folder / "page.html").read_text()) is signed
        place.signature.unlink(missing_ok=True)


# --- what does not


def _flip_run(place: Place) -> str:
    flip(place.run)
    return f"{place.run.name}: changed since it was signed"


def _flip_raw(place: Place) -> str:
    file = sorted(place.raw.iterdir())[3]
    flip(file)
    return f"{place.raw.name}/{file.name}: changed since it was signed"


def _flip_index(place: Place) -> str:
    flip(place.raw / "tools.jsonl")
    return f"{place.raw.name}/tools.jsonl: changed since it was signed"


def _flip_profile(place: Place) -> str:
    (place.folder / "site.toml").write_text(SITE.replace("1e6", "1e7"))
    return "profile site: is another one: "


def _flip_statement(place: Place) -> str:
    text = place.statement.read_text()
    place.statement.write_text(text.replace('"8c1d"', '"8c1e"'))
    return "signature: Signature verification failed"


def _no_signature(place: Place) -> str:
    place.signature.unlink()
    return f"statement: {place.signature.name}: is not there; sign it with: bench sign"


def _no_statement(place: Place) -> str:
    place.statement.unlink()
    return f"statement: {place.statement.name}: is not there; sign it with: bench sign"


def _remove_raw(place: Place) -> str:
    file = sorted(place.raw.iterdir())[3]
    file.unlink()
    return f"{place.raw.name}/{file.name}: is not there"


def _add_raw(place: Place) -> str:
    (place.raw / "0099-storage-read.json").write_text("{}")
    return f"{place.raw.name}/0099-storage-read.json: was added after it was signed"


def _add_folder_behind_a_link(place: Place) -> str:
    (place.raw / "more").symlink_to("/etc")
    return f"{place.raw.name}/more: was added after it was signed"


def _link_raw(place: Place) -> str:
    file = sorted(place.raw.iterdir())[3]
    moved = file.rename(place.folder / file.name)
    file.symlink_to(moved)
    return f"{place.raw.name}/{file.name}: is a link, which is not followed"


def _pipe_raw(place: Place) -> str:
    file = sorted(place.raw.iterdir())[3]
    file.unlink()
    os.mkfifo(file)
    return f"{place.raw.name}/{file.name}: is no regular file"


def _huge_raw(place: Place) -> str:
    file = sorted(place.raw.iterdir())[3]
    os.truncate(file, 10 << 30)
    return f"{place.raw.name}/{file.name}: is larger than 512 MiB"


def _stranger(place: Place) -> str:
    assert place.sign(key="other").status == 0
    return "signature: its signer is not in allowed"


def _for_git(place: Place) -> str:
    text = place.statement.read_text()
    place.signature.write_text(ssh_keygen("-Y", "sign", "-f", place.folder / "key", "-n", "git", text=text))
    return "signature: "


def _expired(place: Place) -> str:
    words = f'{ME} valid-before="20260101",namespaces="aiready-bench"'
    (place.folder / "allowed").write_text(f"{words} {(place.folder / 'key.pub').read_text()}")
    return "signature: allowed:1: key has expired"


def _for_another_purpose(place: Place) -> str:
    (place.folder / "allowed").write_text(f'{ME} namespaces="git" {(place.folder / "key.pub").read_text()}')
    return "signature: allowed:1: key is not permitted for use in signature namespace"


def _not_text(place: Place) -> str:
    place.statement.write_bytes(b"\xff\xfe")
    return "statement: is not one of a run of ours: it is not ASCII"


def _not_json(place: Place) -> str:
    place.statement.write_text("[]\n")
    text = place.statement.read_text()
    place.signature.write_text(ssh_keygen("-Y", "sign", "-f", place.folder / "key", "-n", "aiready-bench", text=text))
    return "statement: is not one of a run of ours: "


def _verdict_signed_again(place: Place) -> str:
    def lie(document: dict[str, Any]) -> None:
        document["verdicts"][0] |= {"decision": "NO-GO"}

    place.change_run(lie)
    place.sign_as_it_is(lambda told: _say(told, "FAILED", "NO-GO"))
    return "verdict site: GO (score 100) by its gates, NO-GO (score 100) in the verdict"


def _finding_signed_again(place: Place) -> str:
    """A node that failed a gate is made to pass it, in the verdict and the statement."""
    (place.folder / "site.toml").write_text(SITE.replace("1e6", "1e12"))
    (profile,) = load_catalog([str(place.folder / "site.toml")]).profiles

    def lie(document: dict[str, Any]) -> None:
        run = concluded(Run.model_validate(document), load_catalog([str(place.folder / "site.toml")]))
        assert (run.verdicts[0].decision, run.verdicts[0].findings[0].status) == ("NO-GO", "fail")
        document |= run.model_dump(mode="json", by_alias=True)
        document["verdicts"][0] |= {"decision": "GO", "score": 100.0}
        document["verdicts"][0]["findings"][0]["status"] = "pass"

    def lie_too(told: dict[str, Any]) -> None:
        told["predicate"][OURS]["verdicts"][0]["digest"] = profile.digest
        told["predicate"]["configuration"][0]["digest"]["sha256"] = profile.digest

    place.change_run(lie)
    place.sign_as_it_is(lie_too)
    return "verdict site: storage_read_bytes_per_second{pattern=sequential,queue_depth=deep} >= 1 TB/s: fail with "


def _figure_signed_again(place: Place) -> str:
    """Figures and verdict agree; the tool said something else."""
    place.change_run(_twice_as_fast)
    run = Run.model_validate_json(place.run.read_text())
    again = concluded(run, load_catalog([str(place.folder / "site.toml")]))
    place.run.write_text(again.model_dump_json(by_alias=True))
    place.sign_as_it_is()
    return "storage: storage_read_bytes_per_second{"


def _twice_as_fast(document: dict[str, Any]) -> None:
    for figure in (m for r in document["results"] if r["probe"] == "storage" for m in r["measurements"]):
        if figure["metric"] == "storage_read_bytes_per_second":
            figure["value"] *= 2.0
            figure["interval"] = [2.0 * bound for bound in figure["interval"]]


def _say(told: dict[str, Any], result: str, decision: str) -> None:
    told["predicate"]["result"] = result
    told["predicate"][OURS]["decision"] = decision
    told["predicate"][OURS]["verdicts"][0]["decision"] = decision


def _statement_signed_again(place: Place) -> str:
    place.sign_as_it_is(lambda told: told["predicate"].update(result="FAILED"))
    return "statement: result is not that of the evidence: it says FAILED, the evidence PASSED"


def _node_signed_again(place: Place) -> str:
    place.sign_as_it_is(lambda told: told["predicate"][OURS].update(hostname="node-99"))
    return "statement: hostname is not that of the evidence"


def _raw_removed_and_signed_again(place: Place) -> str:
    """All digests hold; a figure's own output is gone."""
    next(file for file in sorted(place.raw.iterdir()) if "storage" in file.name).unlink()
    place.sign_as_it_is()
    return "storage: failed by the raw output, ok in the run"


def _not_yet(place: Place) -> str:
    words = f'{ME} valid-after="20990101",namespaces="aiready-bench"'
    (place.folder / "allowed").write_text(f"{words} {(place.folder / 'key.pub').read_text()}")
    return "signature: allowed:1: key is not yet valid"


def _pipe_in_place_of_the_signature(place: Place) -> str:
    place.signature.unlink()
    os.mkfifo(place.signature)
    return f"statement: {place.signature.name}: is no regular file"


def _endless_statement(place: Place) -> str:
    os.truncate(place.statement, 1 << 40)
    return f"statement: {place.statement.name}: is larger than 32 MiB"


CHEATS = [
    _flip_run, _flip_raw, _flip_index, _flip_profile, _flip_statement, _no_signature, _no_statement, _remove_raw,
    _add_raw, _add_folder_behind_a_link, _link_raw, _pipe_raw, _huge_raw, _stranger, _for_git, _expired,
    _for_another_purpose, _not_json, _not_text, _verdict_signed_again, _finding_signed_again, _figure_signed_again,
    _statement_signed_again, _node_signed_again, _raw_removed_and_signed_again, _not_yet,
    _pipe_in_place_of_the_signature, _endless_statement,
]  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS, ids=[cheat.__name__.strip("_") for cheat in CHEATS])
def test_what_was_changed_does_not_hold_and_says_why(cheat: Callable[[Place], str], place: Place) -> None:
    expected = cheat(place)
    line = place.refused()
    assert line.startswith(expected), line


@pytest.mark.parametrize("seed", range(12))
def test_any_bit_of_any_file_matters(seed: int, place: Place) -> None:
    """But for those of the signature's armour that stand for nothing: the last character's spare bits, line ends."""
    chance = random.Random(seed)
    file = chance.choice([place.run, place.statement, place.signature, *sorted(place.raw.iterdir())])
    size = file.stat().st_size
    at = chance.randrange(100, size - 100) if file == place.signature else chance.randrange(size)
    if file == place.signature and file.read_bytes()[at : at + 1].isspace():
        at += 1
    flip(file, at, chance.randrange(7))
    assert place.verify().status == 1


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inside:
        yield (*at, key)
        yield from _places(child, (*at, key))


@pytest.mark.parametrize("seed", range(4))
def test_a_statement_of_whatever_form_is_answered(seed: int, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed by one who may sign, and yet hostile: it holds or it does not, and is never a fault of ours."""
    monkeypatch.setattr("bench.measure.ssh_signature.signer", lambda *_: (ME, ""))
    whole, chance = json.loads(place.statement.read_text()), random.Random(seed)
    junk: list[Any] = [
        None,
        True,
        -1,
        1e308,
        "",
        "../x",
        "/etc/passwd",
        "\0",
        "\ud800",
        [],
        {},
        [[]],
        {"a": 1},
        10**400,
    ]
    places, wanted = list(_places(whole)), Wanted(place.folder / "allowed", [str(place.folder / "site.toml")], go=True)
    for _ in range(25):
        told = copy.deepcopy(whole)
        *way, last = chance.choice(places)
        inner = told
        for key in way:
            inner = inner[key]
        inner[last] = chance.choice(junk)
        place.statement.write_text(json.dumps(told))
        assert all(line and line == line.strip() for line in verify(place.run, wanted).problems)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--nonce", "other"), "nonce: is not the one that was asked for"),
        (("--max-age", "1h"), "age: measured"),
        (("--signer", "root@example.org"), "signature: it is not signed by root@example.org"),
        (("--this-node",), "node: was measured on another machine"),
        (("--profile", "batch-inference"), "profile batch-inference: was not judged"),
    ],
)
def test_what_was_asked_for_and_is_not_so(words: tuple[str, ...], line: str, place: Place) -> None:
    (place.folder / "allowed").open("a").write(f"root@example.org {(place.folder / 'other.pub').read_text()}")
    assert place.refused(*words).startswith(line)


def test_without_the_site_s_profile_nothing_says_what_was_asked(place: Place) -> None:
    found = place.bench("verify", place.run, "--allowed-signers", "allowed")
    assert (found.status, found.text()) == (1, "profile site: is not known here; give it with --profile FILE\n")


def test_a_nonce_that_was_not_signed_is_missed(place: Place) -> None:
    assert place.sign().status == 0
    assert place.refused("--nonce", "8c1d") == "nonce: none was signed"


def test_the_signer_s_own_greatest_age_counts_too(place: Place) -> None:
    assert place.sign("--max-age", "1s").status == 0
    assert place.refused().startswith("age: measured") and place.refused().endswith("by the signer")


def test_this_node_is_the_one_with_its_machine_id_and_cards(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.change_run(lambda document: document["node"]["facts"].update(identity="ab" * 32))
    assert place.sign().status == 0
    monkeypatch.setattr("bench.workflows.evidence.identity", lambda: "ab" * 32)
    assert place.verify("--this-node").status == 0
    monkeypatch.setattr("bench.workflows.evidence.identity", lambda: "cd" * 32)
    assert place.refused("--this-node").startswith("node: was measured on another machine")


def test_all_that_is_wrong_is_told_at_once(place: Place) -> None:
    lines = {_flip_run(place), _add_raw(place), _flip_statement(place)}
    told = place.verify().text().splitlines()
    assert len(told) == 3 and all(any(line.startswith(one) for line in told) for one in lines)


def test_as_json(place: Place) -> None:
    found = json.loads(place.verify("--json").text())
    assert (found["holds"], found["signer"], found["failures"]) == (True, ME, [])
    assert (found["evidence"]["decision"], found["evidence"]["nonce"]) == ("GO", "8c1d")
    flip(place.run)
    found = json.loads(place.verify("--json").text())
    assert (found["holds"], len(found["failures"]), found["evidence"]) == (False, 1, None)


# --- keys


def test_one_line_for_an_ssh_ca_lets_every_node_of_a_fleet_sign(place: Place) -> None:
    folder = place.folder
    for name in ("ca", "false-ca", "node"):
        ssh_keygen("-q", "-t", "ed25519", "-N", "", "-f", folder / name)
    line = f'*.cluster.example cert-authority,namespaces="aiready-bench" {(folder / "ca.pub").read_text()}'
    (folder / "fleet").write_text(line)
    for ca, holds in (("ca", True), ("false-ca", False)):
        words: list[str | Path] = [
            "-q",
            "-s",
            folder / ca,
            "-I",
            "n17",
            "-n",
            "n17.cluster.example",
            "-V",
            "+1d",
            folder / "node.pub",
        ]
        ssh_keygen(*words)
        assert place.sign(key="node-cert.pub").status == 0
        if holds:
            assert place.verify(allowed="fleet").status == 0
            assert place.verify("--signer", "n17.cluster.example", allowed="fleet").status == 0
            assert place.refused("--signer", "n18.cluster.example", allowed="fleet").startswith("signature: ")
        else:
            assert place.refused(allowed="fleet").startswith("signature: its signer is not in fleet")


@pytest.fixture
def agent(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An agent that holds the key, which lies nowhere else."""
    socket = Path("/tmp") / f"agent-{os.getpid()}-{random.randrange(1 << 30):x}"  # a socket's path must be short
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    try:
        for _ in range(200):
            added = subprocess.run(["ssh-add", "-q", str(made / "key")], capture_output=True, timeout=20, check=False)
            if added.returncode == 0:
                break
        yield made
    finally:
        process.terminate()
        process.wait(20)
        socket.unlink(missing_ok=True)


def test_an_agent_signs(agent: Path, place: Place) -> None:
    (place.folder / "key").unlink()
    assert place.sign(key="key.pub").status == 0
    assert place.verify().status == 0


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda folder: (folder / "key").unlink(), "key: cannot sign: "),
        (lambda folder: ssh_keygen("-q", "-p", "-P", "", "-N", "secret", "-f", folder / "key"), "ssh-add it"),
        (lambda folder: (folder / "key").write_text("no key"), "key: cannot sign: "),
    ],
    ids=["absent", "passphrase", "garbage"],
)
def test_a_key_that_cannot_sign_is_one_line(
    prepare: Callable[[Path], object], words: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    before = place.statement.read_bytes(), place.signature.read_bytes()
    prepare(place.folder)
    found = place.sign()
    assert (found.status, found.text(), found.err.count("\n")) == (2, "", 1) and words in found.err
    assert before == (place.statement.read_bytes(), place.signature.read_bytes())


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_keys_of_every_kind_sign(kind: str, place: Place) -> None:
    ssh_keygen("-q", "-t", kind, "-N", "", "-f", place.folder / kind, "-C", ME)
    (place.folder / "allowed").write_text(f"{ME} {(place.folder / f'{kind}.pub').read_text()}")
    assert place.sign(key=kind).status == 0
    assert place.verify().status == 0


def test_nobody_is_asked_for_a_passphrase_on_a_terminal(place: Place) -> None:
    """With a terminal of its own ssh-keygen asks there, for ever: it gets none."""
    ssh_keygen("-q", "-p", "-P", "", "-N", "secret", "-f", place.folder / "key")
    words = [sys.executable, "-m", "bench", "sign", str(place.run), "--key", "key", "--profile", "site.toml"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "BENCH_RESULTS": str(place.folder / "results")}
    env = {name: value for name, value in env.items() if name != "SSH_AUTH_SOCK"}
    argv = ["script", "-qec", shlex.join(words), "/dev/null"]
    done = subprocess.run(argv, cwd=place.folder, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 2 and "ssh-add it" in done.stdout, done.stdout


def test_an_agent_that_never_answers_is_given_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.measure.ssh_signature._SIGN_SECONDS", 2.0)
    path = f"/tmp/agent-{os.getpid()}-{random.randrange(1 << 30):x}"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(path)
        deaf.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        (place.folder / "key").unlink()
        found = place.sign(key="key.pub")
    Path(path).unlink()
    assert (found.status, found.err.count("\n")) == (2, 1) and "ssh-keygen" in found.err


def test_the_statement_of_another_run_does_not_hold(place: Place) -> None:
    other = place.run.with_name("20260101T000000Z-000000000000.json")
    shutil.copytree(place.raw, other.with_suffix(".raw"))
    shutil.copy(place.run, other)
    for file in (place.statement, place.signature):
        shutil.copy(file, other.with_name(file.name.replace(place.run.stem, other.stem)))
    found = place.bench("verify", other, "--allowed-signers", "allowed", "--profile", "site.toml")
    assert found.status == 1 and f"{other.name}: was added after it was signed" in found.text()


def test_a_key_that_was_revoked_signs_nothing(place: Place) -> None:
    """Of a certificate too: the line of its CA stands for every other node."""
    shutil.copy(place.folder / "key.pub", place.folder / "revoked")
    line = f"signature: it is not signed by {ME}, or revoked revokes its key"
    assert place.refused("--revoked", "revoked") == line
    shutil.copy(place.folder / "other.pub", place.folder / "revoked")
    assert place.verify("--revoked", "revoked").status == 0
    ssh_keygen("-q", "-k", "-f", place.folder / "krl", place.folder / "key.pub")
    assert place.refused("--revoked", "krl").startswith("signature: ")
    missing = place.verify("--revoked", "none")
    assert missing.status == 2 and "--revoked" in missing.err, (
        "what is not there revokes nothing, and is not passed over"
    )


@pytest.mark.parametrize("what", ["pipe", "folder"])
def test_a_file_of_signers_that_is_none_is_no_answer(what: str, place: Place) -> None:
    (place.folder / "allowed").unlink()
    os.mkfifo(place.folder / "allowed") if what == "pipe" else (place.folder / "allowed").mkdir()
    found = place.verify()
    assert (found.status, found.err.count("\n")) == (2, 1)


def test_by_default_one_s_own_key_signs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place.folder))
    monkeypatch.delenv("BENCH_SIGN_KEY", raising=False)
    words: list[str | Path] = ["sign", place.run, "--profile", "site.toml"]
    found = place.bench(*words)
    assert found.status == 2 and "no key of yours lies in ~/.ssh" in found.err
    (place.folder / ".ssh").mkdir()
    for suffix in ("", ".pub"):
        (place.folder / f"key{suffix}").rename(place.folder / f".ssh/id_ed25519{suffix}")
    assert place.bench(*words).status == 0
    assert place.verify().status == 0


# --- what is not signed


def test_a_replay_and_a_run_that_nobody_judged_are_not_signed(place: Place) -> None:
    original = place.run.read_text()
    for change, words in (
        ({"replay_of": "abc"}, "is a replay of abc"),
        ({"verdicts": []}, "was never judged"),
    ):
        place.run.write_text(original)
        place.change_run(lambda document, change=change: document.update(change))  # type: ignore[misc]
        found = place.sign()
        assert found.status == 2 and words in found.err


def test_a_run_that_does_not_follow_from_its_raw_output_is_not_signed(place: Place) -> None:
    place.change_run(_twice_as_fast)
    found = place.sign()
    assert found.status == 2 and "is not signed: " in found.err


def test_nobody_is_asked_for_a_file_of_signers_that_is_not_there(place: Place) -> None:
    assert place.verify(allowed="nobody").status == 2


# --- a fleet


def test_a_fleet_s_folder_is_signed_as_a_whole(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(recorded.FOLDER / "fleets/whole", tmp_path / "whole"))
    by = ["--profile", str(recorded.FOLDER / "fleets/acceptance.toml")]
    words = ["verify", str(folder), "--allowed-signers", str(made / "allowed"), *by]
    assert said(["sign", str(folder), "--key", str(made / "key"), *by], tmp_path, tmp_path).status == 0
    found = said(words, tmp_path, tmp_path)
    assert (found.status, found.err) == (0, "") and found.text().startswith("holds: fleet ")
    (folder / "fleet.html").write_text("a page may be made of it at any time")
    assert said(words, tmp_path, tmp_path).status == 0
    told = json.loads((folder / "fleet.intoto.json").read_text())["predicate"]
    hosts = {f"n00{number}" for number in range(1, 5)}
    assert {test.partition(":")[0] for test in told["passedTests"] + told["failedTests"]} == hosts
    flip(folder / "pairs/n003--n001.json")
    assert said(words, tmp_path, tmp_path).text() == "pairs/n003--n001.json: changed since it was signed\n"


def test_a_fleet_run_signs_what_came(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(recorded.FOLDER / "fleets/whole", tmp_path / "whole"))
    by = str(recorded.FOLDER / "fleets/acceptance.toml")
    fleet = join_folder(folder, None, judgement([by]))
    monkeypatch.setattr("bench.workflows.fleet.measure", lambda *_, **__: (folder, fleet))
    words = ["fleet", "run", "-i", "n001,", "--profile", by, "--exit-zero", "--quiet"]
    assert said([*words, "--sign", "absent"], tmp_path, tmp_path).status == 2
    assert not (folder / "fleet.intoto.json").exists()
    assert said([*words, "--sign", str(made / "key")], tmp_path, tmp_path).status == 0
    asked = ["verify", str(folder), "--allowed-signers", str(made / "allowed"), "--profile", by]
    assert said(asked, tmp_path, tmp_path).text().startswith(f"holds: fleet {fleet.id}")
