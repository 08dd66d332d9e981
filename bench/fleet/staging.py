"""The product brought to nodes that do not have it: one archive, versioned and checked, unpacked beside the jobs.

It holds the product and the installed packages that a measurement needs, as they are on the controller; so it fits
nodes with the same Python (3.11, say) and the same processor. Nodes of another kind get what a bundle of `make bundle`
holds. torch is the node's own or its container's, and so are fio and iperf3 where no bundle carries them. Nothing is
installed there: jobs find it by PYTHONPATH, and what nobody has asked for in a week is removed with the jobs' folders.
"""

from __future__ import annotations

import gzip
import hashlib
import platform
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import bench
from bench.errors import UserError
from bench.fleet.job_script import BASE
from bench.fleet.transport.base import Transport
from bench.store.errors import one_line, why

_OURS = "aiready-bench"
#: Reports and plots are made on the controller.
_NOT_FOR_NODES = frozenset({"pandas", "matplotlib", "pyarrow"})
_BUNDLE = re.compile(r"-py3(\d{1,2})-(x86_64|aarch64)\.pyz$", re.ASCII)
_PACKAGES = "site-packages/"  # in a bundle
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
STAGE = "stage"


@dataclass(frozen=True, slots=True)
class Archive:
    """``name`` has the version, the Python and the processor it is for, and the beginning of its digest."""

    path: Path
    name: str
    sha256: str


def fits(bundle: str = "") -> str:
    """The Python and the processor that an archive is for, of the bundle or of this controller: ``3.11 x86_64``.

    Raises UserError for a file that does not bear the name of a bundle.
    """
    if not bundle:
        return f"{sys.version_info[0]}.{sys.version_info[1]} {platform.machine()}"
    if (named := _BUNDLE.search(bundle)) is None:
        raise UserError(
            one_line(f"--bundle {bundle}: must be a file that `make bundle` made, NAME-py312-x86_64.pyz say")
        )
    return f"3.{named[1]} {named[2]}"


def pack(folder: Path, bundle: str = "") -> Archive:
    """Make the archive in ``folder``, of the bundle where there is one, else of what is installed here.

    The same packages give the same bytes. Raises UserError.
    """
    temp = folder / "stage.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            temp.open("wb") as raw,
            gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
        ):
            for name, path in sorted(_files().items()) if not bundle else ():
                archive.add(path, name, recursive=False, filter=_plain)
            if bundle:
                _add_bundle(archive, bundle)
        with temp.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"{_OURS}-{bench.__version__}-{fits(bundle).replace(' ', '-')}-{digest[:12]}"
        return Archive(temp.rename(folder / f"{name}.tar.gz"), name, digest)
    except OSError as error:
        raise UserError(one_line(f"{folder}: cannot make the archive for the nodes: {why(error)}")) from error


def _add_bundle(archive: tarfile.TarFile, bundle: str) -> None:
    """All packages of the bundle, and the tools that it carries."""
    try:
        with zipfile.ZipFile(bundle) as packed:
            for info in packed.infolist():
                if info.filename.startswith(_PACKAGES) and not info.is_dir():
                    member = tarfile.TarInfo(info.filename.removeprefix(_PACKAGES))
                    member.size = info.file_size
                    archive.addfile(_plain(member), packed.open(info))
    except zipfile.BadZipFile as error:
        raise UserError(one_line(f"--bundle {bundle}: {error}; make it anew with: make bundle")) from error


def _files() -> dict[str, Path]:
    """Name in the archive -> file."""
    root = Path(bench.__file__).resolve().parent.parent
    found: dict[str, Path] = {}
    for package in ("bench", "probes"):
        found |= {str(p.relative_to(root)): p for p in (root / package).rglob("*") if _wanted(p)}
    for distribution in _needed():
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            if not str(file).startswith("..") and _wanted(path):
                found[str(file)] = path
    return found


