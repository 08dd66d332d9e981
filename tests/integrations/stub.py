"""A ``bench`` whose ``run`` measures nothing: it stores a run made by hand and exits as the real one would.

Everything else that the script under test calls is the real command.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

STATUS = {"good": 0, "starved": 1, "inconclusive": 3}
ROOT = Path(__file__).parents[2]


def stub(folder: Path, answer: str) -> Path:
    """A folder to put before PATH; ``answer`` names a run of tests.show.export.sample."""
    script = folder / "bench"
    root, python = shlex.quote(str(ROOT)), shlex.quote(sys.executable)
    store = f"from tests.show.export import sample; from pathlib import Path; sample.stored(Path(r), sample.{answer}())"
    script.write_text(
        "#!/bin/bash\n"
        f"cd {root}\n"
        'if [ "$1" = run ]; then\n'
        '  while [ $# -gt 0 ]; do [ "$1" = --results ] && BENCH_RESULTS=$2; shift; done\n'
        f"  {python} -c \"r='$BENCH_RESULTS'; {store}\" || exit 2\n"
        f'  echo "{answer}"; exit {STATUS[answer]}\n'
        "fi\n"
        f'cd "$OLDPWD" && PYTHONPATH={root} exec {python} -m bench "$@"\n'
    )
    script.chmod(0o755)
    return folder


def shell(text: str, folder: Path, path: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """As a runner does: one shell that ends at the first error."""
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}", "BENCH_RESULTS": str(folder / "results"), **extra}
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
