"""What a data set's own description says of its files and fields. Pure: parsed JSON or YAML in, a `Description` out.

Three kinds are read: MLCommons Croissant 1.0 and 1.1 (docs.mlcommons.org/croissant), a Frictionless data package
(datapackage.org, Data Package and Table Schema v1 and v2), and the Open Data Contract Standard 3 (bitol.io). Their own
libraries weigh up to 340 MB and read no data, or all of it; they are judges in the tests. What a description leaves out
is not documented, and nothing is invented for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from fnmatch import fnmatch
from numbers import Real
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

#: Names of description files, looked for at the top of a data set.
NAMES = ("croissant.json", "metadata.json", "datapackage.json", "datacontract.yaml", "*.croissant.json", "*.odcs.yaml")
#: Croissant 1.1, "Dataset-level information": required properties.
_CROISSANT = ("@context", "@type", "conformsTo", "description", "license", "name", "url", "creator", "datePublished")
#: A Croissant field of several values, and a source whose values are made of those in the record.
_PARTS, _MADE = ("repeated", "isArray", "subField"), ("transform", "format")
_WILD = re.compile(r"[*?[]")
#: By these a column of Table Schema writes its values in a form of its own, which they are not held against.
_FORMS = ("trueValues", "falseValues", "decimalChar", "groupChar")
#: The types of the three standards as four that a value can be held against; any other type takes every value.
_KINDS = {
    "integer": "integer", "int": "integer", "int32": "integer", "int64": "integer", "long": "integer",
    "number": "number", "float": "number", "double": "number", "float32": "number", "float64": "number",
    "boolean": "boolean", "bool": "boolean", "date": "date", "datetime": "date", "timestamp": "date",
}  # fmt: skip


class NotUnderstood(ValueError):
    """A description that cannot be used: one line that names the place in it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record. ``kind``: integer, number, boolean, date, any; empty where no type is declared."""

    kind: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Files, by names or patterns relative to the data set, and the fields of their records (none: not described).

    ``without``: patterns of files that are none of these. Of a file of separated values: what is ``missing``, the
    ``delimiter`` if it is not that of its name, and whether its first line has the columns' names, which are else those
    of the fields.
    """

    patterns: tuple[str, ...]
    fields: Mapping[str, Field] = field(default_factory=dict)
    sha256: str | None = None
    missing: tuple[str, ...] = ("",)
    delimiter: str = ""
    header: bool = True
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """``lacking``: what the standard requires of the whole and is not there."""

    standard: str
    tables: tuple[Table, ...]
    lacking: tuple[str, ...] = ()
    _named: Mapping[str, list[int]] = field(init=False, repr=False, compare=False)  # of each pattern, its tables
    _patterns: tuple[tuple[int, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        named: dict[str, list[int]] = {}
        for number, table in enumerate(self.tables):
            for one in table.patterns:
                named.setdefault(one, []).append(number)
        wild = tuple((number, one) for one, numbers in named.items() for number in numbers if _WILD.search(one))
        object.__setattr__(self, "_named", named)
        object.__setattr__(self, "_patterns", wild)

    def of(self, path: str) -> Table | None:
        """All that is said of one file; None where nothing is. A description may name each of ten thousand files."""
        last = PurePosixPath(path).name

        def fits(pattern: str) -> bool:
            return fnmatch(path, pattern) or fnmatch(last, pattern)

        numbers = {*self._named.get(path, ()), *self._named.get(last, ())}
        numbers.update(number for number, pattern in self._patterns if fits(pattern))
        tables = (self.tables[number] for number in sorted(numbers))
        found: list[Table] = [table for table in tables if not any(map(fits, table.without))]
        if not found:
            return None
        fields = {name: one for table in found for name, one in table.fields.items()}
        sha256 = next((table.sha256 for table in found if table.sha256), None)
        return replace(found[0], patterns=(path,), fields=fields, sha256=sha256, without=())


def read(document: Any, text_of: Callable[[str], Any]) -> Description | None:
    """None for a document of another kind. ``text_of`` parses another file (a schema). Raises NotUnderstood."""
    if not isinstance(document, Mapping):
        return None
    if "resources" in document:
        return _frictionless(document, text_of)
    if document.get("kind") == "DataContract":
        return _contract(document)
    if "croissant" in str(document.get("conformsTo", "")).lower() or "recordSet" in document:
        return _croissant(document)
    return None


# --- Croissant


def _croissant(document: Mapping[str, Any]) -> Description:
    if _plain(document.get("@type", "")) != "Dataset":
        raise NotUnderstood("@type is not sc:Dataset")
    lacking = tuple(name for name in _CROISSANT if not document.get(name))
    files: dict[str, Table] = {}
    parents: dict[str, list[str]] = {}
    for place, one in _objects(document, "distribution"):
        name = _name(one, place)
        kind = _plain(one.get("@type", ""))
        patterns: tuple[str, ...]
        if kind == "FileObject":
            patterns = _copies(str(one.get("contentUrl", "")), name, f"{place}.contentUrl")
        elif kind == "FileSet":
            patterns = tuple(map(str, _many(one.get("includes"))))
        else:
            raise NotUnderstood(f"{place}.@type is neither cr:FileObject nor cr:FileSet")
        digest = one.get("sha256")
        without = tuple(map(str, _many(one.get("excludes"))))
        files[name] = Table(patterns, {}, digest.lower() if isinstance(digest, str) else None, without=without)
        parents[name] = [str(_reference(other)) for other in _many(one.get("containedIn"))]
    fields = _croissant_fields(document, files)
    for name, above in parents.items():  # what lies in an archive is described with the archive
        for parent in above:
            if parent in fields:
                fields[parent] = fields[parent] | fields[name]
    tables = (replace(table, fields=fields[name]) for name, table in files.items())
    return Description("croissant", tuple(tables), lacking)


def _croissant_fields(document: Mapping[str, Any], files: Mapping[str, Table]) -> dict[str, dict[str, Field]]:
    """By file object or set, the fields that any record set takes from it."""
    found: dict[str, dict[str, Field]] = {name: {} for name in files}
    for place, records in _objects(document, "recordSet"):
        for at, one in _with_parts(records, place):
            source = one.get("source")
            if not isinstance(source, Mapping):
                continue
            origin = _reference(source.get("fileObject") or source.get("fileSet") or source.get("distribution"))
            if origin is None:
                continue
            if origin not in found:
                raise NotUnderstood(f"{at}.source names {origin!r}, which is not in distribution")
            kinds = [_plain(kind).lower() for kind in _many(one.get("dataType"))]
            kind = next((_KINDS.get(kind, "any") for kind in kinds), "")
            if any(map(one.get, _PARTS)) or any(map(source.get, _MADE)):
                kind = "any"  # a list of it, an object of several, or read out of what the record holds
            for name in _extracted(source, _name(one, at)):
                found[origin][name] = Field(kind)
    return found


def _with_parts(records: Mapping[str, Any], place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The fields of a record set, and the parts that a field has in place of a value."""
    for at, one in _objects(records, "field", place):
        yield at, one
        yield from _objects(one, "subField", at)


def _copies(url: str, name: str, place: str) -> tuple[str, ...]:
    """Where a file lies in the data set; of one that is published somewhere else, what a copy of it is called."""
    if "://" not in url:
        return (_relative(url, place),)
    last = PurePosixPath(unquote(urlsplit(url).path)).name
    return tuple(dict.fromkeys(one for one in (name, last) if PurePosixPath(one).suffix))


def _extracted(source: Mapping[str, Any], name: str) -> Iterator[str]:
    """The names under which a field may stand in a record: its column, its JSON path's last part, or its own."""
    extract = source.get("extract")
    extract = extract if isinstance(extract, Mapping) else {}
    if column := extract.get("column"):
        yield str(column)
    elif path := extract.get("jsonPath"):
        yield re.split(r"[.\[\]'\"]+", str(path).strip("]'\""))[-1]
    else:
        yield name.rpartition("/")[2]


def _name(one: Mapping[str, Any], place: str) -> str:
    if not (name := one.get("@id") or one.get("name")):
        raise NotUnderstood(f"{place} has neither @id nor name")
    return str(name)


def _plain(term: Any) -> str:
    """A term without its vocabulary: ``Text`` for ``sc:Text`` and for ``https://schema.org/Text``."""
    return str(term).rpartition("/")[2].rpartition(":")[2]


def _reference(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("@id")
    return None if value is None else str(value)


# --- Frictionless


def _frictionless(document: Mapping[str, Any], text_of: Callable[[str], Any]) -> Description:
    tables = []
    for place, one in _objects(document, "resources"):
        named = [str(path) for path in _many(one.get("path"))]
        paths = [_relative(path, f"{place}.path") for path in named if "://" not in path]  # a URL is none of this set
        if not named and "data" not in one:
            raise NotUnderstood(f"{place} has no path")
        schema = one.get("schema") or {}
        if isinstance(schema, str):
            schema = text_of(_relative(schema, f"{place}.schema"))
        if not isinstance(schema, Mapping):
            raise NotUnderstood(f"{place}.schema is no object")
        fields = {}
        for at, column in _objects(schema, "fields", f"{place}.schema"):
            constraints = column.get("constraints")
            required = isinstance(constraints, Mapping) and constraints.get("required") is True
            plain = column.get("format", "default") == "default" and not any(column.get(name) for name in _FORMS)
            kind = _kind(column.get("type"))
            fields[_name(column, at)] = Field(kind if plain else kind and "any", required)
        algorithm, _, digest = str(one.get("hash") or "").rpartition(":")
        declared = digest.lower() if algorithm.lower() in ("sha256", "sha-256") else None
        dialect = _object(one.get("dialect"))
        dialect = {**dialect, **_object(dialect.get("csv"))}
        delimiter = dialect.get("delimiter")
        table = Table(
            tuple(paths), fields, declared, tuple(map(str, _many(schema.get("missingValues", [""])))),
            delimiter if isinstance(delimiter, str) and len(delimiter) == 1 else "", dialect.get("header") is not False,
        )  # fmt: skip
        tables.append(table)
    return Description("frictionless", tuple(tables))


# --- Open Data Contract


def _contract(document: Mapping[str, Any]) -> Description:
    lacking = tuple(name for name in ("apiVersion", "id", "version", "status") if not document.get(name))
    tables = []
    for place, one in _objects(document, "schema"):
        names = [str(name) for name in (one.get("physicalName"), one.get("name")) if name]
        if not names:
            raise NotUnderstood(f"{place} has no name")
        fields = {
            _name(column, at): Field(_kind(column.get("logicalType")), column.get("required") is True)
            for at, column in _objects(one, "properties", place)
        }
        tables.append(Table(tuple(p for name in names for p in (name, f"{name}.*", f"{name}/*")), fields))
    return Description("odcs", tuple(tables), lacking)


# --- parts


def _kind(declared: Any) -> str:
    return _KINDS.get(str(declared).lower(), "any") if declared else ""


def _many(value: Any) -> Sequence[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _objects(of: Mapping[str, Any], key: str, place: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(its place, the object) of each that is listed under ``key``. Raises NotUnderstood for what is none."""
    for number, one in enumerate(_many(of.get(key))):
        at = f"{place}.{key}[{number}]".lstrip(".")
        if not isinstance(one, Mapping):
            raise NotUnderstood(f"{at} is no object")
        yield at, one


def _relative(path: str, place: str) -> str:
    """A path inside of the data set. Raises NotUnderstood for an absolute one, a URL, or one that leads out."""
    parts = PurePosixPath(path)
    if "://" in path or parts.is_absolute() or ".." in parts.parts or not path:
        raise NotUnderstood(f"{place} {path!r} is not a path inside of the data set")
    return str(parts)


# --- a record against its fields


def undocumented(names: Sequence[str], table: Table | None) -> str | None:
    """Why a record with these fields is not documented; None where it is. Without names its content has none."""
    if table is None:
        return "no description covers its file"
    lacking = [name for name in names if name not in table.fields]
    if lacking:
        return f"the description lacks its field {lacking[0]!r}"
    untyped = [name for name in names if not table.fields[name].kind]
    return f"the description gives its field {untyped[0]!r} no type" if untyped else None


def mismatch(record: Mapping[str, Any], table: Table | None, *, texts: bool = False) -> str | None:
    """What of a record is not as declared; None where all is. ``texts``: values are texts, as in CSV."""
    for name, one in (table.fields if table else {}).items():
        value = record.get(name)
        if value is None or (texts and table and (value == "" or value in table.missing)):
            if one.required:
                return f"its field {name!r} is missing"
        elif not _FITS[one.kind](value, texts):
            return f"its field {name!r} is no {one.kind}"
    return None


def _integer(value: Any, texts: bool) -> bool:
    if texts:
        return re.fullmatch(r"\s*[+-]?\d+\s*", value, re.ASCII) is not None
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any, texts: bool) -> bool:
    if texts:
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, Real | Decimal) and not isinstance(value, bool) and math.isfinite(value)


def _boolean(value: Any, texts: bool) -> bool:
    return value.strip().lower() in ("true", "false", "1", "0") if texts else isinstance(value, bool)


def _date(value: Any, texts: bool) -> bool:
    if isinstance(value, date):
        return True
    try:
        datetime.fromisoformat(value.strip())
    except (ValueError, AttributeError):
        return False
    return True


_FITS: Mapping[str, Callable[[Any, bool], bool]] = {
    "integer": _integer, "number": _number, "boolean": _boolean, "date": _date,
    "any": lambda *_: True, "": lambda *_: True,
}  # fmt: skip
