"""Data sets with a known share of broken samples: what the survey finds, when it stops, and what cannot stop it."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import pwd
import random
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest

from bench.measure.probe import Unsupported
from bench.measure.procfs import usable_cores
from probes.common.looks import Looks
from probes.data.description import Field, Table
from probes.data.events import NONE, Access, Described, Drawn, Ended, Event, Found, Identity, Look, Refused, read
from probes.data.load import survey as survey_module
from probes.data.load import worker as worker_module
from probes.data.load.formats import FORMATS, lines, opened, whole
from probes.data.load.formats.shard import Bad
from probes.data.load.worker import Worker
from probes.data.parse import doubts, parse
from probes.data.plan import INSTALL
from tests.judge.test_decoding import feed, finding, found
from tests.probes.data import sets

E = TypeVar("E", bound=Event)
ROOT = Path(__file__).parents[3]
WHOLE = {"seconds": 120.0, "limit": 0.95, "most": 100_000, "seed": 7, "whole-samples": 10_000, "whole-bytes": 1 << 30,
         "checksum-bytes": 1 << 30}  # fmt: skip


def survey(path: Path, **changed: Any) -> list[Event]:
    words = [f"--{name}={value}" for name, value in {**WHOLE, **changed}.items()]
    argv = [sys.executable, "-m", "probes.data.load.survey", str(path), *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return read(done.stdout)


def of(events: list[Event], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def faults(events: list[Event]) -> Counter[str]:
    return Counter((sample.fault or "none").partition(":")[0] for sample in of(events, Drawn))


# --- the truth, in each format


@pytest.mark.slow
@pytest.mark.parametrize("kind", sets.KINDS)
def test_each_broken_sample_of_a_small_set_is_found_and_no_other(kind: str, tmp_path: Path) -> None:
    sets.make(kind, tmp_path, 300, 24)
    events = survey(tmp_path)
    samples = of(events, Drawn)
    assert of(events, Ended)[0].why == "whole" and of(events, Found)[0].samples == len(samples)
    assert (len(samples), sum(sample.fault is not None for sample in samples)) == (300, 24), faults(events)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sets.KINDS)
def test_a_sound_set_has_no_fault(kind: str, tmp_path: Path) -> None:
    sets.make(kind, tmp_path, 60, 0)
    assert set(faults(survey(tmp_path))) == {"none"}


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "right"), [(30, "over"), (45, ""), (55, ""), (80, "under"), (300, "under")])
def test_a_large_set_is_decided_where_the_share_is_clear_and_never_wrongly(
    broken: int, right: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So many of each thousand. At 3 and 8 % at least 98 of 100 surveys decide rightly; between them none wrongly."""
    sets.make("lines", tmp_path, 8000, 8 * broken)
    decided, needed, trials = Counter[str](), [], 100 if right else 25
    for seed in range(trials):
        asked = argparse.Namespace(seconds=60.0, limit=0.95, most=2500, seed=seed, whole_samples=0, whole_bytes=0,
                                   checksum_bytes=0)  # fmt: skip
        survey_module.survey(tmp_path, None, asked)
        samples = of(read(capsys.readouterr().out), Drawn)
        low, high = Looks(2500).interval(sum(sample.fault is None for sample in samples), len(samples))
        decided["over" if low >= 0.95 else "under" if high < 0.95 else "undecided"] += 1
        needed.append(len(samples))
    print(f"{broken / 10:g} % broken: {dict(decided)}, samples needed: median {sorted(needed)[trials // 2]}")
    wrong = {"over", "under"} - {right or ("over" if broken < 50 else "under")}
    assert sum(decided[one] for one in wrong) <= 2
    assert not right or decided[right] >= 98, decided


def test_the_interval_at_which_one_stops_is_honest() -> None:
    """Each look may use its part of the 5 %, and together they use no more."""
    looks = Looks(10_000)
    assert looks.sizes[0] == 128 and looks.sizes[-1] == 10_000 and len(looks.sizes) < 15
    assert len(looks.sizes) * (1 - looks.confidence) == pytest.approx(0.05)
    assert looks.clear(10_000, 10_000, 0.95) and not looks.clear(128, 128, 0.99)


# --- kinds of damage


