"""``python -m tests.golden``: writes the generated files anew (pages, board, rules, man page, completion).

``python -m tests.golden recorded``: what the commands say of the recorded runs, nights and fleets; read the difference.
``python -m tests.golden replayed``: the recorded documents where their evidence reads otherwise now; then recorded.
``python -m tests.golden stands``: adds to what_stands.json what has come since; never takes anything away.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.golden import recorded, standing
from tests.golden.generated import FILES, ROOT


def main() -> None:
    if sys.argv[1:] == ["recorded"]:
        with tempfile.TemporaryDirectory() as folder:
            recorded.write_all(Path(folder))
        print(recorded.GOLDEN)
        return
    if sys.argv[1:] == ["replayed"]:
        with tempfile.TemporaryDirectory() as folder:
            recorded.lay_out(Path(folder))
            for name in recorded.RUNS:
                recorded.renew(name, Path(folder))
        return
    if sys.argv[1:] == ["stands"]:
        standing.add()
        print(standing.FILE)
        return
    for path, make in FILES.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(make(), encoding="utf-8")
        print(path)


main()
