"""`make bundle`: one file that measures and judges on a node with Python and nothing else, without a network."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: What a bare system has besides Python; neither fio nor iperf3.
BARE = ("sh", "cat", "env", "setpriv", "uname")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def built(out: Path, version: str = "", processor: str = "") -> Path:
    """For this Python and processor, or others."""
    version = version or f"{sys.version_info[0]}.{sys.version_info[1]}"
    words = [ROOT / "tools/bundle", Path(sys.prefix) / "bin/pip", version, processor or platform.machine(), out]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    assert done.stdout.strip().endswith(str(made))
    return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a folder with a space in its name."""
    return built(tmp_path_factory.mktemp("a bundle"))


def torch_alone(folder: Path) -> Path:
    """torch and what it requires, as a node has it that has nothing of ours."""
    queue, seen = ["torch"], {"torch"}
    while queue:
        with suppress(metadata.PackageNotFoundError):  # of another platform
            found = metadata.distribution(queue.pop())
            for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
                (folder / top).symlink_to(Path(str(found.locate_file(top))))
            plain = {re.split(r"[^\w.-]", line)[0] for line in found.requires or () if "extra ==" not in line} - seen
            seen |= plain
            queue += sorted(plain)
    return folder


@pytest.fixture(scope="module")
def node(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A home and an environment without any of our packages or tools."""
    home = tmp_path_factory.mktemp("home")
    (home / "bin").mkdir()
    for tool in BARE:
        found = shutil.which(tool)
        assert found is not None
        (home / "bin" / tool).symlink_to(found)
    return home, {"HOME": str(home), "PATH": str(home / "bin"), "BENCH_LOCK": str(home / "lock"), "LC_ALL": "C.UTF-8"}


def on(node: tuple[Path, dict[str, str]], bundle: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The bundle under the bare Python that the virtual environment stands on, without a network but the loopback."""
    home, env = node
    python = os.path.realpath(sys.executable)
    up = f'{shutil.which("ip")} link set lo up; exec "$@"'
    unshare = ["unshare", "--net", "sh", "-ec", up, "sh"] if os.geteuid() == 0 else []
    argv = [*unshare, python, "-s", str(bundle), *words]
    return subprocess.run(
        [shutil.which(argv[0]) or argv[0], *argv[1:]],
        cwd=home, env=env, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def test_a_bare_node_measures_judges_and_reports(
    bundle: Path, node: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    home, env = node
    said = json.loads(on(node, bundle, "doctor", "--json").stdout)
    checks = {check["name"]: check for check in said["checks"]}
    assert checks["fio"]["ok"] and "carried" not in checks["inference"]["detail"]
    assert "torch_missing" in checks["inference"]["detail"], "torch is the node's own"

    node = home, {**env, "PYTHONPATH": str(torch_alone(tmp_path))}  # and now it has it
    checks = {check["name"]: check for check in json.loads(on(node, bundle, "doctor", "--json").stdout)["checks"]}
    assert checks["inference"]["ok"], checks["inference"]
    ran = on(node, bundle, "run", "--json", "--effort", "quick", "--probe", "storage", "--probe", "inference",
             "--probe", "network", "--accelerator", "cpu", "--storage", str(home), "--results", str(home / "results"),
             "--no-quiet-check")  # fmt: skip
    assert ran.returncode in (1, 3), ran.stderr
    measured = {result["probe"]: result for result in json.loads(ran.stdout)["results"]}
    assert {measured[probe]["outcome"] for probe in ("storage", "inference", "network")} == {"ok"}, measured

    judged = on(node, bundle, "gate", "--json", "--results", str(home / "results"))
    assert judged.returncode == ran.returncode and json.loads(judged.stdout)["verdicts"]
    page = home / "page.html"
    assert on(node, bundle, "report", "--results", str(home / "results"), "-o", str(page)).returncode == 0
    assert "<svg" in page.read_text()


def test_a_home_that_takes_nothing_is_one_line(bundle: Path, node: tuple[Path, dict[str, str]]) -> None:
    home, env = node
    (home / "file").write_text("")
    done = on((home, env | {"HOME": str(home / "file")}), bundle, "--help")
    assert done.returncode == 2 and "SHIV_ROOT" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_it_carries_no_torch_and_says_what_it_refuses(bundle: Path, tmp_path: Path) -> None:
    from zipfile import ZipFile

    with ZipFile(bundle) as archive:
        tops = {name.split("/")[1] for name in archive.namelist() if name.startswith("site-packages/")}
    assert {"bench", "probes", "pydantic_core", "numpy", "aiohttp", "jsonschema"} <= tops and not {
        "torch",
        "nvidia",
        "triton",
    } & tops
    for words in (("3.12", "sparc"), ("three", "x86_64")):
        done = subprocess.run([str(ROOT / "tools/bundle"), "pip", *words, str(tmp_path)],
                              capture_output=True, text=True, timeout=20, check=False)  # fmt: skip
        assert done.returncode == 2 and "bundle:" in done.stderr
