"""``bench gate`` on documents and profiles written by the contract: status, decision, finding, score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.bench import bench, document, measurement, stored

READ = "storage_read_bytes_per_second"


def profile(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(f'name = "{path.stem}"\ndescription = "d"\n{text}')
    return path


def gate_text(limit: str = "min = 1e9", **extra: str) -> str:
    lines = "".join(f"{key} = {value}\n" for key, value in extra.items())
    return f'[[gate]]\nmetric = "{READ}"\n{limit}\nsource = "s"\nremedy = "r"\n{lines}'


@pytest.mark.parametrize(
    ("value", "low", "high", "status", "decision", "finding"),
    [
        (2e9, 1.9e9, 2.1e9, 0, "GO", "pass"),
        (1e9, 1e9, 1e9, 3, "INCONCLUSIVE", "undecided"),  # the next session may be either
        (0.5e9, 0.4e9, 0.6e9, 1, "NO-GO", "fail"),
        (1.1e9, 0.9e9, 1.3e9, 3, "INCONCLUSIVE", "undecided"),
    ],
)
def test_the_status_follows_the_interval(
    results: Path, value: float, low: float, high: float, status: int, decision: str, finding: str
) -> None:
    path = stored(results, document([measurement(READ, value, low, high, path="/data", pattern="sequential")]))
    done = bench("gate", path, "--profile", profile(results, gate_text()), "--json", cwd=results)
    assert done.returncode == status, done.stderr
    answer = json.loads(done.stdout)
    (verdict,) = answer["verdicts"]
    assert set(answer) >= {"run", "verdicts", "regressions"}
    assert answer["run"] == "abc123"
    assert (verdict["decision"], verdict["findings"][0]["status"]) == (decision, finding)
    assert (verdict["score"] == 100) is (decision == "GO")


def test_without_data_a_required_gate_is_inconclusive_and_says_why(results: Path) -> None:
    run = document([], results=[{"probe": "storage", "outcome": "unsupported", "reason": "tool_missing: no fio",
                                 "duration_seconds": 0, "evidence": [], "measurements": []}])  # fmt: skip
    path = stored(results, run)
    done = bench("gate", path, "--profile", profile(results, gate_text()), "--json", cwd=results)
    assert done.returncode == 3
    (finding,) = json.loads(done.stdout)["verdicts"][0]["findings"]
    assert finding["status"] == "no_data"
    assert finding["observed"] is None
    assert finding["reason"].startswith("probe_unsupported: ")
    assert "tool_missing" in finding["reason"]


def test_a_stand_in_satisfies_only_who_accepts_it(results: Path) -> None:
    path = stored(results, document([measurement(READ, 2e9, 2e9, 2e9, path="/d", stand_in="loopback")]))
    strict = profile(results, gate_text(), "strict.toml")
    lenient = profile(results, gate_text(accept_stand_in="true"), "lenient.toml")
    done = bench("gate", path, "--profile", strict, "--profile", lenient, "--json", cwd=results)
    verdicts = {v["profile"]: v for v in json.loads(done.stdout)["verdicts"]}
    assert done.returncode == 3
    assert verdicts["strict"]["decision"] == "INCONCLUSIVE"
    assert verdicts["lenient"]["decision"] == "GO"
    assert "loopback" in bench("gate", path, "--profile", lenient, cwd=results).stdout


def test_the_worst_of_several_decides(results: Path) -> None:
    good, bad = (measurement(READ, v, v, v, path=p) for v, p in ((2e9, "/a"), (0.5e9, "/b")))
    path = stored(results, document([good, bad]))
    done = bench("gate", path, "--profile", profile(results, gate_text()), "--json", cwd=results)
    assert done.returncode == 1
    assert json.loads(done.stdout)["verdicts"][0]["findings"][0]["observed"] == 0.5e9


def test_the_newest_run_of_this_node_is_the_default(results: Path) -> None:
    stored(results, document([measurement(READ, 0.1e9, 0.1e9, 0.1e9)], "old"), "20261121T100000Z-old")
    stored(
        results,
        document([measurement(READ, 2e9, 2e9, 2e9)], "new", started_at="2026-11-23T10:00:00Z"),
        "20261123T100000Z-new",
    )
    mine = profile(results, gate_text())
    done = bench("gate", "--results", results, "--profile", mine, "--json", cwd=results)
    assert json.loads(done.stdout)["run"] == "new"
    assert done.returncode == 0
    by_id = bench("gate", "old", "--results", results, "--profile", mine, cwd=results)
    assert by_id.returncode == 1


@pytest.mark.parametrize(
    ("metric", "limit", "place", "said"),
    [
        ("storage_read_bytes_per_secnd", "min = 1", ":4", READ),
        (READ, "mim = 1", ":5", "min"),
        (READ, 'min = "fast"', ":5", "number"),
        (READ, "min = 1\nmax = 2", ":", "min"),
        (f'{READ}"\nmetric = "twice', "min = 1", ":5", ""),
    ],
)
def test_a_mistake_in_a_profile_names_file_line_and_mend(
    results: Path, metric: str, limit: str, place: str, said: str
) -> None:
    path = stored(results, document([measurement(READ, 1, 1, 1)]))
    text = f'[[gate]]\nmetric = "{metric}"\n{limit}\nsource = "s"\n'
    done = bench("gate", path, "--profile", profile(results, text), cwd=results)
    assert done.returncode == 2
    assert f"mine.toml{place}" in done.stderr
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.update(schema="other"),
        lambda d: d.update(schema_version=99),
        lambda d: d["results"][0]["measurements"][0].update(value="fast"),
        lambda d: d["results"][0].update(outcome="fine"),
        lambda d: d.pop("node"),
    ],
)
def test_a_run_file_that_cannot_be_used_is_status_2_and_one_line(results: Path, spoil: object) -> None:
    run = document([measurement(READ, 1, 1, 1)])
    spoil(run)  # type: ignore[operator]
    (results / "x.json").write_text(json.dumps(run))
    done = bench("gate", results / "x.json", cwd=results)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "x.json" in done.stderr


def test_no_run_and_no_such_run_say_what_to_do(results: Path) -> None:
    assert "bench run" in bench("gate", "--results", results, cwd=results).stderr
    done = bench("gate", "nothing", "--results", results, cwd=results)
    assert done.returncode == 2
    assert "nothing" in done.stderr


def test_exit_zero_and_quiet(results: Path) -> None:
    path = stored(results, document([measurement(READ, 0.5e9, 0.5e9, 0.5e9)]))
    done = bench("gate", path, "--profile", profile(results, gate_text()), "--exit-zero", "--quiet", cwd=results)
    assert done.returncode == 0
    assert done.stdout == "NO-GO mine score 50 (1 of 1 measured, weakest 50)\n"


@pytest.mark.parametrize(
    "arguments",
    [("gate",), ("explain",), ("report",), ("gate", "--profile"), ("run", "--storage"), ("run", "--expect")],
)
def test_a_foreign_name_neither_adds_a_line_nor_commands_the_terminal(
    results: Path, arguments: tuple[str, ...]
) -> None:
    done = bench(*arguments, "/none/\x1b[2J\nbench: GO\u202e", cwd=results)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.isprintable() and "/none/" in line


@pytest.mark.slow
def test_usage_errors_are_status_2(results: Path) -> None:
    for arguments in (["gate", "--no-such-option"], ["no-such-command"], ["run", "--effort", "heroic"],
                      ["run", "--peer", "-oProxyCommand=x"], ["run", "--probe", "storag"],
                      ["run", "--storage", "/no/such/place"], ["run", "--accelerator", "abacus"]):  # fmt: skip
        done = bench(*arguments, "--results", results, cwd=results) if arguments[0] == "run" else bench(
            *arguments, cwd=results
        )  # fmt: skip
        assert done.returncode == 2, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_does_not_turn_into_a_verdict(results: Path) -> None:
    import shlex
    import subprocess
    import sys

    path = stored(results, document([measurement(READ, 2e9, 2e9, 2e9)]))
    mine = profile(results, gate_text())
    script = f"{shlex.quote(sys.executable)} -m bench gate {path} --profile {mine} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=results, check=False)
    assert done.stdout.strip() == "0"


def test_site_settings_are_read_and_their_mistakes_named(results: Path) -> None:
    mine = profile(results, gate_text())
    stored(results, document([measurement(READ, 2e9, 2e9, 2e9)]))
    (results / "bench.toml").write_text(f'profile = ["{mine}"]\nresults = "{results}"\n')
    assert bench("gate", cwd=results).returncode == 0
    (results / "bench.toml").write_text('profil = ["x"]\n')
    done = bench("gate", cwd=results)
    assert done.returncode == 2
    assert "did you mean profile" in done.stderr
