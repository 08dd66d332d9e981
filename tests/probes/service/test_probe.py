"""From `[[service]]` in `bench.toml` and `bench run` to the verdict, and no secret in anything that is written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench.model import Run
from tests import forks
from tests.probes.service.harness import server

PLANTED = {"env": "pl4nted-in-the-environment", "headers": "pl4nted-in-the-headers", "body": "pl4nted-in-the-body"}


def bench(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command where that folder's bench.toml counts."""
    env = {**os.environ, "CRM_AUTHORIZATION": f"Bearer {PLANTED['env']}"}
    return forks.run("bench", [str(word) for word in words], cwd=folder, env=env)


def site(folder: Path, port: int, more: str = "") -> None:
    (folder / "crm.headers").write_text(f"X-Api-Key: {PLANTED['headers']}\n")
    (folder / "search.json").write_text(PLANTED["body"])
    (folder / "bench.toml").write_text(
        f'[[service]]\nname = "crm"\nurl = "http://127.0.0.1:{port}/accounts"\nmethod = "POST"\nsafe = true\n'
        'headers_file = "crm.headers"\nheaders_env = { Authorization = "CRM_AUTHORIZATION" }\n'
        f'body_file = "search.json"\npointer = "/records/0/id"\nbudget_seconds = 5\n{more}'
    )


RUN = ("run", "--probe", "service", "--effort", "quick", "--accelerator", "cpu", "--no-quiet-check")


@pytest.mark.slow
def test_a_declared_service_is_judged_and_no_secret_is_written(tmp_path: Path) -> None:
    results, log = tmp_path / "results", tmp_path / "log"
    with server(fault="status 503", every=2, log=str(log)) as port:
        site(tmp_path, port)
        done = bench(tmp_path, *RUN, "--results", results, "--json")
    assert done.returncode == 1, done.stderr
    run = Run.model_validate_json(done.stdout)
    (verdict,) = (verdict for verdict in run.verdicts if verdict.profile == "agent")
    assert verdict.decision.value == "NO-GO"
    (ratio,) = (m for m in run.measurements() if m.metric == "service_success_ratio")
    assert ratio.labels == {"service": "crm", "budget_seconds": "5"}
    assert ratio.samples == 50 and 0.4 < ratio.value < 0.6, "what this machine sent too late itself does not count"
    assert "crm: at most 500 requests, 10 a second, 50 s; they show 99 %" in done.stderr
    seen = log.read_text()
    assert all(secret in seen for secret in PLANTED.values()), "the service itself gets them"

    replayed = bench(tmp_path, *RUN, "--results", results, "--json", "--replay", next(results.rglob("*.raw")))
    judged = bench(tmp_path, "gate", "--results", results).stdout
    assert "bench run --probe service --effort quick --service crm" in " ".join(judged.replace("\\", "").split())
    explained = bench(tmp_path, "explain", "--all", "--results", results)
    said = [done.stdout, done.stderr, replayed.stdout, replayed.stderr, explained.stdout, explained.stderr]
    written = [file.read_bytes() for file in results.rglob("*") if file.is_file()]
    assert len(written) > 2 and replayed.returncode == 1, replayed.stderr
    for secret in [*PLANTED.values(), "s3cr3t-answer"]:
        for at in range(len(secret) - 9):
            piece = secret[at : at + 10]
            assert not any(piece.encode() in data for data in written) and not any(piece in text for text in said)


def test_what_would_be_sent_is_said_and_nothing_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with server(log=str(log)) as port:
        site(tmp_path, port)
        done = bench(tmp_path, "run", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"POST http://127.0.0.1:{port}/accounts" in done.stdout and "at most 900 requests" in done.stdout
    assert not log.read_text()


def test_other_probes_by_name_send_nothing_to_a_declared_service(tmp_path: Path) -> None:
    site(tmp_path, 9)
    assert "nothing is sent" in bench(tmp_path, "run", "--dry-run", "--probe", "host").stdout


@pytest.mark.parametrize(
    ("words", "more", "says"),
    [
        (("--service", "mail"), "", "--service mail: no such [[service]] in bench.toml (there are: crm)"),
        (("--service", "https://u:pl4nted@h/"), "", "--service URL: must be http"),
        ((), 'methd = "GET"\n', "bench.toml:11: unknown key `methd`; did you mean `method`?"),
        ((), 'schema_file = "none.json"\n', "none.json: No such file or directory"),
        (("--option", "service.service=pl4nted"), "", "--option: "),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_quotes_no_secret(
    words: tuple[str, ...], more: str, says: str, tmp_path: Path
) -> None:
    site(tmp_path, 9, more)
    done = bench(tmp_path, "run", "--dry-run", *words)
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and "pl4nted" not in done.stderr
