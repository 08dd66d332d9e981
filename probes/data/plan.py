"""What is looked at, how much of it, and when it is enough. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bench.model import Effort

#: The most samples that are drawn of one data set.
MOST: Mapping[Effort, int] = {Effort.QUICK: 2_000, Effort.STANDARD: 10_000, Effort.THOROUGH: 100_000}
#: A data set of at most so many samples and bytes is looked at as a whole: its shares are then exact.
WHOLE_SAMPLES: Mapping[Effort, int] = {Effort.QUICK: 2_000, Effort.STANDARD: 10_000, Effort.THOROUGH: 100_000}
WHOLE_BYTES: Mapping[Effort, int] = {Effort.QUICK: 64 << 20, Effort.STANDARD: 512 << 20, Effort.THOROUGH: 8 << 30}
#: Files whose declared checksum is held against them: so many bytes of each data set.
CHECKSUM_BYTES: Mapping[Effort, int] = {Effort.QUICK: 256 << 20, Effort.STANDARD: 2 << 30, Effort.THOROUGH: 64 << 30}
#: What decodes Parquet, Arrow, JPEG, PNG and YAML.
INSTALL = "pip install 'aiready-bench[data]'"


def sets(text: str) -> tuple[str, ...]:
    """The data sets that a request names, a JSON list of paths. Raises ValueError."""
    found = json.loads(text) if text.startswith("[") else [text]
    if not isinstance(found, list) or not found or not all(isinstance(one, str) and one for one in found):
        raise ValueError("must be a JSON list of paths")
    return tuple(dict.fromkeys(found))


def there(paths: tuple[str, ...]) -> None:
    """Raises ValueError for a path that is neither a directory nor, by its name, the description of one."""
    for path in paths:
        found = Path(path)
        if not (found.is_dir() or (found.is_file() and found.suffix.lower() in (".json", ".yaml", ".yml"))):
            raise ValueError(f"{path} is neither a directory nor a description of one (.json, .yaml)")
