"""Draw samples of a data set at random, read each whole, and count: ``python -m probes.data.load.survey ROOT ...``.

Samples are drawn, not files, so a file counts by what it holds. How much that is comes from headers and footers of as
many files as the time allows, and for the rest from their bytes. A set that is small is looked at as a whole; of any
other the drawing stops when the shares are clear of the limit (`probes.common.looks.Looks`), when the time is over, or
when the most that was asked for has been read. Prints `probes.data.events` as it goes; none holds a sample's content.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import stat
import sys
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from itertools import accumulate
from pathlib import Path
from typing import Any

from bench.measure.procfs import usable_cores
from bench.model import Code
from probes.common.looks import Looks
from probes.data.description import NAMES, Description, NotUnderstood, Table, read, undocumented
from probes.data.events import NONE, Described, Drawn, Ended, Event, Found, Identity, Look, Refused, line
from probes.data.load.access import access, acl
from probes.data.load.formats import FORMATS
from probes.data.load.formats.shard import Bad, Sample, regular_file
from probes.data.load.worker import Worker
from probes.data.plan import INSTALL

_SAMPLE_SECONDS = 20.0  # for one sample; then it counts as one that cannot be decoded
_COUNTING = 0.3  # of the time: counting what the files hold
_IDENTIFYING_FILES, _IDENTIFYING_BYTES = 64, 4 << 20  # and of each so many bytes at its beginning and its end
_DESCRIPTION_BYTES = 64 << 20
_LISTS = 1000  # files that are looked at for access lists
_SUMS = ("SHA256SUMS", "sha256sums.txt", "checksums.sha256")
_SUM = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(\S.*)")
#: Beside the samples and not of them, in lower case.
_BESIDE = ("readme*", "license*", "notice*", "*.md", "*.sha256", *_SUMS, *NAMES)


def say(event: Event) -> None:
    print(line(event), flush=True)


@dataclass(slots=True)
class File:
    """A file of the set: relative path, bytes, samples (estimated unless ``exact``), what is wrong with all of it."""

    path: str
    size: int
    table: Table | None
    samples: float = 0.0
    exact: bool = False
    fault: str | None = None

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.path)[1].lower()


# --- what is there


@dataclass(slots=True)
class Left:
    """Folders that were left out: those that cannot be listed, and links to others, which may lead round in circles."""

    unlisted: int = 0
    linked: int = 0

    def cannot_list(self, _: OSError) -> None:
        self.unlisted += 1


def found(root: Path, left: Left | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """(relative path, its state) of every regular file, in order; hidden ones, and what is gone by then, left out.

    A link that leads to nothing has the state of itself: whoever reads the set finds its name and no file.
    """
    left = left or Left()
    for folder, folders, names in os.walk(root, onerror=left.cannot_list):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        left.linked += sum(os.path.islink(Path(folder, name)) for name in folders)
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(folder, name)
            with suppress(OSError):
                state = _state(path)
                if stat.S_ISREG(state.st_mode) or stat.S_ISLNK(state.st_mode):
                    yield str(path.relative_to(root)), state


def _state(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:
        return path.lstat()


def beside(path: str) -> bool:
    return any(fnmatch(os.path.basename(path).lower(), pattern.lower()) for pattern in _BESIDE)


def sums(root: Path) -> dict[str, str]:
    """Path -> SHA-256, as ``sha256sum`` wrote them."""
    stated: dict[str, str] = {}
    for name in _SUMS:
        if (root / name).is_file():
            for text in (root / name).read_text(errors="replace").splitlines():
                if matched := _SUM.fullmatch(text.strip()):
                    stated[os.path.normpath(matched[2])] = matched[1].lower()
    return stated


def text_of(path: Path) -> bytes:
    """All of a description. Raises NotUnderstood, OSError."""
    try:
        with regular_file(path) as file:
            data = file.read(_DESCRIPTION_BYTES + 1)
    except Bad as bad:
        raise NotUnderstood(str(bad)) from bad
    if len(data) > _DESCRIPTION_BYTES:
        raise NotUnderstood(f"it is larger than {_DESCRIPTION_BYTES >> 20} MiB")
    return data


def parsed(path: Path) -> Any:
    """A JSON or YAML file. Raises NotUnderstood, OSError."""
    data = text_of(path)
    try:
        return _yaml(data) if path.suffix.lower() in (".yaml", ".yml") else json.loads(data)
    except NotUnderstood:
        raise
    except (ValueError, RecursionError) as error:
        raise NotUnderstood(f"it cannot be parsed: {' '.join(str(error).split())[:200]}") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a description in hexadecimal, `NONE` where it cannot be read."""
    try:
        return hashlib.sha256(text_of(path)).hexdigest()
    except (NotUnderstood, OSError):
        return NONE


