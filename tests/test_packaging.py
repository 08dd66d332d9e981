"""The wheel holds what it must, and nothing else; the start-up check knows when another distribution owns ``bench``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.workflows import site

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("bench", "probes", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("docs/man", "docs/completion"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "out"), str(source)]
    subprocess.run(argv, check=True, capture_output=True)
    (built,) = (source / "out").glob("*.whl")
    return built


def test_it_holds_the_packages_the_profiles_and_the_schema_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    ours = [name for name in names if ".dist-info/" not in name and ".data/" not in name]
    assert {name.split("/")[0] for name in ours} == {"bench", "probes"}
    profiles = {Path(name).stem for name in names if name.startswith("bench/profiles/")}
    assert {"distributed-training", "realtime-inference", "batch-inference"} <= profiles
    assert "bench/run.schema.json" in names
    assert not [name for name in names if name.endswith((".pyc", ".fio", ".sh"))]


def test_it_holds_the_man_page_and_the_completion_files(wheel: Path) -> None:
    data = {name.partition(".data/data/")[2] for name in zipfile.ZipFile(wheel).namelist() if ".data/" in name}
    assert data == {
        *(f"share/man/man1/{name}.1" for name in ("bench", "aiready-bench")),
        *(f"share/bash-completion/completions/{name}" for name in ("bench", "aiready-bench")),
        *(f"share/fish/vendor_completions.d/{name}.fish" for name in ("bench", "aiready-bench")),
        "share/zsh/site-functions/_bench",
    }


def test_it_works_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True)
    env = {**os.environ, "PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}
    for command in ("bench", "aiready-bench"):
        done = subprocess.run(
            [sys.executable, str(target / "bin" / command), "profiles"],
            capture_output=True, text=True, env=env, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "realtime-inference" in done.stdout
    schema = subprocess.run(
        [sys.executable, "-m", "bench", "run", "--print-schema"], capture_output=True, env=env, cwd=tmp_path, check=True
    ).stdout
    assert schema == (target / "bench" / "run.schema.json").read_bytes()


def rival(site: Path, **files: str) -> None:
    info = site / "other_bench-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-bench\nVersion: 1.0\n")
    for name, text in files.items():
        (info / f"{name}.txt").write_text(text)


@pytest.mark.parametrize(
    "files", [{"top_level": "bench\n"}, {"entry_points": "[console_scripts]\nbench = other.cli:main\n"}]
)
def test_another_owner_of_bench_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    rival(tmp_path, **files)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="other-bench also owns `bench`") as caught:
        site.check_installation()
    assert caught.value.status == 2


def test_a_distribution_that_only_sounds_like_it_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rival(tmp_path, top_level="workbench\n", entry_points="[console_scripts]\nbenchmark = other.cli:main\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "other-bench" not in site.rivals()