@pytest.mark.slow
def test_what_only_a_checksum_or_a_neighbour_shows(tmp_path: Path) -> None:
    sets.make("sounds", tmp_path, 40, 0)
    flipped = bytearray((tmp_path / "00007.wav").read_bytes())
    names = sorted(tmp_path.glob("*.wav"))
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in names)
    (tmp_path / "SHA256SUMS").write_text(sums)
    flipped[200] ^= 1
    (tmp_path / "00007.wav").write_bytes(flipped)
    (tmp_path / "00009.wav").write_bytes((tmp_path / "00003.wav").read_bytes())
    (tmp_path / "copy.wav").write_bytes((tmp_path / "00003.wav").read_bytes())
    found = {sample.file: sample.fault for sample in of(survey(tmp_path), Drawn) if sample.fault}
    assert found == {
        "00007.wav": "checksum: its file is not what its checksum says",
        "00009.wav": "checksum: its file is not what its checksum says",
        "copy.wav": "duplicate: the same as 00003.wav",
    }


@pytest.mark.slow
def test_a_bit_in_a_parquet_page_costs_its_row_group(tmp_path: Path) -> None:
    from pyarrow import parquet

    table = sets._table(400, set())
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100, write_page_checksum=True)
    damaged = bytearray((tmp_path / "a.parquet").read_bytes())
    damaged[40] ^= 4
    (tmp_path / "a.parquet").write_bytes(damaged)
    samples = of(survey(tmp_path), Drawn)
    assert sorted(int(s.at.split()[1]) for s in samples if s.fault) == list(range(100))


@pytest.mark.slow
def test_a_webdataset_whose_keys_interleave_is_told_for_each_key(tmp_path: Path) -> None:
    """webdataset 1.0 gives four half samples, without an error."""
    sets.tar(
        tmp_path / "a.tar", [("1.jpg", sets.image(1)), ("2.jpg", sets.image(2)), ("1.json", b"1"), ("2.json", b"2")]
    )
    found = faults(survey(tmp_path))
    assert found == {"incomplete": 4}


@pytest.mark.slow
def test_a_tar_that_was_cut_between_members_is_no_shorter_data_set(tmp_path: Path) -> None:
    sets.tar(tmp_path / "a.tar", [(f"{n}.txt", b"x" * 500) for n in range(10)])
    with tarfile.open(tmp_path / "a.tar") as archive:
        end = archive.getmembers()[5].offset
    os.truncate(tmp_path / "a.tar", end)
    samples = of(survey(tmp_path), Drawn)
    assert [sample.at for sample in samples if (sample.fault or "").startswith("truncated")] == [f"4 byte {end - 512}"]


@pytest.mark.slow
def test_files_and_fields_that_nobody_described(tmp_path: Path) -> None:
    sets.make("csv", tmp_path, 50, 0)
    (tmp_path / "more.jsonl").write_text('{"id": 1}\n')
    samples = of(survey(tmp_path), Drawn)
    assert Counter(sample.undocumented for sample in samples) == {None: 50, "no description covers its file": 1}
    sets.describe(tmp_path, "*", {"id": "integer"})
    undocumented = Counter(sample.undocumented for sample in of(survey(tmp_path), Drawn))
    assert undocumented == {"the description lacks its field 'text'": 50, None: 1}


# --- what is hostile costs its sample


