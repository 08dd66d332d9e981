"""Data sets of each format with a known share of broken samples, each kind of damage in turn."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import feather, parquet

KINDS = ("images", "sounds", "arrays", "tar", "webdataset", "lines", "csv", "parquet", "arrow", "tensors")


def image(seed: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), kind)
    return file.getvalue()


def sound(seed: int) -> bytes:
    with wave.open(file := io.BytesIO(), "wb") as opened:
        opened.setparams((1, 2, 8000, 0, "NONE", ""))
        opened.writeframes(np.random.default_rng(seed).integers(-999, 999, 400, dtype=np.int16).tobytes())
    return file.getvalue()


def array(seed: int) -> bytes:
    np.save(file := io.BytesIO(), np.random.default_rng(seed).random(50))
    return file.getvalue()


def tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def cut(data: bytes, draw: random.Random) -> bytes:
    """Half of it, or nothing."""
    return data[: len(data) // 2] if draw.random() < 0.7 else b""


def make(kind: str, root: Path, samples: int, broken: int, seed: int = 1) -> None:
    """``broken`` of ``samples`` are cut off, emptied, of another schema, or no longer what they were."""
    root.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    bad = set(draw.sample(range(samples), broken))
    _MAKERS[kind](root, samples, bad, draw)


def _files(content: Callable[[int], bytes], suffix: str) -> Callable[[Path, int, set[int], random.Random], None]:
    def made(root: Path, samples: int, bad: set[int], draw: random.Random) -> None:
        for n in range(samples):
            data = content(n)
            (root / f"{n:05d}{suffix}").write_bytes(cut(data, draw) if n in bad else data)

    return made


def _tar(root: Path, samples: int, bad: set[int], draw: random.Random) -> None:
    for shard in range(0, samples, 100):
        numbers = range(shard, min(samples, shard + 100))
        members = [(f"{n:05d}.jpg", cut(image(n), draw) if n in bad else image(n)) for n in numbers]
        tar(root / f"{shard:05d}.tar", members)


def _webdataset(root: Path, samples: int, bad: set[int], draw: random.Random) -> None:
    for shard in range(0, samples, 100):
        members = []
        for n in range(shard, min(samples, shard + 100)):
            parts = [(f"{n:05d}.jpg", image(n)), (f"{n:05d}.json", json.dumps({"label": n}).encode())]
            damage = draw.randrange(3) if n in bad else None
            if damage == 0:
                parts.pop(draw.randrange(2))
            elif damage is not None:
                parts[damage - 1] = (parts[damage - 1][0], cut(parts[damage - 1][1], draw))
            members += parts
        tar(root / f"{shard:05d}.tar", members)


def _lines(root: Path, samples: int, bad: set[int], draw: random.Random) -> None:
    broken = ('{"id": 1, "text": ', '{"id": "one", "text": "a"}', "[]", "{}", "null", '{"id": 1.5, "text": "b"}')
    for part in range(4):
        lines = [
            draw.choice(broken)[:-1] + f"{' ' * n}" + draw.choice(broken)[-1:]
            if n in bad and draw.random() < 0.3
            else draw.choice(broken) + " " * n
            if n in bad
            else json.dumps({"id": n, "text": f"text of {n}"})
            for n in range(part, samples, 4)
        ]
        (root / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    describe(root, "*.jsonl", {"id": "integer", "text": "string"})


def _csv(root: Path, samples: int, bad: set[int], draw: random.Random) -> None:
    lines = [f"{n},x,y" if n in bad and n % 2 else f"{n}.5,z" if n in bad else f'{n},"text, {n}\n'
             f'of two lines"' for n in range(samples)]  # fmt: skip
    (root / "all.csv").write_text("id,text\n" + "\n".join(lines) + "\n")
    describe(root, "all.csv", {"id": "integer", "text": "string"})


def _table(samples: int, bad: set[int]) -> pa.Table:
    return pa.table({"id": range(samples), "text": [None if n in bad else f"text of {n}" for n in range(samples)]})


def _parquet(root: Path, samples: int, bad: set[int], draw: random.Random) -> None:
    parquet.write_table(_table(samples, bad), root / "all.parquet", row_group_size=97)
    describe(root, "*.parquet", {"id": "integer", "text": "string"}, required=True)


def _arrow(root: Path, samples: int, bad: set[int], draw: random.Random) -> None:
    feather.write_feather(_table(samples, bad), root / "all.arrow", chunksize=97)
    describe(root, "all.arrow", {"id": "integer", "text": "string"}, required=True)


def _tensors(root: Path, samples: int, bad: set[int], draw: random.Random) -> None:
    """A tensor whose place in the file is too small for its shape is broken."""
    for part in range(0, samples, 50):
        header, data = {}, b""
        for n in range(part, min(samples, part + 50)):
            values = np.random.default_rng(n).random(8, dtype=np.float32).tobytes()
            shape = [9] if n in bad and n % 2 else [0, 8] if n in bad else [8]
            header[f"t{n}"] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 32]}
            data += values
        text = json.dumps(header).encode()
        (root / f"{part:05d}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


_MAKERS: dict[str, Callable[[Path, int, set[int], random.Random], None]] = {
    "images": _files(image, ".jpg"), "sounds": _files(sound, ".wav"), "arrays": _files(array, ".npy"), "tar": _tar,
    "webdataset": _webdataset, "lines": _lines, "csv": _csv, "parquet": _parquet, "arrow": _arrow, "tensors": _tensors,
}  # fmt: skip


def describe(root: Path, path: str, fields: dict[str, str], required: bool = False) -> None:
    """A data package of one resource."""
    columns = [{"name": name, "type": kind, "constraints": {"required": required}} for name, kind in fields.items()]
    package = {"name": "all", "resources": [{"name": "all", "path": path, "schema": {"fields": columns}}]}
    (root / "datapackage.json").write_text(json.dumps(package))


CROISSANT = {
    "@context": {
        "@language": "en", "@vocab": "https://schema.org/", "cr": "http://mlcommons.org/croissant/",
        "sc": "https://schema.org/", "dct": "http://purl.org/dc/terms/", "citeAs": "cr:citeAs", "column": "cr:column",
        "conformsTo": "dct:conformsTo", "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "examples": {"@id": "cr:examples", "@type": "@json"},
        "extract": "cr:extract", "field": "cr:field", "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject",
        "fileSet": "cr:fileSet", "format": "cr:format", "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset",
        "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path",
        "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated",
        "replace": "cr:replace", "samplingRate": "cr:samplingRate", "separator": "cr:separator", "source": "cr:source",
        "subField": "cr:subField", "transform": "cr:transform",
    },
    "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.1", "name": "people", "description": "d",
    "license": "https://creativecommons.org/licenses/by/4.0/", "url": "https://example.com/people",
    "creator": {"@type": "sc:Person", "name": "A"}, "datePublished": "2026-01-01", "version": "1.0.0",
    "distribution": [
        {"@type": "cr:FileObject", "@id": "people.csv", "name": "people.csv", "contentUrl": "people.csv",
         "encodingFormat": "text/csv", "sha256": "0" * 64},
        {"@type": "cr:FileSet", "@id": "pictures", "name": "pictures", "includes": "pictures/*.jpg",
         "encodingFormat": "image/jpeg"},
    ],
    "recordSet": [{
        "@type": "cr:RecordSet", "@id": "people", "name": "people", "field": [
            {"@type": "cr:Field", "@id": "people/id", "name": "id", "dataType": "sc:Integer",
             "source": {"fileObject": {"@id": "people.csv"}, "extract": {"column": "id"}}},
            {"@type": "cr:Field", "@id": "people/name", "name": "name", "dataType": "sc:Text",
             "source": {"fileObject": {"@id": "people.csv"}, "extract": {"column": "name"}}},
        ],
    }],
}  # fmt: skip