def _yaml(data: bytes) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise NotUnderstood(f"{Code.PACKAGE_MISSING}: PyYAML is not installed: {INSTALL}") from error
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def described(root: Path, manifest: Path | None) -> Description | None:
    """The data set's description, told: the one that was named, else the first that is understood."""
    candidates = [manifest] if manifest else [path for name in NAMES for path in sorted(root.glob(name))]
    for path in candidates:
        try:
            description = read(parsed(path), lambda other: parsed(root / other))
            wrong = None if description or path is not manifest else "it is no Croissant, data package or data contract"
        except (NotUnderstood, OSError) as error:
            description, wrong = None, " ".join(str(error).split())[:500]
        if description or wrong:
            digest = digest_of(path)
            lacking = list(description.lacking) if description else []
            say(Described(path.name, digest, description.standard if description else None, lacking, wrong))
        if description:
            return description
    return None


def count(files: Sequence[File], worker: Worker, root: Path, draw: random.Random, deadline: float) -> None:
    """How many samples each holds: counted until the deadline, in random order; the others by bytes, as their kind."""
    held: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for number, file in enumerate(draw.sample(files, len(files))):
        if number and time.monotonic() > deadline:
            break
        try:
            file.samples, file.exact = worker.ask("count", root / file.path, file.table)
        except Bad as bad:
            file.fault, file.exact = str(bad), True  # what it should hold is not known, and all of it is lost
            continue
        held[file.suffix][0] += file.samples
        held[file.suffix][1] += file.size
    for file in files:
        if not file.samples:
            samples, size = held[file.suffix]
            file.samples = max(1, round(file.size * samples / size)) if size else 1


# --- drawing


@dataclass(slots=True)
class Drawing:
    """Samples as they are drawn, each held against its file, its description and those before it."""

    root: Path
    worker: Worker
    checksums: dict[str, str]
    checksum_bytes: int
    began: float
    checked: dict[str, str | None] = field(default_factory=dict)
    unchecked: set[str] = field(default_factory=set)
    seen: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    drawn: set[tuple[str, str]] = field(default_factory=set)
    n: int = 0
    valid: int = 0
    documented: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def add(self, file: File, place: float) -> None:
        began = time.monotonic()
        sample = self._read(file, place)
        self.seconds += time.monotonic() - began
        if (identity := (file.path, sample.at)) in self.drawn:
            return
        self.drawn.add(identity)
        fault = sample.fault or self._checksum(file) or self._duplicate(identity, sample)
        lacking = undocumented(sample.names, file.table)
        self.n += 1
        self.bytes += sample.size
        self.valid += fault is None
        self.documented += lacking is None
        at, (decoded, seconds) = time.monotonic() - self.began, sample.decoded
        say(Drawn(file.path[:500], sample.at, sample.size, fault, lacking, round(at, 4), decoded, seconds))

    def _read(self, file: File, place: float) -> Sample:
        fault = file.fault
        if fault is None:
            try:
                sample: Sample = self.worker.ask("read", self.root / file.path, file.table, place)
                return sample
            except Bad as bad:
                fault = str(bad)
        return Sample(f"{place:.6%} of it" if file.samples > 1 else "", 0, (), b"", fault)

    def _checksum(self, file: File) -> str | None:
        wanted = self.checksums.get(file.path)
        if wanted is None:
            return None
        if file.path not in self.checked:
            if file.size > self.checksum_bytes:
                self.unchecked.add(file.path)
                return None
            self.checksum_bytes -= file.size
            try:
                same = self.worker.ask("checksum", self.root / file.path) == wanted
                self.checked[file.path] = None if same else "checksum: its file is not what its checksum says"
            except Bad as bad:
                self.checked[file.path] = str(bad)
        return self.checked[file.path]

    def _duplicate(self, identity: tuple[str, str], sample: Sample) -> str | None:
        if (first := self.seen.setdefault(sample.digest, identity)) == identity:
            return None
        return f"duplicate: the same as {first[0][:300]} {first[1]}".rstrip()


Order = list[tuple[File, float]]  # the files to read a sample of, and from which place of each


def orders(files: Sequence[File], whole: bool, looks: Looks, draw: random.Random) -> Iterator[Order]:
    """The samples of each look, by file, so that what one file needs is read once."""
    if whole:
        yield [(file, (n + 0.5) / int(file.samples)) for file in files for n in range(int(file.samples))]
        return
    ends = list(accumulate(file.samples for file in files))
    before = 0
    for size in looks.sizes:
        places = ((files[bisect_right(ends, draw.random() * ends[-1], hi=len(ends) - 1)], draw.random())
                  for _ in range(size - before))  # fmt: skip
        yield sorted(places, key=lambda one: (one[0].path, one[1]))
        before = size