def bomb() -> bytes:
    """A PNG of 50,000 x 50,000 pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (50_000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    pixels = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.slow
def test_names_of_whatever_bytes_cost_nothing(tmp_path: Path) -> None:
    """A lone byte in one name of a file, a folder or a member ended the whole survey without a figure."""
    root = os.fsencode(tmp_path)
    for number, name in enumerate((b"a b.npy", b"new\nline.npy", b"\xff\xfe.npy", b"caf\xe9/x.npy")):
        os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
        Path(os.fsdecode(os.path.join(root, name))).write_bytes(sets.array(number))
    sets.tar(tmp_path / "t.tar", [("n\udcff.txt", b"z"), ("", b"q"), ("/", b"r")])
    samples = of(survey(tmp_path), Drawn)
    assert {s.file for s in samples if not s.fault} >= {"a b.npy", "new\nline.npy", "\\xff\\xfe.npy", "caf\\xe9/x.npy"}
    assert [s for s in samples if s.at.startswith("n\\xff")]


@pytest.mark.slow
def test_separated_values_as_they_are_written_in_the_wild(tmp_path: Path) -> None:
    texts: dict[str, tuple[bytes, int]] = {
        "bom.csv": ("\ufeffid,t\r\n1,a\r\n2,b\r\n".encode(), 0),
        "field.csv": (b"id,t\n3," + b"x" * 200_000 + b"\n", 0),  # over the 128 KiB that Python's reader takes by itself
        "head.csv": (b'"id\nof it",t\n4,a\n', 0),
        "utf16.csv": ("id,t\n5,a\n6,b\n".encode("utf-16-le"), 3),  # and the half character behind the last line
        "zero.csv": (b"id,t\n7,\0\n8,b\n", 1),
    }
    for name, (data, _) in texts.items():
        (tmp_path / name).write_bytes(data)
    bad = Counter(sample.file for sample in of(survey(tmp_path), Drawn) if sample.fault)
    assert bad == {name: faulty for name, (_, faulty) in texts.items() if faulty}


@pytest.mark.slow
def test_records_over_several_lines_are_found_from_any_place_of_a_large_file(tmp_path: Path) -> None:
    """A line in the middle of a quotation was taken for a record: a third of a sound set was called broken."""
    for name, faulty in (("sound", 0), ("one in ten", 10)):
        (root := tmp_path / name).mkdir()
        with (root / "all.csv").open("w") as file:
            file.write("id,text\n")
            for n in range(60_000):
                number = f"x{n}" if faulty and n % faulty == 0 else n
                file.write(f'{number},"first of {n}\nsecond, of ""{n}""\n\n{"x" * 140}, last\n"\n')
        assert (root / "all.csv").stat().st_size > 8 << 20
        sets.describe(root, "all.csv", {"id": "integer", "text": "string"})
        samples = of(survey(root, most=2_000, **{"whole-bytes": 1}), Drawn)
        found = {sample.fault for sample in samples if sample.fault}
        assert found == ({"schema: its field 'id' is no integer"} if faulty else set())
        assert len(samples) >= 128 and sum(bool(s.fault) for s in samples) <= 0.2 * len(samples)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_python_writes_is_read_from_any_place(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each record has its number in front, so one that was cut elsewhere shows."""
    draw = random.Random(seed)
    monkeypatch.setattr(lines, "_INDEXED_BYTES", 2000)
    letters, share = draw.choice(["ab ,\n", 'a",\n ', "words of\n", 'é;"\n,']), draw.choice([0.02, 0.3, 1.0])
    quoting: Literal[0, 1] = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    end = draw.choice(["\n", "\r\n"])
    columns = [f"c{n}" for n in range(draw.randint(1, 5))]

    def text() -> str:
        return "".join(draw.choices(letters, k=draw.choice([3, 30, 200]))) if draw.random() < share else "plain"

    with (tmp_path / "all.csv").open("w", newline="") as file:
        writer = csv.writer(file, quoting=quoting, lineterminator=end)
        writer.writerows([["id", *columns], *([n, *(text() for _ in columns)] for n in range(400))])
    table = Table(("all.csv",), {"id": Field("integer", required=True)})
    shard = opened(tmp_path / "all.csv", table)
    assert not shard.exact and not [one.fault for one in (shard.read(draw.random()) for _ in range(200)) if one.fault]


def test_a_quote_within_a_field_is_a_letter(tmp_path: Path) -> None:
    """One inch mark swallowed the records after it, and in a large file the time of the decoder."""
    rows = [
        f'{n},{n}" pipe' if n % 7 == 0 else f'{n},"a ""b""\nof {n}"' if n % 7 == 1 else f"{n},plain" for n in range(999)
    ]
    (tmp_path / "all.csv").write_text("id,text\n" + "\n".join(rows) + "\n")
    samples = of(survey(tmp_path), Drawn)
    assert len(samples) == 999 and not [s for s in samples if s.fault]
    (tmp_path / "all.csv").write_text('id,text\n1,"never closed\n' + "2,a plain line of text\n" * 300_000)
    (fault,) = [sample.fault for sample in of(survey(tmp_path), Drawn)]
    assert fault == "undecodable: a quotation that does not end with its value"


@pytest.mark.slow
def test_a_line_that_is_too_long_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x" * (40 << 20)}) + "\n" + '{"text": "y"}\n')
    assert set(faults(survey(tmp_path))) <= {"too_large", "none"}


