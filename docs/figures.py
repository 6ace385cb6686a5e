"""Draw the figures of the site: ``uv run python docs/figures.py [PAGE ...]``.

The code of a figure is what stands on its page above it. The Python blocks of a page are run from top to bottom, and at each
``![...](images/NAME.png)`` the current figure is written under that name, in 96 colours so that files stay small.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib as mpl

DOCS = Path(__file__).resolve().parent
PART = re.compile(
    r"^```python\n(?P<code>.*?)^```$|^!\[.*?\]\((?:\.\./)*images/(?P<name>[\w-]+)\.png\)", re.MULTILINE | re.DOTALL
)


def pages() -> list[Path]:
    """Return the pages that show figures of their own code."""
    return [path for path in sorted(DOCS.rglob("*.md")) if "](images/" in path.read_text(encoding="utf-8")]


def draw(page: Path) -> list[str]:
    """Run a page and write its figures; return their names."""
    import matplotlib.pyplot as plt
    from PIL import Image

    names: dict[str, object] = {"__name__": "page"}
    written = []
    for part in PART.finditer(page.read_text(encoding="utf-8")):
        if part["code"]:
            exec(compile(part["code"], str(page), "exec"), names)
            continue
        path = DOCS / "images" / f"{part['name']}.png"
        plt.gcf().savefig(path, dpi=110, bbox_inches="tight")
        plt.close("all")
        with Image.open(path) as image:
            few = image.convert("RGB").quantize(96, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
        written.append(part["name"])
    return written


if __name__ == "__main__":
    mpl.use("Agg")
    for page in [DOCS / name for name in sys.argv[1:]] or pages():
        print(page.relative_to(DOCS), *draw(page))
