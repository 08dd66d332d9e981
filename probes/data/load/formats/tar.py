"""Tar archives, WebDatasets among them."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from probes.data.description import Table
from probes.data.load.formats.shard import LARGEST_SAMPLE, Bad, Sample, Shard, printable, regular_file, sample_of
from probes.data.load.formats.whole import decode


@dataclass(slots=True)
class _Group:
    """The members of one sample: suffix, offset, size of each. ``fault``: what the headers alone show."""

    key: str
    parts: list[tuple[str, int, int]] = field(default_factory=list)
    fault: Bad | None = None


def members(path: Path, table: Table | None) -> Shard:
    """A WebDataset where keys repeat (``a.jpg a.json``); else each member is a sample."""
    with regular_file(path) as file:
        groups = _groups(file)
    usual = Counter(tuple(sorted(suffix for suffix, _, _ in group.parts)) for group in groups).most_common(1)
    web = max((len(group.parts) for group in groups), default=0) > 1

    def read(place: float) -> Sample:
        group = groups[int(place * len(groups))]
        with regular_file(path) as file:
            parts = [(suffix, _part(file, at, size)) for suffix, at, size in group.parts]

        def check() -> None:
            if group.fault is not None:
                raise group.fault
            if lacking := set(usual[0][0]) - {suffix for suffix, _, _ in group.parts}:
                raise Bad(f"incomplete: it has no {min(lacking)}")
            for (suffix, data), (_, _, size) in zip(parts, group.parts, strict=True):
                if len(data) < size:
                    raise Bad(f"truncated: {len(data)} of {size} bytes of its {suffix}")
                decode("." + suffix.rpartition(".")[2].lower(), data)

        names = [suffix.lstrip(".") for suffix, _ in parts] if web else []
        whole = b"".join(data for _, data in parts)
        return sample_of(f"{group.key[:300]} byte {group.parts[0][1]}", whole, names, check)

    if not groups:
        raise Bad("empty: no member in it")
    return Shard(len(groups), read)


def _part(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(min(size, LARGEST_SAMPLE))


def _groups(file: BinaryIO) -> list[_Group]:
    """Members by key, in order, by their headers alone."""
    groups: list[_Group] = []
    seen: dict[str, _Group] = {}
    size = os.fstat(file.fileno()).st_size
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - closed with its file
    end = 0
    try:
        for member in archive:
            end = member.offset_data + -(-member.size // 512) * 512
            if member.isdir():
                continue
            name = PurePosixPath(member.name)
            stem, dot, suffix = name.name.partition(".")
            key = str(name.parent / stem)
            if not groups or groups[-1].key != key:
                groups.append(_Group(key))
                if key in seen:
                    groups[-1].fault = seen[key].fault = Bad("incomplete: its parts do not lie together")
                seen[key] = groups[-1]
            groups[-1].parts.append((dot + suffix, member.offset_data, member.size))
            if name.is_absolute() or ".." in name.parts:
                groups[-1].fault = Bad("unsafe: its name leads out of the archive")
            elif not member.isreg():
                groups[-1].fault = Bad("unsafe: it is a link or a device, no file")
    except tarfile.TarError as error:
        if not groups:
            raise Bad(f"undecodable: no tar archive: {printable(error)}") from error
        groups[-1].fault = groups[-1].fault or Bad(f"truncated: the archive breaks off: {printable(error)}")
        return groups
    if groups and size < end + 512:
        groups[-1].fault = groups[-1].fault or Bad("truncated: the archive has no end mark")
    return groups
