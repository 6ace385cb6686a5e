"""Draw the map of the house from its imports: ``uv run python docs/house.py`` writes ``images/house.svg``.

Modules and their imports are found by grimp, which import-linter stands on; floors are those of `pyproject.toml`.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

import grimp
import matplotlib as mpl
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
INK, LIGHT = "#1f2328", "#d0d7de"


def floors() -> list[str]:
    """Return the packages that are folders, from the top floor to the lowest."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    names = [name for layer in layers for name in re.findall(r"\w+", layer)]
    return [name for name in names if (ROOT / "bayesens" / name).is_dir()]


def imports(names: list[str]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Return the number of modules of each package, and of imports from one to another."""
    graph = grimp.build_graph("bayesens", cache_dir=None)
    modules: Counter[str] = Counter()
    arrows: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        importer = (module.split(".") + [""])[1]
        modules[importer] += 1
        for other in graph.find_modules_directly_imported_by(module):
            imported = (other.split(".") + [""])[1]
            if importer in names and imported in names and importer != imported:
                arrows[importer, imported] += 1
    return modules, arrows


def draw() -> None:
    """Draw floors as rows, and in each the packages below that it imports."""
    mpl.use("svg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "house", "font.size": 9}
    import matplotlib.pyplot as plt

    names = floors()
    modules, arrows = imports(names)
    n = len(names)
    counts = np.array([[arrows[above, below] for below in names] for above in names], float)
    figure, ax = plt.subplots(figsize=(8.2, 5.6), layout="constrained")
    shades = np.ma.masked_equal(np.sqrt(counts), 0)
    ax.imshow(shades, cmap="Blues", vmin=0, vmax=1.7 * shades.max())
    for i, j in zip(*np.nonzero(counts), strict=True):
        ax.text(j, i, f"{counts[i, j]:.0f}", ha="center", va="center", color=INK, fontsize=8)
    ax.plot([-0.5, n - 0.5], [-0.5, n - 0.5], color=LIGHT, lw=1)
    ax.set_xticks(range(n), names, rotation=40, ha="left")
    ax.set_yticks(range(n), [f"{name} ({modules[name]})" for name in names])
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set(xticks=range(n), yticks=range(n))
    ax.set_xlabel("imports ... from these packages")
    ax.set_ylabel("a module of ... (number of modules)")
    for side in ax.spines.values():
        side.set_color(LIGHT)
    figure.savefig(ROOT / "docs" / "images" / "house.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw()