def test_sounds_of_every_encoding(tmp_path: Path) -> None:
    """Floats, and 24 bits in the extensible form, were called broken."""

    def wav(kind: int, bits: int, channels: int, data: bytes, more: bytes = b"") -> bytes:
        frame = channels * bits // 8
        head = struct.pack("<HHIIHH", kind, channels, 16_000, 16_000 * frame, frame, bits) + more
        chunks = [(b"fmt ", head), (b"LIST", b"INFOx"), (b"data", data)]
        body = b"".join(name + struct.pack("<I", len(one)) + one + b"\0" * (len(one) % 2) for name, one in chunks)
        return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body

    extended = struct.pack("<HHI", 22, 24, 3) + b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    sounds = {
        "float": wav(3, 32, 1, os.urandom(400)), "extensible": wav(0xFFFE, 24, 2, os.urandom(600), extended),
        "mu-law": wav(7, 8, 1, os.urandom(101)), "pcm": wav(1, 16, 2, os.urandom(400)),
        "cut": wav(3, 32, 1, os.urandom(400))[:-100], "silent": wav(1, 16, 1, b""),
        "odd": wav(1, 16, 1, os.urandom(33)), "headless": wav(1, 16, 1, b"")[:36], "other": b"RIFF" + os.urandom(99),
    }  # fmt: skip
    for name, data in sounds.items():
        (tmp_path / f"{name}.wav").write_bytes(data)
    bad = {s.file.removesuffix(".wav"): s.fault.partition(":")[0] for s in of(survey(tmp_path), Drawn) if s.fault}
    assert bad == {"cut": "truncated", "silent": "empty", "odd": "undecodable", "headless": "truncated",
                   "other": "undecodable"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "more", "wrong"),
    [
        ("id;text\n1;a\n2;b\n", {"dialect": {"delimiter": ";"}}, 0),
        ("id|text\n1|a\n2|b\n", {"dialect": {"csv": {"delimiter": "|"}}}, 0),
        ("1,a\n2,b\n", {"dialect": {"header": False}}, 0),
        ("id,text\nNA,a\n-,b\n3,c\nx,d\n", {"missing": ["", "NA", "-"]}, 1),
        ('id,text\n"1 000",a\n', {"column": {"groupChar": " "}}, 0),
        ("id,text\n1.0,a\n2,b\n", {}, 1),
    ],
)
def test_a_data_package_says_how_its_values_are_written(
    text: str, more: dict[str, Any], wrong: int, tmp_path: Path
) -> None:
    fields = [{"name": "id", "type": "integer", **more.get("column", {})}, {"name": "text", "type": "string"}]
    schema = {"fields": fields, "missingValues": more.get("missing", [""])}
    resource = {"name": "all", "path": "all.csv", "schema": schema, "dialect": more.get("dialect", {})}
    (tmp_path / "datapackage.json").write_text(json.dumps({"name": "all", "resources": [resource]}))
    (tmp_path / "all.csv").write_text(text)
    samples = of(survey(tmp_path), Drawn)
    assert len(samples) == text.count("\n") - text.startswith("id") and not any(s.undocumented for s in samples)
    assert sum(s.fault is not None for s in samples) == wrong, [s.fault for s in samples]


@pytest.mark.slow
def test_times_that_python_has_not_are_no_fault_of_the_rows(tmp_path: Path) -> None:
    """A zone without tzdata on the host, and the year 75,000: each row crashed the decoder."""
    import pyarrow as pa
    from pyarrow import parquet

    zoned = pa.array([1, 2, 3, 3], type=pa.timestamp("us", tz="Nowhere/Land"))
    far = pa.array([1 << 61, 7, (1 << 61) + 1, (1 << 61) + 1], type=pa.timestamp("us"))
    parquet.write_table(pa.table({"zoned": zoned, "far": far}), tmp_path / "a.parquet")
    sets.describe(tmp_path, "a.parquet", {"zoned": "datetime", "far": "datetime"}, required=True)
    assert faults(survey(tmp_path)) == {"none": 3, "duplicate": 1}


