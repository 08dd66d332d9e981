"""``python -m tests.golden``: writes the generated files anew (docs/metrics.md, docs/profiles.md, board, rules)."""

from __future__ import annotations

from tests.golden.generated import FILES, ROOT


def main() -> None:
    for path, make in FILES.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(make(), encoding="utf-8")
        print(path)


main()
