"""Descriptions of data sets, as we read them and as their standards' own libraries do.

mlcroissant judges a Croissant file, frictionless a data package; both get an environment of their own below the user's
cache folder, made on the first call (some 400 MB). The sound ones must be accepted by both sides, and each planted
fault refused by both.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probes.data.description import NotUnderstood, read
from tests.probes.data.sets import CROISSANT

HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aiready-bench" / "data-judges"
PACKAGES = ("mlcroissant==1.1.1", "frictionless==5.21.0")
PACKAGE: dict[str, Any] = {
    "name": "people", "resources": [{"name": "people", "path": "people.csv", "schema": {"fields": [
        {"name": "id", "type": "integer"}, {"name": "name", "type": "string"}]}}],
}  # fmt: skip
JUDGES = {
    "croissant": "import sys, mlcroissant; mlcroissant.Dataset(jsonld=sys.argv[1])",
    "package": "import json, sys, frictionless; "
    "sys.exit(not frictionless.Package.validate_descriptor(json.load(open(sys.argv[1]))).valid)",
}


def changed(document: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    made = copy.deepcopy(document)
    change(made)
    return made


#: (kind, what, the document, is it sound)
CASES: tuple[tuple[str, str, dict[str, Any], bool], ...] = (
    ("croissant", "sound", CROISSANT, True),
    ("croissant", "not a data set", changed(CROISSANT, lambda d: d.update({"@type": "sc:Person"})), False),
    ("croissant", "field of no file",
     changed(CROISSANT, lambda d: d["recordSet"][0]["field"][0]["source"].update(fileObject={"@id": "gone"})), False),
    ("croissant", "distribution of no kind",
     changed(CROISSANT, lambda d: d["distribution"][0].update({"@type": "sc:Thing"})), False),
    ("package", "sound", PACKAGE, True),
    ("package", "resource without a path", changed(PACKAGE, lambda d: d["resources"][0].pop("path")), False),
    ("package", "path out of it", changed(PACKAGE, lambda d: d["resources"][0].update(path="../people.csv")), False),
    ("package", "field without a name",
     changed(PACKAGE, lambda d: d["resources"][0]["schema"]["fields"][0].pop("name")), False),
)  # fmt: skip


def python() -> Path:
    """The Python that has both judges, installed where it is not there yet."""
    command = HOME / "bin" / "python"
    if not command.exists():
        print(f"making {HOME} (some minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        subprocess.run([str(command), "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return command


def main() -> int:
    command, wrong = python(), 0
    for kind, what, document, sound in CASES:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "people.csv").write_text("id,name\n1,a\n2,b\n")
            Path(folder, "pictures").mkdir()
            file = Path(folder, "croissant.json" if kind == "croissant" else "datapackage.json")
            file.write_text(json.dumps(document))
            done = subprocess.run([str(command), "-c", JUDGES[kind], str(file)], capture_output=True, check=False)
        try:
            ours = read(document, lambda _: None) is not None
        except NotUnderstood:
            ours = False
        theirs = done.returncode == 0
        wrong += not ours == theirs == sound
        print(f"{kind}, {what}: ours {ours}, theirs {theirs}, sound {sound}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