@pytest.mark.slow
def test_an_arrow_file_may_be_a_stream(tmp_path: Path) -> None:
    """As the datasets library keeps every set; it was taken for damaged."""
    from pyarrow import ipc

    table = sets._table(300, {7, 150})
    with ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as stream:
        for batch in table.to_batches(max_chunksize=100):
            stream.write_batch(batch)
    sets.describe(tmp_path, "*.arrow", {"id": "integer", "text": "string"}, required=True)
    samples = of(survey(tmp_path), Drawn)
    assert [int(s.at.split()[1]) for s in samples if s.fault] == [7, 150] and len(samples) == 300
    os.truncate(tmp_path / "a.arrow", (tmp_path / "a.arrow").stat().st_size // 2)
    assert set(faults(survey(tmp_path))) == {"undecodable"}


@pytest.mark.slow
def test_archives_of_arrays(tmp_path: Path) -> None:
    import numpy as np

    for name, values in (("good", np.arange(9)), ("flipped", np.arange(8)), ("bomb", np.zeros(100 << 20))):
        np.savez_compressed(tmp_path / f"{name}.npz", a=values, b=values[:3])
    np.savez(tmp_path / "unsafe.npz", a=np.array([{"a": 1}], dtype=object))
    flipped = bytearray((tmp_path / "flipped.npz").read_bytes())
    flipped[60] ^= 4
    (tmp_path / "flipped.npz").write_bytes(flipped)
    found = {s.file: (s.fault or "none").partition(":")[0] for s in of(survey(tmp_path), Drawn)}
    assert found == {"good.npz": "none", "flipped.npz": "undecodable", "bomb.npz": "too_large", "unsafe.npz": "unsafe"}


@pytest.mark.slow
def test_tensors_of_every_type_and_headers_that_lie(tmp_path: Path) -> None:
    def offsets(kind: str, count: int, begin: int, end: int) -> dict[str, Any]:
        return {"dtype": kind, "shape": [count], "data_offsets": [begin, end]}

    sound = {"c64": offsets("C64", 2, 0, 16), "f8": offsets("F8_E4M3", 16, 16, 32), "f4": offsets("F4", 32, 32, 48)}
    lies = {
        "before": offsets("F32", 4, -8, 8),
        "none": {"dtype": "F32"},
        "number": 7,
        "huge": offsets("I8", 1 << 62, 0, 1 << 62),
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **sound, **lies}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + os.urandom(64))
    (tmp_path / "b.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    samples = of(survey(tmp_path), Drawn)
    assert {s.at.removeprefix("tensor ") for s in samples if not s.fault} == set(sound)
    assert len(samples) == 8 and not [s for s in samples if (s.fault or "").startswith("crashed")]


def test_layers_share_masks_and_a_copied_file_is_a_copy_all_the_same(tmp_path: Path) -> None:
    """A language model's causal masks are alike in each layer: 12 of GPT-2's 160 tensors were called duplicates."""
    import numpy as np
    from safetensors.numpy import save_file

    save_file({f"h.{n}.mask": np.tril(np.ones((4, 4))) for n in range(12)}, tmp_path / "model.safetensors")
    assert faults(survey(tmp_path)) == {"none": 12}
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "model-copy.safetensors")
    assert faults(survey(tmp_path)) == {"none": 12, "duplicate": 12}


def test_links_that_lead_nowhere_are_broken_and_those_to_folders_are_told(tmp_path: Path) -> None:
    root, other = tmp_path / "set", tmp_path / "other"
    sets.make("arrays", root, 5, 0)
    sets.make("arrays", other, 3, 0)
    (root / "there.npy").symlink_to(root / "00001.npy")
    (root / "nowhere.npy").symlink_to("/nowhere/1.npy")
    (root / "loop.npy").symlink_to("loop.npy")
    (root / "circle").symlink_to(".")
    (root / "elsewhere").symlink_to(other)
    events = survey(root)
    bad = {s.file: s.fault.partition(":")[0] for s in of(events, Drawn) if s.fault}
    assert bad == {"loop.npy": "unreadable", "nowhere.npy": "unreadable", "there.npy": "duplicate"}
    assert len(of(events, Drawn)) == 8 and of(events, Found)[0].linked == 2
    assert any("2 links to folders are not followed" in text for text in doubts(events, "/data"))
    shutil.rmtree(root)
    root.mkdir()
    (root / "elsewhere").symlink_to(other)
    assert "1 folders behind links" in of(survey(root), Refused)[0].text


def test_an_empty_file_is_called_so_in_every_format(tmp_path: Path) -> None:
    for suffix in FORMATS:
        (tmp_path / f"empty{suffix}").touch()
    samples = of(survey(tmp_path), Drawn)
    assert {(s.at, s.fault) for s in samples} == {("", "empty: the file is empty")}
    assert len(samples) == len(FORMATS)


@pytest.mark.slow
def test_an_image_of_a_hundred_million_points_is_one(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (10_000, 10_000)).save(tmp_path / "slide.png")
    assert faults(survey(tmp_path)) == {"none": 1}


@pytest.mark.slow
def test_a_description_that_is_endless_or_no_file_is_told(tmp_path: Path) -> None:
    """A pipe of that name held the survey up for ever, a sparse terabyte ended it."""
    sets.make("arrays", tmp_path, 5, 0)
    with (tmp_path / "croissant.json").open("wb") as file:
        file.truncate(1 << 40)
    os.mkfifo(tmp_path / "datapackage.json")
    events = survey(tmp_path)
    assert [one.wrong for one in of(events, Described)] == [
        "it is larger than 64 MiB",
        "unreadable: it is no regular file",
    ]
    assert len(of(events, Drawn)) == 5 and of(events, Identity)[0].description == NONE


