"""The generated files are what the declarations make, and the documents point at what is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.bench import bench
from tests.golden.generated import FILES, ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("path", FILES)
def test_generated_files_are_fresh(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == FILES[path](), "make them again: python -m tests.golden"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def commands() -> list[str]:
    """Every `bench ...` line in a code block of the documents."""
    found: dict[str, None] = {}
    for path in DOCS:
        for block in re.findall(r"```(?:sh|bash|console)?\n(.*?)```", path.read_text(), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*bench ([a-z].*)", line)
                if match:
                    found[match[1]] = None
    return list(found)


@pytest.mark.slow
def test_every_option_in_the_documents_exists() -> None:
    """A document that names an option which was renamed is worse than none."""
    helps: dict[str, str] = {}
    wrong = []
    for command in commands():
        words = shlex.split(re.split(r"\s[|>&;#]|\s2>", command)[0], comments=True)
        name = " ".join(words[:2]) if words[0] in ("fleet", "baseline", "schedule") else words[0]
        if name not in helps:
            done = bench(*name.split(), "--help", cwd=ROOT)
            helps[name] = done.stdout if done.returncode == 0 else ""
        options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
        wrong += [
            f"bench {command}: {option}" for option in options if not re.search(rf"(?<!\S){option}\b", helps[name])
        ]
        if not helps[name]:
            wrong.append(f"bench {name}: no such command")
    assert wrong == []