def survey(root: Path, manifest: Path | None, asked: argparse.Namespace) -> None:
    """Look at one data set, to the end or until the time is over."""
    began, draw = time.monotonic(), random.Random(asked.seed)
    description = described(root, manifest)
    files, other, modes, left = [], Counter[str](), 0, Left()
    passed: dict[tuple[int, int], int] = {}
    for path, state in found(root, left):
        if beside(path):
            continue
        size, modes = state.st_size, modes | (0 if stat.S_ISLNK(state.st_mode) else state.st_mode)
        file = File(path, size, description.of(path) if description else None)
        if file.suffix in FORMATS:
            files.append(file)
        else:
            other[file.suffix or "no suffix"] += 1
            passed[state.st_dev, state.st_ino] = size
    if not files:
        more = f", and {left.linked} folders behind links, which are not followed" if left.linked else ""
        say(Refused("empty", f"no file of a known format in it ({', '.join(sorted(FORMATS))}){more}"))
        return
    say(access(root, modes, any(acl(root / file.path) for file in files[:_LISTS])))
    worker = Worker(_SAMPLE_SECONDS)
    try:
        count(files, worker, root, draw, began + _COUNTING * asked.seconds)
        exact, total = all(file.exact for file in files), sum(file.samples for file in files)
        size = sum(file.size for file in files)
        kinds = Counter(file.suffix for file in files)
        left_out = left.unlisted, left.linked, unseen(root, files, passed, size)
        say(Found(len(files), size, total, exact, dict(kinds), dict(other.most_common(50)), *left_out))
        declared = {file.path: file.table.sha256 for file in files if file.table and file.table.sha256}
        drawing = Drawing(root, worker, declared | sums(root), asked.checksum_bytes, began)
        whole = exact and total <= asked.whole_samples and size <= asked.whole_bytes
        looks = Looks(asked.most)
        drawn = orders(files, whole, looks, draw)
        why = _drawn(drawing, drawn, whole, looks, asked.limit, began + asked.seconds)
        say(Ended(why, asked.most, len(drawing.unchecked), usable_cores(), began))
    finally:
        worker.close()


def unseen(root: Path, files: Sequence[File], passed: dict[tuple[int, int], int], size: int) -> int:
    """Bytes of files that no decoder is known for, and that no link of a known name leads to, as in a cache."""
    if sum(passed.values()) > size:
        for file in files:
            with suppress(OSError):
                state = os.stat(root / file.path)
                passed.pop((state.st_dev, state.st_ino), None)
    return sum(passed.values())


def _drawn(drawing: Drawing, orders: Iterator[Order], whole: bool, looks: Looks, limit: float, deadline: float) -> str:
    """Why it ended."""
    for order in orders:
        before = replace(drawing)
        for file, place in order:
            if drawing.n and time.monotonic() > deadline:  # looked at each time: one that hangs takes its 20 s
                return "time"
            drawing.add(file, place)
        if (n := drawing.n - before.n) and (seconds := drawing.seconds - before.seconds) > 0:
            say(Look(drawing.n, n / seconds, (drawing.bytes - before.bytes) / seconds))
        if whole:
            return "whole"
        if all(looks.clear(k, drawing.n, limit) for k in (drawing.valid, drawing.documented)):
            return "clear"
    return "most"


def identity(root: Path, manifest: Path | None) -> Identity:
    """Cheap, and the same as long as the data is: see `Identity`. Raises OSError."""
    inventory, content, paths = hashlib.sha256(), hashlib.sha256(), []
    for path, state in found(root):
        inventory.update(f"{path}\0{state.st_size}\n".encode(errors="surrogateescape"))
        paths.append(path)
    for path in paths[:: max(1, -(-len(paths) // _IDENTIFYING_FILES))]:
        with suppress(OSError, Bad), regular_file(root / path) as file:
            content.update(file.read(_IDENTIFYING_BYTES))
            file.seek(max(file.tell(), os.fstat(file.fileno()).st_size - _IDENTIFYING_BYTES))
            content.update(file.read(_IDENTIFYING_BYTES))
    description = manifest or next((p for name in NAMES for p in sorted(root.glob(name))), None)
    return Identity(inventory.hexdigest(), content.hexdigest(), digest_of(description) if description else NONE)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="survey")
    parser.add_argument("path", type=Path)
    parser.add_argument("--identify", action="store_true", help="say what the data is known by, and no more")
    for name in ("seconds", "limit"):
        parser.add_argument(f"--{name}", type=float, default=1.0)
    for name in ("most", "seed", "whole-samples", "whole-bytes", "checksum-bytes"):
        parser.add_argument(f"--{name}", type=int, default=1)
    asked = parser.parse_args(words)
    path: Path = asked.path
    root, manifest = (path.parent, path) if path.is_file() else (path, None)
    try:
        say(identity(root, manifest))
        if not asked.identify:
            survey(root, manifest, asked)
    except OSError as error:
        say(Refused("unusable", f"{error.filename or path}: {error.strerror}"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
