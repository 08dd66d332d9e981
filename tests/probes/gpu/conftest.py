"""A fake libnvidia-ml.so.1, compiled once, with its faults in a file; see fake_nvml.c."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("fake_nvml.c")
#: For a child: this tree, and all that this process finds.
PYTHONPATH = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, sys.path)])


@dataclass(frozen=True)
class Fake:
    """``env()`` is what a process needs to find the library; ``say`` sets what it answers."""

    library: Path
    file: Path

    def say(self, **answers: float) -> None:
        self.tell({key.replace("__", "."): value for key, value in answers.items()})

    def tell(self, answers: Mapping[str, float]) -> None:
        temporary = self.file.with_suffix(".new")
        temporary.write_text("".join(f"{key} {value}\n" for key, value in answers.items()))
        temporary.replace(self.file)

    def env(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.library.parent), "BENCH_FAKE_NVML_FILE": str(self.file)}


def compiled(folder: Path, *flags: str) -> Path:
    """Build the library with the system's compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here (apt-get install gcc), so the fake NVML library cannot be built")
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libnvidia-ml.so.1"
    words = [compiler, "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", *flags]
    subprocess.run([*words, "-o", str(library), str(SOURCE), "-lm"], check=True, timeout=60)
    return library


@pytest.fixture(scope="session")
def new_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("nvml") / "new")


@pytest.fixture(scope="session")
def old_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("nvml") / "old", "-DOLD_DRIVER")


@pytest.fixture
def fake(new_driver: Path, tmp_path: Path) -> Fake:
    made = Fake(new_driver, tmp_path / "nvml.txt")
    made.tell({})
    return made


@pytest.fixture
def fake_old(old_driver: Path, tmp_path: Path) -> Fake:
    made = Fake(old_driver, tmp_path / "nvml.txt")
    made.tell({})
    return made
