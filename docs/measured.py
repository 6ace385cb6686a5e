"""Write the figures of README and site from committed results: ``uv run python docs/measured.py``.

A table stands between ``<!-- numbers: NAME -->`` and ``<!-- end -->``; its name is one of `TABLES` in `committed.py`. A figure
within a sentence is found by the words around it: `SENTENCES` has them by page, with the names of `facts` in braces. A test
fails when writing anew would change a page.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # at the end: what lies beside this file hides nothing of others
from committed import TABLES, facts

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^<!-- numbers: (\w+) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"\{([^}]+)\}")
FIGURE = r"([+-]?[\d.,]*\d(?:\s+%\s+\([+-][\d.]+\s+to\s+[+-][\d.]+\))?)"  # a number, or a change with its interval

SENTENCES = {
    "README.md": [
        "changes the CRPS by {OzNet, new sites: HBM or BMA} at new sites of OzNet",
        "{Narmada, new gauges: HBM or BMA} at new gauges of the Narmada",
        "on the same day is worth {atlanta BMA of the day} around Atlanta and {oznet BMA of the day} at OzNet",
    ],
    "docs/decisions/approximate_first.md": [
        "10,000 rows {seconds bma_auto_10k} s against {seconds bma_naive_10k} s by hand",
        "100,000 rows {seconds bma_auto_100k} s against {seconds bma_naive_100k} s",
    ],
    "docs/decisions/correct_then_mix.md": [
        "at new sites of OzNet {crps oznet options fitted at once} against {crps oznet options one width}, in Atlanta "
        "{crps atlanta options fitted at once} against {crps atlanta options one width}, because",
        "bring two steps to {crps oznet options BMA} and {crps atlanta options BMA} (",
        "a fit at once changes it by {oznet options fitted at once} at OzNet and by {atlanta options fitted at once} in Atlanta",
    ],
    "docs/decisions/half_way.md": [
        "90 % intervals held {half way one member} % of new rows by the first, {half way right variance} % by the second and "
        "{half way half way} % half way, in {half way simulations} simulated tables",
    ],
    "docs/decisions/starts.md": [
        "found the highest in {starts at random, weights of all rows} % of the cases with weights of all rows, and in "
        "{starts at random, weights by place} % with weights by place",
        "missed it in {starts missed, weights of all rows} % and {starts missed, weights by place} %, by "
        "{least below, weights of all rows} to {most below, weights of all rows} in log density and by "
        "{least below, weights by place} to {most below, weights by place}",
        "kernel found it in {starts wide, weights of all rows} % and {starts wide, weights by place} %",
    ],
    "docs/decisions/stations_and_months.md": [
        "the largest standard deviation of BMA's weights at OzNet ({resampled rows} rows) is {over rows} over resampled rows, "
        "{over months} over resampled months and {over stations} over resampled stations",
    ],
    "docs/decisions/sums.md": [
        "of 10,000 rows of 500 sites takes {seconds hbm_nuts_10k} s, of 1,000,000 rows {seconds hbm_nuts_1m} s",
    ],
    "docs/decisions/tapes.md": [
        "PyTensor compiles each for {least pytensor} to {most pytensor} s; a tape is made in {least tape} to {most tape} s",
    ],
    "docs/decisions/the_day.md": [
        "Atlanta {atlanta BMA of the day}, OzNet {oznet BMA of the day}",
        "the CRPS was {crps atlanta BMA of the day, too} in Atlanta",
        "and {crps oznet BMA of the day, too} at OzNet",
    ],
    "docs/evidence/day.md": [
        "takes the CRPS to {crps atlanta BMA of the day, too} in Atlanta",
        "and raises it to {crps oznet BMA of the day, too} at OzNet",
    ],
    "docs/evidence/ladder.md": [
        "independent errors covers {least covered ladders} to {most covered ladders} %",
        "at {least dependence} to {most dependence} % of the CRPS",
        "one of four columns, by {about OzNet, new sites: HBM or BMA} %",
        "Weights are worth {about OzNet, new sites: weights} % among members",
        "{about Narmada, new gauges: weights} to {about Narmada, new times: weights} % among lead times",
        "at once is better by {least correction} to {most correction} %",
        "in {folds of the Narmada} of 10 folds",
    ],
    "docs/evidence/truths.md": [
        "the change that is right in {ladder right} of {ladder pairs} worlds",
        "in {ladder twin} where the rungs have each other's names",
        "in all {sbc model} kinds of fits, and in {sbc twin} of those",
    ],
    "docs/evidence/narmada.md": [
        "({least covered narmada} to {most covered narmada} % instead of 90)",
        "(HBM {narmada raw HBM factor} to {narmada sqrt HBM factor})",
        "bends ({narmada raw BMA fitted at once} raw, where two steps give {narmada raw BMA with gauge effects} to "
        "{narmada raw BMA})",
    ],
    "docs/evidence/speed.md": [
        "which took {seconds bma_naive_10k} s for 10,000 rows here and {seconds bma_naive_100k} s for 100,000",
        "({million cells_copy} with two results, {million cells_copy_5} with five)",
        "gives three quantiles of {million cells_bma_few} million cells a second",
        "fitted to 11,099 rows, {million members_grid} million cells a second",
        "the random forest alone {million members_grid_rf} million",
        "take two cores {hours of members} hours of members and {minutes of combining} minutes of combining",
    ],
    "docs/howto/dask.md": [
        "BMA makes {million cells_bma} million cells a second of mean and standard deviation and "
        "{million cells_bma_quantiles} million with three quantiles, HBM {million cells_hbm} and {million cells_hbm_quantiles}; "
        "four default members make "
        "{million members_grid} million",
        "a million rows in {seconds bma_auto_1m} s (posterior) or {seconds em_1m} s (EM)",
    ],
    "docs/howto/streamflow.md": [
        "BMA from {narmada raw BMA with gauge effects} to {narmada sqrt BMA with gauge effects} 10^3 m3/s, and that of HBM from "
        "{narmada raw HBM factor} to {narmada sqrt HBM factor}",
    ],
    "docs/ideas.md": [
        "({about atlanta BMA of the day} % of the CRPS for fine",
        "it predicts {least correction} to {most correction} % better",
    ],
    "docs/theory/bma.md": [
        "converges, is {least correction} to {most correction} % of the CRPS",
        "elevation change it by {oznet options weights by dem}, coordinates by {oznet options weights by coordinates}, rain by "
        "{oznet options weights by rain}: many",
        "Atlanta elevation changes it by {atlanta options weights by elevation}, forest by "
        "{atlanta options weights by forestcover}, coordinates by {atlanta options weights by coordinates}.",
        "changes BMA of the day around Atlanta by {atlanta own sd}.",
    ],
    "docs/theory/inference.md": [
        "PyTensor compiles each for {least pytensor} to {most pytensor} seconds. Here the graph of the plain PyMC model is "
        "traced once into a *tape* of elementary operations with derivatives, in {least tape} to {most tape} seconds",
    ],
    "docs/theory/space.md": [
        "the CRPS of BMA is {folds random crps} m3 m-3 ({folds random crps_low} to {folds random crps_high}) with random folds "
        "and {folds knndm crps} ({folds knndm crps_low} to {folds knndm crps_high}) with matched ones; 90 % intervals hold "
        "{folds random coverage90} and {folds knndm coverage90} %",
    ],
    "docs/theory/hbm.md": [
        "not converged in {folds of the Narmada} of 10 folds",
        "takes its CRPS from {narmada raw HBM factor} to {narmada sqrt HBM factor}",
    ],
}


def pattern(sentence: str) -> re.Pattern[str]:
    """Return what finds a sentence, whatever its figures are and wherever its lines break."""
    parts = [re.sub(r"\s+", " ", part) for part in FIELD.split(sentence)]
    words = [re.escape(part).replace("\\ ", r"\s+") for part in parts[::2]]
    return re.compile(FIGURE.join(words))


def written_anew(page: str) -> str:
    """Return a page with the tables and figures of the results."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = BLOCK.sub(lambda block: f"<!-- numbers: {block[1]} -->\n{TABLES[block[1]]()}\n<!-- end -->", text)
    values = facts()
    for sentence in SENTENCES.get(page, []):
        found = list(pattern(sentence).finditer(text))
        if len(found) != 1:
            raise ValueError(
                f"{page} has {len(found)} times: {sentence!r}; wanted it once. Change SENTENCES with the page"
            )
        names = FIELD.findall(sentence)
        for k in range(len(names), 0, -1):  # from the end: places before stay
            begin, end = found[0].span(k)
            if re.sub(r"\s+", " ", found[0][k]) != values[names[k - 1]]:
                text = text[:begin] + values[names[k - 1]] + text[end:]
    return text


def pages() -> list[str]:
    """Return README and the pages of the site."""
    site = [path for path in sorted((ROOT / "docs").rglob("*.md")) if "_names" not in path.parts]
    return ["README.md", *(path.relative_to(ROOT).as_posix() for path in site)]


if __name__ == "__main__":
    for page in pages():
        text = written_anew(page)
        if text != (ROOT / page).read_text(encoding="utf-8"):
            (ROOT / page).write_text(text, encoding="utf-8")
            print(page)
