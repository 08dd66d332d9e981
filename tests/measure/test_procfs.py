"""The kernel's counters: read as it prints them, and nothing where it has none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench.measure import procfs, tools


def test_a_kernel_that_has_nothing_is_no_error(tmp_path: Path) -> None:
    assert procfs.cpu_ticks(tmp_path) == (0, 0, 0)
    assert (procfs.pressure("io", tmp_path), procfs.stalled_seconds("io", tmp_path)) == ({}, None)
    assert (procfs.disk_bytes(tmp_path), procfs.link_bytes(tmp_path), procfs.process_ids(tmp_path)) == ({}, {}, [])
    assert procfs.process(1, tmp_path) is None
    assert procfs.run_queue_seconds([tmp_path / "schedstat"]) is None


def test_counters_as_the_kernel_prints_them(tmp_path: Path) -> None:
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "cpu").write_text("some avg10=2.76 total=8076252\nfull avg10=0.00 total=17\n")
    (tmp_path / "stat").write_text("cpu  10 1 20 300 40 5 6 7 8 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    (tmp_path / "schedstat").write_text("9000 2500000000 7\n")
    assert procfs.pressure("cpu", tmp_path) == {"some": 8076252, "full": 17}
    assert procfs.stalled_seconds("cpu", tmp_path) == 8.076252
    assert procfs.cpu_ticks(tmp_path) == (49, 389, 7)
    assert procfs.run_queue_seconds([tmp_path / "schedstat", tmp_path / "ended"]) == 2.5


def test_a_process_may_be_named_as_it_likes(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) R 1 (b) S 3 4 5 0 -1 0 0 0 0 0 30 12 0 0 20 0 1 0 99 0\n")
    found = procfs.process(7, tmp_path)
    assert found is not None
    assert (found.name, found.state, found.parent, found.session) == ("a) R 1 (b", "S", 3, 5)
    assert (found.ticks, found.start) == (42, "99")


def test_this_process_by_the_kernels_own_word() -> None:
    found = procfs.process(os.getpid())
    assert found is not None
    assert (found.state, found.parent, found.session) == ("R", os.getppid(), os.getsid(0))
    assert os.getpid() in procfs.process_ids()
    assert procfs.read_bytes() >= 0 and procfs.boot_id()
    waited: list[float | None] = []
    thread = threading.Thread(target=lambda: waited.append(procfs.thread_run_queue_seconds()))
    thread.start()
    thread.join()
    own = procfs.own_run_queue_seconds()
    assert (own is None) == (waited[0] is None)


def test_child_programs_import_it_without_anything_else() -> None:
    code = "import sys, bench.measure.procfs; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **tools.python_environment()},
    )
    assert not {"pydantic", "psutil", "numpy", "scipy"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        ("0::/pods/one\n", {"pods/one/cpu.max": "max 100000", "pods/cpu.max": "25000 100000"}, 0.25),
        ("0::/pods/one\n", {"cpu.max": "50000 100000"}, 0.5),  # a container sees its own group as the root
        ("3:cpuset:/\n2:cpu,cpuacct:/a\n0::/\n",
         {"cpu,cpuacct/a/cpu.cfs_quota_us": "10000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"}, 0.1),
        ("1:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, None),
        ("", {}, None), ("nonsense", {"cpu.max": "1 0"}, None),
    ],
)  # fmt: skip
def test_cores_are_those_that_affinity_and_quotas_leave(
    group: str, files: dict[str, str], cores: float | None, tmp_path: Path
) -> None:
    for name, text in {"proc/self/cgroup": group, **{f"groups/{name}": text for name, text in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = procfs.usable_cores(tmp_path / "proc", tmp_path / "groups")
    assert found == (len(os.sched_getaffinity(0)) if cores is None else cores)