@pytest.mark.slow
@pytest.mark.root
def test_what_this_user_may_not_read_is_told_and_never_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        root.chmod(0o755)
        sets.make("arrays", root, 6, 0)
        (root / "00003.npy").chmod(0o600)
        (root / "secret").mkdir(mode=0o700)
        (root / "secret/1.npy").write_bytes(sets.array(99))
        asked = argparse.Namespace(**{name.replace("-", "_"): value for name, value in WHOLE.items()})
        Worker(20.0).close()  # imports what the other user may not read
        os.seteuid(65534)
        try:
            first = survey_module.identity(root, None)
            survey_module.survey(root, None, asked)
        finally:
            os.seteuid(0)
        events = read(capsys.readouterr().out)
        bad = {s.file: s.fault for s in of(events, Drawn) if s.fault}
        assert bad == {"00003.npy": "unreadable: Permission denied"} and len(of(events, Drawn)) == 6
        assert any("1 folders cannot be listed" in text for text in doubts(events, "/data"))
        assert survey_module.identity(root, None).content != first.content
    finally:
        shutil.rmtree(root)


def test_a_file_that_goes_while_the_set_is_read_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sets.make("arrays", tmp_path, 6, 0)
    counted = survey_module.count

    def count(files: Any, *more: Any) -> None:
        counted(files, *more)
        (tmp_path / "00002.npy").unlink()

    monkeypatch.setattr(survey_module, "count", count)
    asked = argparse.Namespace(**{name.replace("-", "_"): value for name, value in WHOLE.items()})
    survey_module.survey(tmp_path, None, asked)
    events = read(capsys.readouterr().out)
    assert {s.file: s.fault for s in of(events, Drawn) if s.fault} == {
        "00002.npy": "unreadable: No such file or directory"}  # fmt: skip
    assert len(of(events, Drawn)) == 6 and of(events, Ended)


def test_what_needs_a_package_that_is_not_installed_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On an installation without the extra `data` each sound image, and each row, was broken."""

    def events() -> list[Event]:
        asked = argparse.Namespace(**{name.replace("-", "_"): value for name, value in WHOLE.items()})
        survey_module.survey(tmp_path, None, asked)
        return read(capsys.readouterr().out)

    sets.make("images", tmp_path, 5, 0)
    for package in ("PIL", "yaml"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Unsupported, match="PIL is not installed, so 5 samples") as refused:
        parse(events(), "/data")
    assert refused.value.reason.startswith("package_missing: ") and refused.value.remedy == INSTALL
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a"\n')
    (tmp_path / "datacontract.yaml").write_text("kind: DataContract\n")
    found = events()
    shares = {m.metric: m for m in parse(found, "/data") if m.metric.endswith("_ratio")}
    assert shares["data_valid_ratio"].value == 2 / 3, "of what could be read"
    assert "PIL is not installed" in (shares["data_valid_ratio"].invalid or "")
    assert "PyYAML is not installed" in (shares["data_documented_ratio"].invalid or "")
    assert any(INSTALL in text for text in doubts(found, "/data"))
    (tmp_path / "datacontract.yaml").unlink()
    assert parse(events(), "/data")[1].invalid is None, "nobody described it, whatever is installed"


@pytest.mark.slow
def test_hostile_files_cost_themselves_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "set"
    sets.make("images", root, 20, 0)
    (root / "bomb.png").write_bytes(bomb())
    (root / "tiff.jpg").write_bytes(b"II*\x00" + bytes(range(256)) * 4)
    (root / "laughs.jsonl").write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    (root / "endless.csv").write_text('a,b\n"' + "x" * 1_000_000)
    (root / "pickle.npy").write_bytes(pickled())
    (root / "header.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    sets.tar(root / "out.tar", [("../../escaped.txt", b"x"), ("/etc/escaped.txt", b"y"), ("fine.txt", b"z")])
    (root / "garbage.parquet").write_bytes(b"PAR1" + os.urandom(2000) + b"PAR1")
    (root / "garbage.arrow").write_bytes(b"ARROW1\x00\x00" + os.urandom(2000) + b"ARROW1")
    os.mkfifo(root / "pipe.jpg")
    (root / "away.jpg").symlink_to("/dev/zero")
    before = sorted(tmp_path.rglob("*"))
    events = survey(root)
    bad = {sample.file: sample.fault for sample in of(events, Drawn) if sample.fault}
    assert set(bad) == {"bomb.png", "tiff.jpg", "laughs.jsonl", "endless.csv", "pickle.npy", "header.safetensors",
                        "out.tar", "garbage.parquet", "garbage.arrow"}  # fmt: skip
    assert faults(events)["none"] == 21, "twenty images, and the member of the archive that is sound"
    assert sorted(tmp_path.rglob("*")) == before, "nothing was written"
    assert of(events, Ended)


def pickled() -> bytes:
    import numpy as np

    np.save(file := io.BytesIO(), np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.slow
def test_a_decoder_that_dies_or_loops_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(shards: Any, path: Path) -> Any:
        if path.name == "dies":
            os.kill(os.getpid(), 11)
        if path.name == "loops":
            time.sleep(600)
        if path.name == "raises":
            raise KeyError(path.name)
        if path.name == "eats":
            bytearray(64 << 30)
        return path.name

    monkeypatch.setitem(worker_module._ANSWERS, "test", answer)
    worker = Worker(seconds=2.0)
    said = []
    for name in ("fine", "dies", "fine", "loops", "eats", "raises", "fine"):
        try:
            said.append(worker.ask("test", tmp_path / name))
        except Bad as bad:
            said.append(str(bad).partition(":")[0])
    worker.close()
    assert said == ["fine", "crashed", "fine", "timed_out", "too_large", "undecodable", "fine"]


def test_samples_that_all_hang_end_the_survey_at_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sixteen of them were waited for before the clock was looked at: the run lost the whole survey."""
    sets.make("arrays", tmp_path, 40, 0)
    monkeypatch.setitem(whole._CONTENT, ".npy", lambda _: time.sleep(600))
    monkeypatch.setattr(survey_module, "_SAMPLE_SECONDS", 0.5)
    asked = argparse.Namespace(**{name.replace("-", "_"): value for name, value in WHOLE.items()} | {"seconds": 1.0})
    survey_module.survey(tmp_path, None, asked)
    events = read(capsys.readouterr().out)
    assert of(events, Ended)[0].why == "time" and 1 <= len(of(events, Drawn)) <= 4
    assert set(faults(events)) == {"timed_out"}


