"""What the store promises when the writer is killed, the disk is full, the file system is read-only or shared."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.model import Node
from bench.store import atomic as writing
from bench.store.documents import load
from bench.store.errors import StoreError
from bench.store.runs import Store
from tests.store.sample import judged, measured

KILLS = 60
ROOT = Path(__file__).parents[2]


def start(root: Path, prefix: str, *count: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.store.writer", str(root), prefix, *count]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def killed(process: subprocess.Popen[str], after_lines: int) -> list[str]:
    """What it said until it was killed in the midst of its work."""
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(after_lines)]
    process.kill()
    said += process.stdout.readlines()
    process.wait(timeout=30)
    process.stdout.close()
    return [line.strip() for line in said if line.endswith("\n")]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kill_nine_tears_nothing_and_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    chance = random.Random(7)
    said: list[str] = []
    pending = [start(tmp_path, f"w{number}") for number in range(4)]
    for number in range(4, KILLS + 4):
        said += killed(pending.pop(0), after_lines=chance.randint(1, 12))
        if number < KILLS:
            pending.append(start(tmp_path, f"w{number}"))
    lines: list[str] = []
    stored = {run.id: run for _, run in Store(tmp_path, warn=lines.append).all()}
    assert lines == [], "no file is torn"
    reported = [line for line in said if not line.startswith("judged ")]
    assert len(reported) > KILLS
    assert set(reported) <= set(stored), "none is lost"
    assert all(stored[line.removeprefix("judged ")].verdicts for line in said if line.startswith("judged "))
    strange = [p.name for p in (tmp_path / "runs" / "node-17").iterdir() if p.suffix not in (".json", ".tmp")]
    assert strange == []
    assert writing.sweep(tmp_path / "runs" / "node-17", now=1e11) <= KILLS
    assert {p.suffix for p in (tmp_path / "runs" / "node-17").iterdir()} == {".json"}


def test_the_crash_test_sees_a_torn_file(tmp_path: Path) -> None:
    """The assertion above can fail: a writer that just opens and writes would be found out."""
    path = Store(tmp_path).save(measured())
    path.write_bytes(path.read_bytes()[:-20])
    lines: list[str] = []
    assert list(Store(tmp_path, warn=lines.append).all()) == []
    assert len(lines) == 1


def test_writers_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    writers = [start(tmp_path, f"w{number}", "25") for number in range(4)]
    for writer in writers:
        output, _ = writer.communicate(timeout=90)
        assert writer.returncode == 0, output
    lines: list[str] = []
    runs = [run for _, run in Store(tmp_path, warn=lines.append).all()]
    assert (len(runs), len({run.id for run in runs}), lines) == (100, 100, [])
    assert sum(bool(run.verdicts) for run in runs) == 48


def test_of_two_writers_of_one_run_one_wins_and_it_is_whole(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from bench.store.runs import Store, StoreError\n"
        "from tests.store.sample import measured\n"
        "try: Store(Path(sys.argv[1])).save(measured(bench_version=sys.argv[2]))\n"
        "except StoreError: sys.exit(7)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(n)], cwd=ROOT) for n in range(4)]
    codes = sorted(writer.wait(timeout=60) for writer in writers)
    assert codes == [0, 7, 7, 7]
    assert len(list(Store(tmp_path).all())) == 1


# --- file systems that refuse


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    if os.geteuid():
        pytest.skip("mounting a file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this root may not mount: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def big(number: int) -> Any:
    node = Node(hostname="node-17", fingerprint="f", facts={"ballast": "x" * 100_000})
    return measured(id=f"run{number}", node=node)


@pytest.mark.root
def test_a_full_disk_is_one_line_and_every_earlier_run_stays_whole(small_disk: Path) -> None:
    store = Store(small_disk)
    store.check("node-17")
    saved = []
    with pytest.raises(StoreError) as caught:
        for number in range(100):
            store.save(big(number))
            saved.append(f"run{number}")
    assert 3 < len(saved) < 12
    assert "No space left on device; free some space there" in str(caught.value)
    with pytest.raises(StoreError, match="No space left"):
        store.complete(judged(big(0)))
    with pytest.raises(StoreError, match="No space left"):
        store.check("node-17")
    lines: list[str] = []
    assert sorted(run.id for _, run in Store(small_disk, warn=lines.append).all()) == sorted(saved)
    assert lines == []
    assert not any(run.verdicts for _, run in store.all())
    assert {p.suffix for p in (small_disk / "runs" / "node-17").iterdir()} == {".json"}, "no temp is left"


@pytest.mark.root
def test_a_read_only_file_system_is_found_before_measuring(small_disk: Path) -> None:
    store = Store(small_disk)
    path = store.save(measured())
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for act in (lambda: store.check("node-17"), lambda: store.check("other"), lambda: store.save(measured(id="b"))):
        with pytest.raises(StoreError, match=r"Read-only file system; .*--results DIR"):
            act()
    with pytest.raises(StoreError, match="Read-only"):
        store.complete(judged(measured()))
    assert load(path) == measured()


def test_a_folder_that_is_a_file_or_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Not a directory"):
        Store(tmp_path / "file").check("node-17")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "node-17").symlink_to("/tmp")
    for act in (lambda: Store(tmp_path).check("node-17"), lambda: Store(tmp_path).save(measured())):
        with pytest.raises(StoreError, match=r"is a link|Not a directory"):
            act()


def test_without_permission_it_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    tmp_path.chmod(0o755)
    script = (
        "import os, sys; from pathlib import Path; from bench.store.runs import Store, StoreError\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: Store(Path(sys.argv[1])).check('n')\n"
        "except StoreError as error: print(error)"
    )
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert "Permission denied; choose a folder you may write to with --results DIR" in done.stdout, done.stderr


# --- faults that are injected


def failing(name: str, number: int, monkeypatch: pytest.MonkeyPatch, when: int = 1) -> None:
    real, calls = getattr(os, name), [0]

    def fail(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == when:
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize(
    ("call", "number"),
    [("write", errno.ENOSPC), ("fsync", errno.EIO), ("link", errno.ENOSPC), ("link", errno.EDQUOT)],
)
def test_a_fault_before_publication_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    Store(tmp_path).check("node-17")
    failing(call, number, monkeypatch)
    with pytest.raises(StoreError, match=os.strerror(number)):
        Store(tmp_path).save(measured())
    assert list((tmp_path / "runs" / "node-17").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS])
def test_a_file_system_without_hard_links_still_stores_and_still_never_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing("link", number, monkeypatch)
    path = Store(tmp_path).save(measured())
    assert load(path) == measured()
    failing("link", number, monkeypatch)
    with pytest.raises(StoreError, match="never replaced"):
        Store(tmp_path).save(measured())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:100]))
    assert load(Store(tmp_path).save(measured())) == measured()


@pytest.mark.parametrize(("number", "warned"), [(errno.EIO, True), (errno.EINVAL, False)])
def test_a_folder_that_cannot_be_synced_is_a_warning_because_the_run_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, warned: bool
) -> None:
    Store(tmp_path).check("node-17")
    failing("fsync", number, monkeypatch, when=2)  # the first is the file's own
    lines: list[str] = []
    assert load(Store(tmp_path, warn=lines.append).save(measured())) == measured()
    assert len(lines) == warned
    assert all("may not survive a power loss" in line for line in lines)


def test_a_signal_in_the_midst_leaves_no_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).check("node-17")

    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).save(measured())
    assert list((tmp_path / "runs" / "node-17").iterdir()) == []
