"""What starting costs: nothing heavy is imported until it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "pandas", "scipy", "jinja2", "numpy", "pynvml")


def modules(*arguments: str, cwd: Path) -> set[str]:
    """Modules that ``bench ARGUMENTS`` has loaded when it ends."""
    code = (
        "import sys, json\nsys.argv = ['bench', *json.loads(sys.argv[1])]\n"
        "from bench.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], capture_output=True, text=True, cwd=cwd, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def imported(*arguments: str, cwd: Path) -> set[str]:
    """The same, top-level modules only."""
    return {name.partition(".")[0] for name in modules(*arguments, cwd=cwd)}


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("gate", "--help"), ("run", "--help"), ("gate",)])
def test_nothing_heavy_is_loaded(arguments: tuple[str, ...], tmp_path: Path) -> None:
    loaded = imported(*arguments, cwd=tmp_path)
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("name", ["feed", "peer", "gpu"])
def test_judging_a_stored_run_loads_nothing_heavy(name: str, tmp_path: Path) -> None:
    """Adding network and model up asked scipy for a binomial's tail, which took longer than the rest of the gate."""
    document = Path(__file__).parents[1] / f"recorded/runs/{name}.json"
    (tmp_path / "run.json").write_bytes(document.read_bytes())
    assert not imported("gate", "run.json", "--results", ".", cwd=tmp_path) & set(HEAVY)


def test_judging_a_stored_run_needs_of_a_probe_only_its_declaration(tmp_path: Path) -> None:
    """All probes are found for their metrics and options; what measures took a quarter of the gate's time."""
    recorded = Path(__file__).parents[1] / "recorded/runs/feed.json"
    (tmp_path / "run.json").write_bytes(recorded.read_bytes())
    loaded = modules("gate", "run.json", "--results", ".", cwd=tmp_path)
    assert {"probes.feed.probe", "probes.inference.probe", "probes.endpoint.probe", "probes.rdma"} <= loaded
    measures = ("parse", "records", "events", "load", "link", "protocol", "sampler", "echo", "bandwidth", "iperf3")
    assert not {name for name in loaded if name.startswith("probes.") and name.rpartition(".")[2] in measures}
    unused = {f"bench.cli.{name}" for name in ("run", "fleet", "schedule", "doctor", "export", "history", "peer")}
    unused |= {"asyncio", "ssl", "logging", "probes.common.nvml", "probes.expect.inventory"}
    unused |= {"bench.measure.recording", "bench.measure.tools", "bench.measure.runner", "bench.workflows.nightly"}
    unused |= {"rich._emoji_codes", "rich.markdown", "rich.live", "rich.progress", "pygments"}
    assert not loaded & unused


def test_a_stored_run_builds_no_model_that_is_not_used(tmp_path: Path) -> None:
    """What is not read (services, fio's output) is declared and no more, and nothing is looked through at the end."""
    recorded = Path(__file__).parents[1] / "recorded/runs/feed.json"
    (tmp_path / "run.json").write_bytes(recorded.read_bytes())
    code = (
        "import sys, gc\nsys.argv = ['bench', 'gate', 'run.json', '--results', '.', '--quiet']\n"
        "from bench.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "from probes.service.plan import Service\nfrom probes.storage.parse import _Output\n"
        "from bench.model import Run\n"
        "print(Run.__pydantic_complete__, Service.__pydantic_complete__, _Output.__pydantic_complete__)\n"
        "print(gc.get_freeze_count() > 10_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-2:] == ["True False False", "True"]


def test_help_does_not_even_load_the_probes(tmp_path: Path) -> None:
    assert not imported("--help", cwd=tmp_path) & {"probes", "pydantic", "rich"}