def test_the_decoder_may_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(worker_module._ANSWERS, "test", lambda shards, path: resource.getrlimit(resource.RLIMIT_FSIZE))
    worker = Worker(seconds=20.0)
    assert worker.ask("test", tmp_path) == (0, 0)
    worker.close()


# --- what is there


@pytest.mark.slow
def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    assert of(survey(tmp_path), Refused)[0].word == "empty"
    (tmp_path / "notes.bin").write_bytes(b"x")
    assert "no file of a known format" in of(survey(tmp_path), Refused)[0].text


@pytest.mark.slow
def test_a_set_is_known_again_until_it_changes(tmp_path: Path) -> None:
    sets.make("images", tmp_path, 100, 0)

    def identity() -> Identity:
        return of(survey(tmp_path), Identity)[0]

    first = identity()
    assert identity() == first
    data = bytearray((tmp_path / "00000.jpg").read_bytes())
    data[-3] ^= 1
    (tmp_path / "00000.jpg").write_bytes(data)
    changed = identity()
    assert changed.inventory == first.inventory and changed.content != first.content
    (tmp_path / "00001.jpg").unlink()
    assert identity().inventory != first.inventory


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"resources": [7]}', "[" * 100_000, "\x00\xff"])
def test_a_description_that_cannot_be_used_is_told_and_the_data_is_looked_at(text: str, tmp_path: Path) -> None:
    sets.make("arrays", tmp_path, 10, 0)
    (tmp_path / "datapackage.json").write_text(text)
    events = survey(tmp_path)
    assert all(sample.undocumented for sample in of(events, Drawn))
    assert len(of(events, Drawn)) == 10 and not any(one.standard for one in of(events, Described))


@pytest.mark.slow
@pytest.mark.root
def test_who_can_reach_it(tmp_path: Path) -> None:
    sets.make("arrays", tmp_path / "set", 5, 0)
    (tmp_path / "set").chmod(0o700)
    closed = of(survey(tmp_path / "set"), Access)[0]
    assert (closed.mode, closed.others_read, closed.others_write) == ("0700", False, False)
    for above in (tmp_path / "set", *tmp_path.parents):
        if str(above).startswith("/tmp/") or above == tmp_path / "set":
            above.chmod(0o755)
    tmp_path.chmod(0o755)
    (tmp_path / "set/00001.npy").chmod(0o666)
    opened = of(survey(tmp_path / "set"), Access)[0]
    assert (opened.others_read, opened.others_write) == (True, True)