def _wanted(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts and "tests" not in path.parts


def _needed() -> Iterator[metadata.Distribution]:
    """The product's requirements without extras, and theirs. Raises UserError where it is no installed package."""
    queue, seen = [_OURS], set(_NOT_FOR_NODES)
    while queue:
        name = queue.pop()
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            if name == _OURS:
                message = f"{name} is not installed here as a package, so it cannot be staged: pip install it"
                raise UserError(message) from error
            continue  # a requirement of another platform
        if name != _OURS:
            yield found
        plain = (line for line in found.requires or () if "extra==" not in line.replace(" ", ""))
        names = {re.sub(r"[-_.]+", "-", match[0]).lower() for line in plain if (match := _NAME.match(line))} - seen
        seen |= names
        queue += sorted(names)


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """No owner and no time of this machine."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    info.mode = 0o755 if info.mode & 0o100 else 0o644
    return info


def bring(
    transport: Transport, pythons: Mapping[str, str], folder: Path, bundle: str = "", limit: float = 300.0
) -> dict[str, tuple[str | None, str]]:
    """Host -> (the folder with the product there, or None, and why not). The archive goes only where it is missing.

    ``pythons``: the Python of each host.
    """
    archive = pack(folder, bundle)
    try:
        asked = transport.each(dict.fromkeys(pythons, ready_script(archive)), 30.0)
        wanted = {host: said(reply.stdout, "PLACE") for host, reply in asked.items()}
        places = {host: f"{place}/{archive.name}.tar.gz" for host, place in wanted.items() if place}
        sent = transport.put(archive.path, places, pythons, limit) if places else {}
        arrived = [host for host in places if sent[host].rc == 0]
        done = transport.each(dict.fromkeys(arrived, unpack_script(archive)), limit) if arrived else {}
    finally:
        archive.path.unlink(missing_ok=True)
    last = {**asked, **sent, **done}
    there = {host: said(reply.stdout, "STAGED") for host, reply in last.items()}
    return {host: (place, "" if place else f"cannot_stage: {last[host].detail}") for host, place in there.items()}


def ready_script(archive: Archive) -> str:
    """Answers ``AIREADY-STAGED PATH`` when it is unpacked there already, else makes room for it."""
    return (_STAGE + _READY).replace("@NAME@", archive.name)


def unpack_script(archive: Archive) -> str:
    """Check the digest, unpack, answer ``AIREADY-STAGED PATH``."""
    return (_STAGE + _UNPACK).replace("@NAME@", archive.name).replace("@SHA@", archive.sha256)


def said(stdout: str, word: str) -> str | None:
    """The path behind AIREADY-``word``: STAGED, where the product is, or PLACE, where the node wants the archive."""
    found = re.search(rf"^AIREADY-{word} (/\S{{1,400}})\r?$", stdout, re.M)
    return found[1] if found else None


_STAGE = BASE + 's="$b/stage"; mkdir -p "$s"\n'
_READY = """\
touch "$s"
find "$s" -mindepth 1 -maxdepth 1 -mtime +7 ! -name '@NAME@' -exec rm -rf {} + 2>/dev/null
if [ -d "$s/@NAME@" ]; then touch "$s/@NAME@"; echo "AIREADY-STAGED $s/@NAME@"; else echo "AIREADY-PLACE $s"; fi
"""
_UNPACK = """\
f="$s/@NAME@.tar.gz"; t="$s/.@NAME@.$$"
[ "$(sha256sum <"$f" | cut -d' ' -f1)" = @SHA@ ] || { echo "the archive is not what was sent" >&2; rm -f "$f"; exit 1; }
mkdir "$t" && tar -xzf "$f" -C "$t" && { mv -T "$t" "$s/@NAME@" 2>/dev/null || [ -d "$s/@NAME@" ]; }
ok=$?; rm -rf "$t" "$f"
[ $ok -eq 0 ] && echo "AIREADY-STAGED $s/@NAME@"
exit $ok
"""
