"""What of a page a reader could not read, by the boxes that Chromium gives it: clipped, overlapping, too faint.

The page is shown in frames of several widths, each with a script of ours in it (the page's own policy is taken off),
all of its details open. Works on a page, and on one with an SVG in it.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

from tests.show.html.chromium import look

WIDTHS = (400, 1000, 1600)
_SCRIPT = Path(__file__).with_name("layout.js").read_text(encoding="utf-8")
_FRAMES = """<!doctype html><meta charset="utf-8"><body><pre id="told"></pre><script>
const all = {{}};
addEventListener('message', event => {{
  all[event.data.width] = event.data; document.getElementById('told').textContent = JSON.stringify(all);
}});
</script>{frames}"""


def faults(page: str, where: Path, widths: tuple[int, ...] = WIDTHS, *, dark: bool = False) -> list[str]:
    """A line for each thing that cannot be read, with the width of the page in front; none where all is well."""
    bare = re.sub(r"<meta http-equiv=[^>]*>", "", page)
    (where / "shown.html").write_text(f"{bare}<script>{_SCRIPT}</script>", encoding="utf-8")
    frames = "".join(
        f'<iframe src="shown.html" style="width:{width}px;height:900px;border:0"></iframe>' for width in widths
    )
    (where / "frames.html").write_text(_FRAMES.format(frames=frames), encoding="utf-8")
    seen = look(where / "frames.html", size="1700,900", dark=dark)
    told = re.search(r'<pre id="told">(.*?)</pre>', seen.dom, re.S)
    answers = json.loads(html.unescape(told[1]) or "{}") if told else {}
    assert set(answers) == {str(width) for width in widths}, f"not every frame answered: {seen.console}"
    assert all(one["boxes"] for one in answers.values()), "a frame without a word"
    return [f"{width} px: {line}" for width, one in answers.items() for line in one["found"]]