@pytest.mark.slow
def test_whom_an_access_list_names(tmp_path: Path) -> None:
    """As setfacl -m u:65534:rwx,g:100:rw,m::r-x writes it."""
    sets.make("arrays", tmp_path, 3, 0)
    entries = [(1, 7, -1), (2, 7, 65534), (4, 5, -1), (8, 6, 4_000_000), (16, 5, -1), (32, 0, -1)]
    data = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(tmp_path, "system.posix_acl_access", data)
    found = of(survey(tmp_path), Access)[0]
    assert found.access_list == f"posix: user {pwd.getpwuid(65534).pw_name} r-x, group 4000000 r--"
    os.removexattr(tmp_path, "system.posix_acl_access")
    os.setxattr(tmp_path / "00001.npy", "system.posix_acl_access", data)
    assert of(survey(tmp_path), Access)[0].access_list == "some files"


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "gaps"), [("nodev,nosuid", set()), ("dev,suid", {"devices_allowed", "setuid_allowed"})]
)
def test_how_it_is_mounted(options: str, gaps: set[str], tmp_path: Path) -> None:
    """In a mount namespace of its own."""
    script = 'mount -t tmpfs -o "$1" x "$2" && mkdir "$2/s" && printf "a\\n1\\n" > "$2/s/a.csv" && shift 2 && exec "$@"'
    argv = [sys.executable, "-m", "probes.data.load.survey", str(tmp_path / "s")]
    words = ["unshare", "-m", "sh", "-ec", script, "sh", options, str(tmp_path), *argv]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = {m.labels["check"]: m.value for m in parse(read(done.stdout), "/s") if m.metric == "data_access_gaps"}
    assert {name for name in ("devices_allowed", "setuid_allowed") if found[name]} == gaps


@pytest.mark.slow
def test_rates_are_those_of_the_reading(tmp_path: Path) -> None:
    sets.make("arrays", tmp_path, 200, 0)
    (look,) = of(survey(tmp_path), Look)
    assert look.samples == 200 and look.samples_per_second > 1
    size = (tmp_path / "00000.npy").stat().st_size
    assert look.bytes_per_second == pytest.approx(look.samples_per_second * size)


def spinning(seconds: float) -> Any:
    """A decoder of that much CPU time a sample."""

    def decode(data: bytes) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    return decode


def test_what_a_core_decodes_is_known_by_its_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A decoder that takes four times the CPU time gives a quarter, however slowly the samples were read."""
    sets.make("arrays", tmp_path, 100, 3)
    asked = argparse.Namespace(**{name.replace("-", "_"): value for name, value in WHOLE.items()})
    rates, surveys = [], []
    for cost in (0.001, 0.004):
        monkeypatch.setitem(whole._CONTENT, ".npy", spinning(cost))
        survey_module.survey(tmp_path, None, asked)
        events = read(capsys.readouterr().out)
        rate = next(m for m in parse(events, "/data") if m.metric == "data_decode_bytes_per_second")
        size = sum(sample.decoded_bytes for sample in of(events, Drawn)) / len(of(events, Drawn))
        assert rate.value * cost == pytest.approx(size, rel=0.2) and rate.interval[0] <= rate.value <= rate.interval[1]
        rates.append(rate.value)
        surveys.append([*parse(events, "/data")])
        assert of(events, Ended)[0].cores == usable_cores()
    assert rates[0] / rates[1] == pytest.approx(4.0, rel=0.2)
    demand = feed(
        usable_cores() * rates[1] * 2 / 1e5
    )  # twice what the slow decoder gives, half of what the fast one does
    assert [finding(found(survey, demand)).status for survey in surveys] == ["pass", "fail"]


@pytest.mark.slow
def test_a_row_group_is_decoded_once_for_all_its_rows(tmp_path: Path) -> None:
    sets.make("parquet", tmp_path, 97 * 4, 0)
    samples = of(survey(tmp_path), Drawn)
    assert len(samples) == 388 and sum(sample.decoded_bytes > 0 for sample in samples) == 4
    size = (tmp_path / "all.parquet").stat().st_size
    assert sum(sample.decoded_bytes for sample in samples) == pytest.approx(size, abs=4)
    assert [one.seconds for one in samples] == sorted(one.seconds for one in samples) and samples[-1].seconds > 0


def test_no_event_holds_what_a_sample_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "4111-1111-1111-1111"
    (tmp_path / "a.jsonl").write_text(f'{{"card": "{secret}"}}\n{{"card": "{secret}\n')
    (tmp_path / "a.csv").write_text(f"id\n{secret},{secret}\n")
    sets.describe(tmp_path, "*", {"card": "integer"})
    asked = argparse.Namespace(**{name.replace("-", "_"): value for name, value in WHOLE.items()})
    survey_module.survey(tmp_path, None, asked)
    out = capsys.readouterr().out
    assert faults(read(out)) == {"schema": 2, "undecodable": 1} and secret not in out
    assert json.loads(out.splitlines()[0])["kind"] == "described"
