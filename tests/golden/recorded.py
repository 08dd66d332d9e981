"""What was recorded of real machines, and what every command says of it.

``tests/recorded/runs`` holds three documents, each with the tools' raw output: ``feed`` (a node without a GPU that
feeds an emulated accelerator), ``peer`` (a `bench peer` across the loopback, inference on the CPU) and ``gpu`` (two
cards of the tests' own NVML library, one of which breaks in the middle). ``tests/recorded/nights`` is a store of three
nodes' nights with a pin and a reset, ``tests/recorded/fleets`` has the folders of two runs of `bench fleet run`, one
with every kind of fault, and one that a site's own launcher would leave. They are never recorded anew: what somebody
has stored must be read for as long as its schema version is.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bench import __version__
from bench.model import Run
from bench.workflows.catalog import load_catalog
from bench.workflows.judging import concluded
from tests.golden.said import Said, ends, page, said, table

FOLDER = Path(__file__).parents[1] / "recorded"
GOLDEN = Path(__file__).with_name("recorded")
PROFILES = ("batch-inference", "distributed-training", "realtime-inference")
#: Run -> the run that it is compared with, and the metric whose history is told.
RUNS: Mapping[str, tuple[str, str]] = {
    "feed": ("peer", "starvation_ratio"),
    "peer": ("gpu", "network_round_trip_seconds"),
    "gpu": ("feed", "accelerator_throttle_ratio"),
}
_ENDINGS = {"openmetrics": "txt", "junit": "xml", "ctrf": "json", "markdown": "md", "nagios": "txt", "npd": "txt",
            "otlp": "json", "parquet": "parquet.txt"}  # fmt: skip
_FLEET_ENDINGS = {
    form: _ENDINGS.get(form, "json") for form in ("openmetrics", "junit", "ctrf", "markdown", "nagios", "json")
}
#: How the moment at which a fleet is joined is written: in JSON and XML, on the page, in OpenMetrics, in CTRF.
_NOW = (
    (r'(joined_at"(?:: | value=))"[^"]*"', r'\1"NOW"'),
    (r"(nodes answered, joined )[^.<]*", r"\1NOW"),
    (r"(bench_fleet_joined_timestamp_seconds) [\d.e+]+", r"\1 NOW"),
    (r'("(?:stop|duration)": )\d{5,}', r"\1NOW"),
)
Commands = dict[str, list[str]]


@cache
def _document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "runs" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def lay_out(where: Path) -> None:
    """All that was recorded, in ``where``: the runs' store ``results`` with all evidence, ``nights`` and ``fleets``."""
    for name in RUNS:
        folder = where / "results" / "runs" / str(_document(name)["node"]["hostname"])
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(FOLDER / "runs" / f"{name}.raw.tar.xz") as archive:
            archive.extractall(folder, filter="data")
            raw = archive.getnames()[0]
        shutil.copy(FOLDER / "runs" / f"{name}.json", folder / f"{raw.removesuffix('.raw')}.json")
    for name in ("nights", "fleets"):
        shutil.copytree(FOLDER / name, where / name)


def replay(name: str, where: Path) -> Said:
    """What ``bench run --replay`` says of a run's evidence in the folder of `lay_out`: the document as JSON."""
    raw = next((where / "results").rglob(f"*-{_document(name)['id']}.raw")).relative_to(where)
    return said(["run", "--replay", str(raw), "--results", "replayed", "--json", "--quiet"], where, where)


