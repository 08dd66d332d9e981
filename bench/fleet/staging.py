"""The product brought to nodes that do not have it: one bundle, versioned and checked, unpacked beside the jobs.

That is a file of `make bundle`, or one like it of the packages that a measurement needs, as they are installed on the
controller, which fits nodes with the same Python (3.11, say) and processor. torch is the node's own or its container's,
and so are fio and iperf3 where no bundle carries them. Nothing is installed there: jobs find it by PYTHONPATH, and what
nobody has asked for in a week is removed with the jobs' folders.
"""

from __future__ import annotations

import hashlib
import platform
import re
import shlex
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath

import bench
from bench.errors import UserError, why
from bench.fleet.job_script import BASE
from bench.fleet.transport.base import Transport
from bench.store.errors import one_line

_OURS = "aiready-bench"
_BUNDLE = re.compile(r"-py3(\d{1,2})-(x86_64|aarch64)\.pyz$", re.ASCII)
_PACKAGES = "site-packages/"  # in a bundle
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
STAGE = "stage"
_ASK_SECONDS, _BRING_SECONDS = 30.0, 300.0


@dataclass(frozen=True, slots=True)
class Bundle:
    """``name`` has the version, the Python and the processor it is for, and the beginning of its digest."""

    path: Path
    name: str
    sha256: str


def fits(bundle: str = "") -> str:
    """The Python and the processor that it is for, the bundle's or this controller's: ``3.11 x86_64``.

    Raises UserError for a file that does not bear the name of a bundle.
    """
    if not bundle:
        return f"{sys.version_info[0]}.{sys.version_info[1]} {platform.machine()}"
    if (named := _BUNDLE.search(bundle)) is None:
        raise UserError(
            one_line(f"--bundle {bundle}: must be a file that `make bundle` made, NAME-py312-x86_64.pyz say")
        )
    return f"3.{named[1]} {named[2]}"


def made(folder: Path, bundle: str = "") -> Bundle:
    """The bundle that was named, else one made in ``folder`` of what is installed here, the same bytes each time.

    Raises UserError.
    """
    fit, path = fits(bundle), Path(bundle) if bundle else folder / "stage.pyz"
    try:
        if not bundle:
            folder.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
                for name, file in sorted(_files().items()):
                    packed.writestr(zipfile.ZipInfo(_PACKAGES + name), file.read_bytes(), zipfile.ZIP_DEFLATED)
        elif not zipfile.is_zipfile(path):
            raise UserError(one_line(f"--bundle {bundle}: is no bundle; make it anew with: make bundle"))
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise UserError(one_line(f"{path}: cannot be brought to the nodes: {why(error)}")) from error
    return Bundle(path, f"{_OURS}-{bench.__version__}-{fit.replace(' ', '-')}-{digest[:12]}", digest)


def _files() -> dict[str, Path]:
    """Name in the bundle -> file."""
    root = Path(bench.__file__).resolve().parent.parent
    names: list[tuple[Path, PurePath]] = [
        (root, path.relative_to(root)) for package in ("bench", "probes") for path in (root / package).rglob("*")
    ]
    for distribution in _needed():
        place = Path(str(distribution.locate_file("")))
        names += [(place, file) for file in distribution.files or () if not str(file).startswith("..")]
    return {str(name): place / name for place, name in names if _wanted(place / name, name)}


def _wanted(path: Path, name: PurePath) -> bool:
    """By its name below the folder that holds all, which may itself be called ``tests``."""
    return path.is_file() and not path.is_symlink() and not {"__pycache__", "tests"}.intersection(name.parts)


def _needed() -> Iterator[metadata.Distribution]:
    """The product's requirements without extras, and theirs. Raises UserError where it is no installed package."""
    queue, seen = [_OURS], {_OURS}
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


def bring(
    transport: Transport, pythons: Mapping[str, str], folder: Path, bundle: str
) -> dict[str, tuple[str | None, str]]:
    """Host -> (the folder with the product there, or None, and why not). It goes only where it is missing.

    ``pythons``: the Python of each host.
    """
    ours = made(folder, bundle)
    try:
        asked = transport.each(dict.fromkeys(pythons, ready_script(ours)), _ASK_SECONDS)
        wanted = {host: said(reply.stdout, "PLACE") for host, reply in asked.items()}
        places = {host: f"{place}/{ours.name}.pyz" for host, place in wanted.items() if place}
        sent = transport.put(ours.path, places, pythons, _BRING_SECONDS) if places else {}
        unpack = {host: unpack_script(ours, pythons[host]) for host in places if sent[host].rc == 0}
        done = transport.each(unpack, _BRING_SECONDS) if unpack else {}
    finally:
        if not bundle:
            ours.path.unlink(missing_ok=True)
    last = {**asked, **sent, **done}
    there = {host: said(reply.stdout, "STAGED") for host, reply in last.items()}
    return {host: (place, "" if place else f"cannot_stage: {last[host].detail}") for host, place in there.items()}


def ready_script(bundle: Bundle) -> str:
    """Answers ``AIREADY-STAGED PATH`` when it is unpacked there already, else makes room for it."""
    return (_STAGE + _READY).replace("@NAME@", bundle.name)


def unpack_script(bundle: Bundle, python: str) -> str:
    """Check the digest, unpack, answer ``AIREADY-STAGED PATH``."""
    script = (_STAGE + _UNPACK).replace("@NAME@", bundle.name).replace("@SHA@", bundle.sha256)
    return script.replace("@PYTHON@", shlex.quote(python))


def said(stdout: str, word: str) -> str | None:
    """The path behind AIREADY-``word``: STAGED, where the product is, or PLACE, where the node wants the bundle."""
    found = re.search(rf"^AIREADY-{word} (/\S{{1,400}})\r?$", stdout, re.M)
    return found[1] if found else None


_STAGE = BASE + 's="$b/stage"; mkdir -p "$s"\n'
_READY = """\
touch "$s"
find "$s" -mindepth 1 -maxdepth 1 -mtime +7 ! -name '@NAME@' -exec rm -rf {} + 2>/dev/null
if [ -d "$s/@NAME@" ]; then touch "$s/@NAME@"; echo "AIREADY-STAGED $s/@NAME@"; else echo "AIREADY-PLACE $s"; fi
"""
_UNPACK = """\
f="$s/@NAME@.pyz"; t="$s/.@NAME@.$$"
[ "$(sha256sum <"$f" | cut -d' ' -f1)" = @SHA@ ] || { echo "the bundle is not what was sent" >&2; rm -f "$f"; exit 1; }
@PYTHON@ -m zipfile -e "$f" "$t" && { mv -T "$t/site-packages" "$s/@NAME@" 2>/dev/null || [ -d "$s/@NAME@" ]; }
ok=$?; rm -rf "$t" "$f"
[ $ok -eq 0 ] && echo "AIREADY-STAGED $s/@NAME@"
exit $ok
"""
