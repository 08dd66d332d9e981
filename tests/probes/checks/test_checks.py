"""Declared checks: each mistake in the file has its line, and nothing that is open, expired or changed passes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.judge.toml_lines import TomlError
from probes.checks import parse as parsing
from probes.checks.look import LookedCheck, LookedFile, looked
from probes.checks.plan import load, read
from tests.golden.said import Said, said

POLICY = b"data lies in Frankfurt\n"
DIGEST = hashlib.sha256(POLICY).hexdigest()
FAR = (datetime.now(UTC).date() + timedelta(days=200)).isoformat()
GOOD = f"""\
[[check]]
name = "residency"
question = "Where does the data lie?"
owner = "data-protection@example.org"
answer = "Frankfurt"
evidence = "policy.txt"
sha256 = "{DIGEST}"
expires = {FAR}

[[check]]
name = "on-call"
question = "Who is called?"
owner = "the platform team's on-call"
answer = "+49 ..."
evidence = "https://wiki.example.org/on-call"
expires = {FAR}
"""


def mistakes(text: str | bytes, tmp_path: Path) -> list[str]:
    file = tmp_path / "c.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TomlError) as caught:
        load(read(file), "c.toml")
    return [line.removeprefix(f"{tmp_path}/") for line in caught.value.mistakes]


WRONG: list[tuple[str, str, str]] = [  # what is replaced, by what, and the line
    ("[[check]]", "[[chek]]", "c.toml:1: unknown key `chek`; did you mean `check`?"),
    ('name = "residency"', "", "c.toml:1: `name` is missing"),
    ('question = "Where does the data lie?"', "", "c.toml:1: `question` is missing"),
    ('question = "Where does the data lie?"', 'question = "  "', "c.toml:3: `question` must not be empty"),
    ("owner =", "ower =", "c.toml:4: unknown key `ower`; did you mean `owner`?"),
    ('owner = "data', 'owner = 7 # "data', "c.toml:4: `owner` must be a string in quotes"),
    ('"data-protection@example.org"', '["a", "b"]', "c.toml:4: `owner` must be a string in quotes"),
    ('"data-protection@example.org"', '"a\\nb"', "c.toml:4: `owner` must be one line, without control characters"),
    ('"data-protection@example.org"', '"\\u001b[31mred"', "c.toml:4: `owner` must be one line, without control"),
    ('"data-protection@example.org"', f'"{"x" * 301}"', "c.toml:4: `owner`: String should have at most 300"),
    ('"Frankfurt"', "true", "c.toml:5: `answer` must be a string in quotes"),
    ('"Frankfurt"', f'"{"x" * 5000}"', "c.toml:5: `answer`: String should have at most 4000"),
    ('"residency"', '"Residency!"', "c.toml:2: `name` must be lower case with digits and -"),
    ('"on-call"', '"residency"', "c.toml:11: the check `residency` is there twice"),
    ('"policy.txt"', '"/etc/passwd"', "c.toml:6: `evidence` must lie beside this file, or below it"),
    ('"policy.txt"', '"../policy.txt"', "c.toml:6: `evidence` must lie beside this file, or below it"),
    ('"policy.txt"', '"a/../../policy.txt"', "c.toml:6: `evidence` must lie beside this file, or below it"),
    ('"policy.txt"', '"file:///etc/passwd"', "c.toml:6: `evidence` must be a file, or begin with https://"),
    ('"policy.txt"', '"javascript://alert(1)"', "c.toml:6: `evidence` must be a file, or begin with https://"),
    ('"policy.txt"', '"https://"', "c.toml:6: `evidence` must be a file, or begin with https://"),
    ('"policy.txt"', '"https://u:secret@wiki.example.org/"', "c.toml:6: `evidence` holds a password"),
    ('"policy.txt"', '"https://[::1/"', "c.toml:6: `evidence` is no URL"),
    ('"policy.txt"', '"a\\u0000b"', "c.toml:6: `evidence` must be one line, without control characters"),
    ('"policy.txt"', '"https://wiki.example.org/"', "c.toml:7: `sha256` is of a file, and `evidence` names none"),
    ('evidence = "policy.txt"', "", "c.toml:7: `sha256` is of a file, and `evidence` names none"),
    (DIGEST, "abc", "c.toml:7: `sha256` must be 64 hexadecimal digits, as sha256sum prints them"),
    (DIGEST, DIGEST.upper(), "c.toml:7: `sha256` must be 64 hexadecimal digits, as sha256sum prints them"),
    (f"expires = {FAR}", f'expires = "{FAR}"', "c.toml:8: `expires` must be a date without quotes"),
    (f"expires = {FAR}", f"expires = {FAR}T12:00:00Z", "c.toml:8: `expires` must be a date without quotes"),
    (f"expires = {FAR}", "expires = 20270630", "c.toml:8: `expires` must be a date without quotes"),
    (f"expires = {FAR}", "expires = 2027-02-30", "c.toml:8: not TOML"),
    ('answer = "Frankfurt"', 'answer = "Frankfurt', "c.toml:5: not TOML"),
    ('answer = "Frankfurt"', 'answer = "a"\nanswer = "b"', "c.toml:6: not TOML: Cannot overwrite a value"),
]


def test_a_good_file_is_read_with_its_lines() -> None:
    found = load(GOOD, "c.toml")
    assert [(line, check.name, check.is_url) for line, check in found] == [
        (1, "residency", False),
        (10, "on-call", True),
    ]


@pytest.mark.parametrize(("old", "new", "line"), WRONG)
def test_each_mistake_has_its_line(old: str, new: str, line: str, tmp_path: Path) -> None:
    assert old in GOOD
    (found,) = mistakes(GOOD.replace(old, new, 1), tmp_path)
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "c.toml:1: there is no [[check]]"),
        ("check = []", "c.toml:1: there is no [[check]]"),
        ("check = 3", "c.toml:1: `check` must be written as [[check]] tables"),
        ("check = [3]", "c.toml:1: a check must be a table under [[check]]"),
        (GOOD.encode() + b"\xff", "c.toml:17: not UTF-8"),
        (b"\xef\xbb\xbf" + GOOD.encode(), "c.toml:1: begins with a byte order mark"),
        ("a = " + "[" * 5000, "c.toml:1: nested too deeply"),
        ("a = " + "9" * 5000, "c.toml:1: not TOML: a number has too many digits"),
        ("#" * (1 << 20) + "\n" + GOOD, "c.toml: is larger than 1 MiB, which no file of checks is"),
        ("".join(f'[[check]]\nname = "c{n}"\nquestion = "?"\n' for n in range(501)),
         "c.toml:1: there are more than 500 [[check]]"),
    ],
)  # fmt: skip
def test_a_file_that_is_none(text: str | bytes, line: str, tmp_path: Path) -> None:
    (found,) = mistakes(text, tmp_path)
    assert found.startswith(line)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "{}/pipe", "{}/folder", "{}/absent", "{}/loop"])
def test_what_is_no_file_is_refused_at_once(path: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    file = path.format(tmp_path)
    found = run(tmp_path, "--checks", file)
    assert (found.status, found.text()) == (2, "")
    assert found.err.startswith(f"bench: {file}: ") and found.err.count("\n") == 1


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace('"on-call"', '"residency"').replace('"policy.txt"', '"/x"').replace("answer", "anser", 1)
    assert [line.split(":")[1] for line in mistakes(text, tmp_path)] == ["5", "6", "11"]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_file_holds_each_mistake_has_its_line(seed: int) -> None:
    """Two hundred files a seed, each a good one with a few characters replaced by others that mean something."""
    chance, found = random.Random(seed), [0, 0]
    pieces = ['"', "'", "[", "]", "{", "=", "\n", "#", ".", "1", "\\", "\0", "é", "[[check]]", "name", 'sha256 = "x"',
              "expires = 2027-01-01", "\t", ",", "true"]  # fmt: skip
    for _ in range(200):
        text = GOOD
        for _ in range(chance.randint(1, 4)):
            at, more = chance.randrange(len(text)), chance.choices(pieces, k=chance.randint(0, 2))
            text = text[:at] + "".join(more) + text[at + chance.choice([0, 1, 2, 5, 40]) :]
        try:
            assert load(text, "c.toml")
            found[0] += 1
        except TomlError as error:
            assert all(re.match(r"c\.toml:[1-9]\d*: .", line) for line in error.mistakes)
            found[1] += 1
    assert min(found) > 10


# --- what stands and what does not


def run(folder: Path, *words: str) -> Said:
    asked = ["run", "--probe", "checks", "--no-quiet-check", "--quiet", "--json", "--results", "results", *words]
    return said(asked, folder, folder)


def declared(folder: Path, text: str = GOOD) -> dict[str, Any]:
    """The run of a folder with this file and its evidence."""
    (folder / "policy.txt").write_bytes(POLICY)
    (folder / "checks.toml").write_text(text)
    found = run(folder, "--checks", "checks.toml")
    document: dict[str, Any] = json.loads(found.text())
    return document


def governance(document: dict[str, Any]) -> tuple[str, dict[str, float], list[str]]:
    """Decision, figures, and what is told of the checks."""
    (verdict,) = [one for one in document["verdicts"] if one["profile"] == "governance"]
    (result,) = [one for one in document["results"] if one["probe"] == "checks"]
    figures = {m["metric"]: m["value"] for m in result["measurements"]}
    assert all(m["labels"] == {} for m in result["measurements"])
    return verdict["decision"], figures, result["warnings"]


def test_checks_that_stand_are_go_and_the_run_names_what_they_stand_on(tmp_path: Path) -> None:
    document = declared(tmp_path)
    assert governance(document) == ("GO", {"checks_open": 0.0, "checks_expired": 0.0}, [])
    (result,) = [one for one in document["results"] if one["probe"] == "checks"]
    file = hashlib.sha256(GOOD.encode()).hexdigest()
    assert [(one["kind"], one["name"], one["sha256"]) for one in result["sources"]] == [
        ("checks", "checks.toml", file), ("evidence", "policy.txt", DIGEST)
    ]  # fmt: skip
    assert document["sources"][0]["kind"] == "product"
    words = ["explain", document["id"], "checks_open", "--results", "results"]
    explained = said(words, tmp_path, tmp_path).text()
    assert file in explained and DIGEST in explained and document["sources"][0]["sha256"] in explained
    assert POLICY.decode().strip() not in json.dumps(document)


OPEN: list[tuple[str, str, str, str]] = [
    ('owner = "data-protection@example.org"', "", "checks_open", "checks.toml:1: residency: no owner"),
    ('answer = "Frankfurt"', 'answer = ""', "checks_open", "checks.toml:1: residency: no answer"),
    (f"expires = {FAR}", "", "checks_open", "checks.toml:1: residency: no expiry"),
    (f"expires = {FAR}", "expires = 2026-01-31", "checks_expired", "checks.toml:1: residency: expired on 2026-01-31"),
    (f'sha256 = "{DIGEST}"', "", "checks_open", f'residency: its evidence is not held: add sha256 = "{DIGEST}"'),
    (DIGEST, "ab" * 32, "checks_open", "residency: its evidence policy.txt changed since it was declared; it is "),
    ('"policy.txt"', '"absent.txt"', "checks_open", "residency: its evidence absent.txt is not there"),
]


@pytest.mark.parametrize(("old", "new", "metric", "line"), OPEN)
def test_what_does_not_stand_is_no_go_with_its_line(old: str, new: str, metric: str, line: str, tmp_path: Path) -> None:
    decision, figures, told = governance(declared(tmp_path, GOOD.replace(old, new, 1)))
    assert (decision, figures[metric], sum(figures.values())) == ("NO-GO", 1.0, 1.0)
    (text,) = told
    assert line in text
    explained = said(["explain", metric, "--results", "results"], tmp_path, tmp_path).text()
    assert " ".join(text.split()) in " ".join(explained.split())


def test_what_to_do_next_asks_for_the_same_checks(tmp_path: Path) -> None:
    document = declared(tmp_path, GOOD.replace(DIGEST, "ab" * 32))
    screen = said(["gate", document["id"], "--results", "results"], tmp_path, tmp_path).text()
    (line,) = [line for line in screen.splitlines() if "--probe checks" in line]
    assert "--option checks.checks=checks.toml" in line
    assert run(tmp_path, *line.split("--probe checks ")[1].split()).status == 1


def test_without_a_file_nothing_is_asked_and_governance_is_not_judged(tmp_path: Path) -> None:
    document = json.loads(run(tmp_path).text())
    assert "governance" not in {verdict["profile"] for verdict in document["verdicts"]}
    (result,) = [one for one in document["results"] if one["probe"] == "checks"]
    assert result["reason"].startswith("not_asked_for: ")
    named = json.loads(run(tmp_path, "--profile", "governance").text())
    assert [verdict["decision"] for verdict in named["verdicts"]] == ["INCONCLUSIVE"]


def test_the_site_may_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "policy.txt").write_bytes(POLICY)
    (tmp_path / "checks.toml").write_text(GOOD)
    (tmp_path / "bench.toml").write_text('checks = "checks.toml"\n')
    assert governance(json.loads(run(tmp_path).text()))[0] == "GO"


def test_a_run_is_judged_again_and_replayed_with_them(tmp_path: Path) -> None:
    document = declared(tmp_path, GOOD.replace(DIGEST, "ab" * 32))
    again = said(["gate", document["id"], "--results", "results", "--json"], tmp_path, tmp_path)
    assert {v["profile"]: v["decision"] for v in json.loads(again.text())["verdicts"]}["governance"] == "NO-GO"
    (tmp_path / "policy.txt").unlink()  # what was found then stands
    (raw,) = tmp_path.glob("results/runs/*/*.raw")
    replayed = said(["run", "--replay", str(raw), "--json", "--results", "again"], tmp_path, tmp_path)
    assert governance(json.loads(replayed.text())) == governance(document)


def test_a_run_with_checks_is_signed_and_verified(tmp_path: Path) -> None:
    (tmp_path / "policy.txt").write_bytes(POLICY)
    (tmp_path / "checks.toml").write_text(GOOD)
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=60)
    (tmp_path / "signers").write_text(f"sre {key.with_name('key.pub').read_text()}")
    words = ("--checks", "checks.toml", "--profile", "governance", "--sign", str(key), "--nonce", "n1")
    document = json.loads(run(tmp_path, *words).text())
    asked = ["verify", document["id"], "--allowed-signers", "signers", "--results", "results", "--this-node"]
    found = said([*asked, "--only-go", "--nonce", "n1", "--profile", "governance"], tmp_path, tmp_path)
    assert (found.status, found.err) == (0, ""), found.text()
    (statement,) = tmp_path.glob("results/runs/*/*.intoto.json")
    named = {one["name"] for one in json.loads(statement.read_text())["predicate"]["configuration"]}
    assert {"profile governance", "checks checks.toml", "evidence policy.txt"} <= named
    assert any(name.startswith("product aiready-bench ") for name in named)


def test_a_key_that_cannot_sign_is_found_before_anything_is_measured(tmp_path: Path) -> None:
    found = run(tmp_path, "--sign", "absent")
    assert found.status == 2 and "absent: cannot sign" in found.err
    assert not (tmp_path / "results").exists()
    assert run(tmp_path, "--nonce", "n1").status == 2


# --- evidence


def _device(place: Path) -> None:
    os.mknod(place, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero


def _pipe(place: Path) -> None:
    os.mkfifo(place)


def _folder(place: Path) -> None:
    place.mkdir()


def _link(place: Path) -> None:
    place.symlink_to("/etc/passwd")


def _loop(place: Path) -> None:
    place.symlink_to(place.name)


def _huge(place: Path) -> None:
    place.touch()
    os.truncate(place, 10 << 30)


HOSTILE = [
    (_device, "is no regular file"), (_pipe, "is no regular file"), (_folder, "is no regular file"),
    (_link, "is a link, which is not followed"), (_loop, "is a link, which is not followed"),
    (_huge, "is larger than 256 MiB"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "why"), HOSTILE, ids=[make.__name__.strip("_") for make, _ in HOSTILE])
def test_evidence_that_is_none_is_refused_without_being_read(
    make: Callable[[Path], None], why: str, tmp_path: Path
) -> None:
    """In bounded time: as long as looking at a small file takes, and a few times that, not as 10 GB take."""
    if make is _device and os.geteuid() != 0:
        pytest.skip("needs root: it makes a device")
    (tmp_path / "checks.toml").write_text(GOOD)
    (tmp_path / "policy.txt").write_bytes(POLICY)
    began = time.process_time()
    looked(tmp_path / "checks.toml")
    small = time.process_time() - began
    (tmp_path / "policy.txt").unlink()
    make(tmp_path / "policy.txt")
    began = time.process_time()
    found = looked(tmp_path / "checks.toml")
    assert time.process_time() - began < 20 * small + 0.1
    (check,) = [row for row in found if isinstance(row, LookedCheck) and row.name == "residency"]
    assert (check.found, check.why) == ("", why)


def test_a_folder_behind_a_link_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to("/etc")
    (tmp_path / "checks.toml").write_text(GOOD.replace('"policy.txt"', '"docs/passwd"'))
    (row,) = [row for row in looked(tmp_path / "checks.toml") if isinstance(row, LookedCheck) and row.line == 1]
    assert (row.found, row.why) == ("", "lies behind a link, which is not followed")


def test_evidence_below_the_file_is_found_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "site/docs").mkdir(parents=True)
    (tmp_path / "site/docs/policy.txt").write_bytes(POLICY)
    (tmp_path / "site/checks.toml").write_text(GOOD.replace('"policy.txt"', '"docs/policy.txt"'))
    assert governance(json.loads(run(tmp_path, "--checks", "site/checks.toml").text()))[0] == "GO"


# --- the last day, and what is told


def check(**changes: Any) -> LookedCheck:
    whole = {"name": "n", "line": 3, "question": "?", "owner": "o", "answer": "a", "evidence": "e", "declared": DIGEST,
             "expires": "2027-06-30", "found": DIGEST}  # fmt: skip
    return LookedCheck(**{**whole, **changes})


@pytest.mark.parametrize(("today", "over"), [("2027-06-29", 0.0), ("2027-06-30", 0.0), ("2027-07-01", 1.0)])
def test_a_check_counts_to_the_end_of_its_last_day(today: str, over: float) -> None:
    opened, expired = parsing.figures(LookedFile("c.toml", DIGEST, today), [check()])
    assert (opened.value, expired.value, expired.samples) == (0.0, over, 1)


def test_of_many_that_do_not_stand_the_first_fifty_are_told() -> None:
    file = LookedFile("c.toml", DIGEST, "2026-01-01")
    told = parsing.told(file, [check(name=f"c{n}", owner="") for n in range(60)])
    assert (len(told), told[0], told[-1]) == (51, "c.toml:3: c0: no owner", "c.toml: 10 more checks do not stand")


# --- the template


def test_the_template_covers_what_is_asked_and_is_all_open(tmp_path: Path) -> None:
    found = said(["checks", "init"], tmp_path, tmp_path)
    assert found.status == 0 and "13 checks" in found.text()
    checks = [one for _, one in load((tmp_path / "checks.toml").read_text(), "checks.toml")]
    asked = "accountable-owner data-classification data-residency access-by-role lineage data-contracts api-owners"
    assert {*asked.split(), "escalation-path", "retention", "model-observability"} <= {one.name for one in checks}
    assert all(one.question.endswith("?") and one.guidance.endswith(".") for one in checks)
    sources = " ".join(one.source for one in checks)
    assert sources.count("NIST AI RMF") >= 8
    for safeguard in ("164.312(a)(1)", "(a)(2)(i)", "164.312(b)", "164.312(c)(1)", "(d)", "(e)(1)"):
        assert safeguard in sources
    decision, figures, told = governance(json.loads(run(tmp_path, "--checks", "checks.toml").text()))
    assert (decision, figures["checks_open"], len(told)) == ("NO-GO", 13.0, 13)


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "checks.toml").write_text("mine")
    assert said(["checks", "init"], tmp_path, tmp_path).status == 2
    assert (tmp_path / "checks.toml").read_text() == "mine"