def renew(name: str, where: Path) -> None:
    """The run's document with the figures that its evidence gives today, judged anew; all else is as it was stored."""
    today = {one["probe"]: one for one in json.loads(replay(name, where).text())["results"]}
    figures = ("measurements", "series", "warnings")
    kept = [
        {**one, **{key: today[one["probe"]][key] for key in figures}} if one["outcome"] == "ok" else one
        for one in _document(name)["results"]
    ]
    run = concluded(Run.model_validate({**_document(name), "results": kept}), load_catalog(PROFILES))
    text = json.dumps(run.model_dump(mode="json", by_alias=True), separators=(",", ":"), ensure_ascii=False)
    (FOLDER / "runs" / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def commands(name: str) -> Commands:
    """What is asked: file name of the golden -> the words behind ``bench``. ``name``: a run, nights or fleets."""
    return {"nights": _of_nights, "fleets": _of_fleets}.get(name, lambda: _of_run(name))()


def names() -> list[str]:
    return [*RUNS, "nights", "fleets"]


def _of_run(name: str) -> Commands:
    other, metric = RUNS[name]
    run, second, host = _document(name)["id"], _document(other)["id"], str(_document(name)["node"]["hostname"])
    asked = {
        "gate.json": ["gate", run, "--json"],
        "gate.txt": ["gate", run],
        "gate-all-gates.txt": ["gate", run, "--all-gates"],
        "gate-quiet.txt": ["gate", run, "--quiet"],
        "gate-baseline.txt": ["gate", run, "--baseline"],
        **{f"gate-{profile}.json": ["gate", run, "--profile", profile, "--json"] for profile in PROFILES},
        **{f"gate-{profile}.txt": ["gate", run, "--profile", profile, "--all-gates"] for profile in PROFILES},
        "explain.txt": ["explain", run],
        "explain-metric.txt": ["explain", run, "--metric", metric],
        "report.html": ["report", run, "-o", "page.html"],
        "compare.txt": ["compare", run, second],
        "compare-all.txt": ["compare", run, second, "--all"],
        "compare.json": ["compare", run, second, "--json"],
        "history.txt": ["history", metric, "--node", host],
        "history.json": ["history", metric, "--node", host, "--json"],
    }
    if name == "feed":
        asked["explain-all.txt"] = ["explain", run, "--all"]
        asked["report-two.html"] = ["report", run, second, "-o", "page.html"]
    exports = {f"export-{form}.{ending}": ["export", run, "-f", form] for form, ending in _ENDINGS.items()}
    return {file: [*words, "--results", "results"] for file, words in {**asked, **exports}.items()}


def _of_nights() -> Commands:
    """node01: good, suspect, regressed, good, late; node02: pinned, a slow decline, a new kernel; node03: reset."""
    told = ["node01-00009", "node01-00010", "node01-00011", "node01-00012", "node01-00013", "node02-00013",
            "node02-00014", "node03-00010"]  # fmt: skip
    by = ["--profile", "nights/nightly.toml"]
    asked = {f"gate-{run}.txt": ["gate", run, "--baseline", *by] for run in told}
    asked |= {f"gate-{run}.json": ["gate", run, "--baseline", *by, "--json"] for run in told}
    asked["gate-detect.json"] = ["gate", "node01-00013", "--baseline", "--detect", "5%", *by, "--json"]
    for node in ("node01", "node02", "node03"):
        asked[f"baseline-{node}.txt"] = ["baseline", "show", "--node", node, *by]
        asked[f"baseline-{node}.json"] = ["baseline", "show", "--node", node, *by, "--json"]
        asked[f"history-{node}.txt"] = ["history", "storage_read_bytes_per_second", "--node", node]
    asked["compare.txt"] = ["compare", "node01-00009", "node01-00011", "--all"]
    asked["report.html"] = ["report", "node01-00013", "-o", "page.html"]
    return {file: [*words, "--results", "nights"] for file, words in asked.items()}


def _of_fleets() -> Commands:
    more = {"whole": [], "broken": [], "loose": [], "moved": ["--against", "before", "--again", "again"]}
    asked: Commands = {}
    for name, words in more.items():
        folder = "loose" if name == "moved" else name
        end = [folder, *words, "--profile", "acceptance.toml"]
        asked[f"{name}-join.txt"] = ["fleet", "join", *end]
        asked[f"{name}-join-quiet.txt"] = ["fleet", "join", *end, "--quiet"]
        asked[f"{name}-join.json"] = ["fleet", "join", *end, "--json"]
        asked[f"{name}-join.html"] = ["fleet", "join", *end, "--quiet", "--page", "page.html"]
        for form, ending in _FLEET_ENDINGS.items():
            asked[f"{name}-export-{form}.{ending}"] = ["fleet", "export", *end, "-f", form]
    return asked


def answer(name: str, file: str, where: Path) -> tuple[Said, str]:
    """The answer to one of `commands` in the folder of `lay_out`, and its text as the golden keeps it."""
    within = where / "fleets" if name == "fleets" else where
    found = said(commands(name)[file], within, where)
    text = _kept(file, found, within)
    return found, _joined_some_time(text) if name == "fleets" else text


def _kept(file: str, found: Said, within: Path) -> str:
    if file.endswith(".parquet.txt"):
        return table(found.out)
    if not file.endswith(".html"):
        return found.text()
    text = page((within / "page.html").read_text(encoding="utf-8"))
    # Only here does the program that draws the page name itself; all else names the one that measured.
    return text.replace(f"<small>aiready-bench {__version__}. This page", "<small>aiready-bench VERSION. This page")


def _joined_some_time(text: str) -> str:
    """A fleet's text without the moment at which it was joined, and the version that joined it: now, and this one."""
    for before, after in _NOW:
        text = re.sub(before, after, text)
    return text.replace(f'"{__version__}"', '"VERSION"').replace(
        f"aiready-bench {__version__}<", "aiready-bench VERSION<"
    )


def check(name: str, file: str, where: Path) -> None:
    """Assert that this command says what its golden says, and ends as it did."""
    found, text = answer(name, file, where)
    assert text == (GOLDEN / name / file).read_bytes().decode("utf-8")
    assert [found.status, found.err] == ends(GOLDEN / name)[file]


def write_all(where: Path) -> None:
    """Write every golden anew, with ``where`` as an empty folder to work in."""
    from tests.golden.said import write

    lay_out(where)
    for name in names():
        write(GOLDEN / name, {file: answer(name, file, where) for file in commands(name)})
