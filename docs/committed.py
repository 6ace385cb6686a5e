"""What committed results say: the tables of README and site, and the figures within their sentences.

`measured.py` writes them to the pages. A new row of a table is a new entry of the list above its function.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@cache
def result(path: str) -> Any:
    """Return a committed result, by its path below `tests/`."""
    return json.loads((ROOT / "tests" / path).read_text(encoding="utf-8"))


def find(rows: list[dict[str, Any]], **wanted: str) -> dict[str, Any]:
    """Return the one row that has these values."""
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


def short(value: float, digits: int, sign: str = "") -> str:
    """Return a number without the zero before its point."""
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.{digits}f}")


def two(value: float) -> str:
    """Return a number of seconds in two digits."""
    return short(value, 2 if value < 0.995 else 1 if value < 9.95 else 0)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table of Markdown, in whose cells no line ends within an interval."""
    rows = [
        [re.sub(r"\([+-]?[\d.]+ to [+-]?[\d.]+\)", lambda one: one[0].replace(" ", "\u00a0"), cell) for cell in row]
        for row in rows
    ]
    lines = ["|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|" for cells in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


# The day: what is shown, by the name of the model in the result.
DAY_COLUMNS = {"atlanta": "fine particles, Atlanta", "oznet": "soil moisture, OzNet"}
DAY_ROWS = [
    ("HBM", "HBM without the day"),
    ("EMOS", "EMOS without the day"),
    ("neighbours alone", "neighbours alone"),
    ("BMA of the day", "BMA of the day"),
    ("the same, widths by its sd", "BMA of the day with widths"),
    ("HBM of the day", "HBM of the day"),
    ("EMOS of the day", "EMOS of the day"),
    ("regression kriging of the best member", "regression kriging of the best member"),
]
# Models whose members learn from neighbours: of a run of their own, against the BMA that is told nothing.
LEARNING_ROWS = [
    ("forest alone, learning from the day", "forest alone, learning from the day"),
    ("BMA, members learn from the day", "BMA of members that learn from the day"),
    ("BMA of the day, too", "the same, with neighbours as a member and widths"),
]


def difference_of_day(data: str, model: str, metric: str = "crps") -> dict[str, Any]:
    """Return the row of a model's difference from BMA."""
    return find(result("reference/the_day.json")[data]["differences"], model=model, metric=metric)


def change(data: str, model: str, metric: str = "crps") -> str:
    """Return the difference of a model from BMA with its interval."""
    return change_of(difference_of_day(data, model, metric))


def learning_change(data: str, model: str) -> str:
    """Return the difference from untold BMA of a model whose members learn from neighbours."""
    rows = result("reference/the_day.json")[f"{data}, members learn from it"]["against untold BMA"]
    return change_of(find(rows, model=model, metric="crps"))


def change_of(found: dict[str, Any]) -> str:
    """Return a difference with its interval."""
    value, low, high = (short(found[name], 1, "+") for name in ("difference", "low", "high"))
    return f"{value} % ({low} to {high})"


def covers(data: str, model: str) -> str:
    """Return the coverage of 90 % intervals with its interval."""
    found = find(result("reference/the_day.json")[data]["scores"], model=model)
    value, low, high = (f"{100 * found[f'coverage90{end}']:.1f}" for end in ("", "_low", "_high"))
    return f"{value} % ({low} to {high})"


def crps_of_day(data: str, model: str) -> str:
    """Return the mean CRPS of a model."""
    value = find(result("reference/the_day.json")[data]["scores"], model=model)["crps"]
    return short(value, 4 if value < 1 else 3)


def the_day() -> str:
    """Return what the day is worth."""
    day = result("reference/the_day.json")
    head = [
        f"{title} ({first['stations']} stations, {first['n']:,} rows)"
        for name, title in DAY_COLUMNS.items()
        for first in day[name]["scores"][:1]
    ]
    wide = "the same, widths by its sd"
    return table(
        ["", *head],
        [
            ["CRPS of BMA without the day", *(crps_of_day(name, "BMA") for name in DAY_COLUMNS)],
            *([shown, *(change(name, model) for name in DAY_COLUMNS)] for model, shown in DAY_ROWS),
            *([shown, *(learning_change(name, model) for name in DAY_COLUMNS)] for model, shown in LEARNING_ROWS),
            ["90 % intervals of BMA of the day with widths cover", *(covers(name, wide) for name in DAY_COLUMNS)],
        ],
    )


def the_day_coverage() -> str:
    """Return coverage by distance to the nearest training station and by season, one table for both data sets."""
    day, rows = result("reference/the_day.json"), []
    for name, title in DAY_COLUMNS.items():
        for found in day[name]["coverage of the fourth line"]:
            shares = [f"{100 * found[f'coverage{end}']:.1f}" for end in ("", "_low", "_high")]
            label = found["group"].split(" ", 1)[1].strip("()") + " km" if found["by"] == "distance" else found["group"]
            label = "all rows" if found["by"] == "" else label
            cells = [f"{found['n']:,}", str(found["stations"]), f"{shares[0]} ({shares[1]} to {shares[2]})"]
            rows.append([title, label, *cells])
    return table(["", "", "rows", "stations", "inside 90 % [%]"], rows)


def in_percent(found: dict[str, Any]) -> str:
    """Return a change with its interval, bold where the interval leaves out zero."""
    words = "{difference:+.1f} ({low:+.1f} to {high:+.1f})".format(**found)
    return f"**{words}**" if found["clear"] else words


LADDERS = {
    "OzNet, new sites": ("OzNet", "site"),
    "OzNet, new times": ("OzNet", "time"),
    "Narmada, new gauges": ("Narmada", "site"),
    "Narmada, new times": ("Narmada", "time"),
}


def ladder() -> str:
    """Return the effects of all rungs."""
    ladders = result("reference/ladders.json")
    effects = [{found["effect"]: found for found in ladders[data][new]["effects"]} for data, new in LADDERS.values()]
    rows = [
        [
            f"{name}: {first['before']} to {first['after']}",
            *(in_percent(one[name]) if name in one else "" for one in effects),
        ]
        for name, first in effects[0].items()
    ]
    return table(["change of the CRPS [%]", *LADDERS], rows)


def ladder_widths() -> str:
    """Return HBM beside BMA with widths."""
    ladders = result("reference/ladders.json")
    found = [find(ladders[data][new]["HBM beside BMA with widths"], metric="crps") for data, new in LADDERS.values()]
    return table(["change of the CRPS [%]", *LADDERS], [["BMA with widths to HBM", *map(in_percent, found)]])


NARMADA = {
    "Climatology": "Climatology",
    "Climatology by gauge": "Climatology by gauge",
    "SingleMember": "SingleMember (one day ahead)",
    "EqualWeights": "EqualWeights",
    "BMA": "BMA without effects",
    "BMA with gauge effects": "BMA",
    "BMA fitted at once": "BMA fitted at once, without effects",
    "HBM independent": "HBM, independent errors",
    "HBM factor": "HBM, common factor",
}
NARMADA_COLUMNS = {"crps": ("CRPS", 3), "log_score": ("log score", 3), "rmse": ("RMSE", 3), "coverage90": ("coverage", 3), "width90": ("width", 2)}  # fmt: skip  # noqa: E501


def narmada(transform: str) -> str:
    """Return the scores of every model."""
    found = result("reference/narmada.json")[transform]
    head = ["model", *(title for title, _ in NARMADA_COLUMNS.values())]
    rows = [
        [shown, *(short(find(found, model=name)[key], digits) for key, (_, digits) in NARMADA_COLUMNS.items())]
        for name, shown in NARMADA.items()
    ]
    return table(head, rows)


def seconds(*names: str) -> str:
    """Return the seconds of cases of the benchmarks."""
    cases = result("benchmarks/results.json")["cases"]
    return ", ".join(two(cases[name]["seconds"]) for name in names)


def faster(name: str, other: str) -> str:
    """Return how many times faster one case is than another."""
    cases = result("benchmarks/results.json")["cases"]
    ratio = cases[other]["seconds"] / cases[name]["seconds"]
    return f"{ratio:.0f} times faster" if ratio >= 10 else f"{ratio:.1f} times faster"


def million(name: str) -> str:
    """Return millions of rows or cells a second of a case of the benchmarks."""
    case = result("benchmarks/grids.json")["cases"][name]
    rate = case["rows"] / case["seconds"] / 1e6
    return f"{rate:,.0f}" if rate >= 9.95 else short(rate, 1 if rate >= 0.995 else 2)


CELLS = [
    ("BMA", "cells_bma"),
    ("BMA, one width", "cells_one"),
    ("BMA by EM", "cells_em"),
    ("HBM", "cells_hbm"),
    ("EMOS", "cells_emos"),
]


def cells() -> str:
    """Return millions of cells a second, and their shares of the speed of a copy."""
    cases = result("benchmarks/grids.json")["cases"]

    def rate(name: str) -> float:
        return float(cases[name]["rows"] / cases[name]["seconds"])

    def beside(name: str, copy: str) -> str:
        return f"{million(name)} ({short(rate(name) / rate(copy), 2)})"

    rows = [
        [shown, beside(name, "cells_copy"), beside(f"{name}_parts", "cells_copy_5"), million(f"{name}_quantiles")]
        for shown, name in CELLS
    ]
    return table(["model", "mean and sd", "and its parts", "mean, sd and three quantiles"], rows)


SPEED = [
    ("BMA posterior, 10,000 rows, `auto`", ["bma_auto_10k"], "bma_naive_10k"),
    ("BMA posterior by NUTS, 4 x 1,000 draws, 10,000 rows", ["bma_nuts_10k"], "bma_naive_10k"),
    ("BMA posterior, 100,000 rows, `auto`", ["bma_auto_100k"], "bma_naive_100k"),
    ("BMA posterior, 1,000,000 rows, `auto`", ["bma_auto_1m"], ""),
    ("BMA by EM, 1,000,000 rows", ["em_1m"], ""),
    ("HBM posterior by NUTS, 4 x 1,000 draws, 500 sites, 10,000 rows", ["hbm_nuts_10k"], ""),
    ("the same, 1,000,000 rows", ["hbm_nuts_1m"], ""),
    ("first fit ever, 1,000 rows, whole process: BMA, HBM", ["first_BMA", "first_HBM"], ""),
    ("the same again in a new process: BMA, HBM", ["again_BMA", "again_HBM"], ""),
]
SPEED_IN_SHORT = [
    ("BMA posterior, 10,000 rows", ["bma_auto_10k"], "bma_naive_10k"),
    ("BMA posterior, 1,000,000 rows", ["bma_auto_1m"], ""),
    ("BMA by EM, 1,000,000 rows", ["em_1m"], ""),
    ("HBM posterior by NUTS, 500 sites, 1,000,000 rows", ["hbm_nuts_1m"], ""),
    ("first BMA fit in a new process, 1,000 rows", ["again_BMA"], ""),
]


def speed(lines: list[tuple[str, list[str], str]]) -> str:
    """Return seconds of fits."""
    rows = [[work, seconds(*names), faster(names[0], other) if other else ""] for work, names, other in lines]
    return table(["work", "seconds", "against by hand"], rows)


def between(values: Iterable[float], digits: int = 1) -> str:
    """Return the smallest and the largest of some shares, in percent."""
    few = sorted({f"{100 * value:.{digits}f}" for value in values}, key=float)
    return few[0] if len(few) == 1 else f"{few[0]}\u00a0to\u00a0{few[-1]}"


def truths() -> str:
    """Return how often intervals hold known truths, and those of a program that is wrong on purpose."""
    recovery, dependence, day = (
        result(f"calibration/{name}.json") for name in ("recovery", "dependence", "neighbours")
    )
    intervals, predictive = (result(f"calibration/{name}.json") for name in ("interval_coverage", "predictive"))
    both = ("model", "twin")
    rows = [
        ["parameters of HBM, pooled", str(recovery["simulations"]), *(between([recovery[w]["pooled"]]) for w in both)],
        [
            "covariance of the day's neighbours",
            str(day["simulations"]),
            *(between(line["covered"] for line in day[w].values()) for w in both),
        ],
        [
            "error correlations of 0, .5 and .9",
            str(dependence["simulations"]),
            *(between(dependence[w]["error_correlation"].values()) for w in both),
        ],
        [
            "differences of the CRPS: new times, new sites, both; few and many stations",
            str(intervals["simulations"]),
            *(between(intervals[w].values()) for w in both),
        ],
    ]
    for place in ("known sites", "new sites", "new groups"):
        cases = predictive["cases"]
        rows.append(
            [
                f"new rows, predicted by BMA: {place}",
                between((case["simulations"] / 100 for case in cases), 0),
                *(between(case[place][key][0] for case in cases) for key in ("coverage", "twin")),
            ]
        )
    return table(["90 % intervals of", "simulations", "hold [%]", "and of a program that is wrong [%]"], rows)


LIBRARIES = ("scikit-learn", "ONNX Runtime", "treelite")


def loops() -> str:
    """Return what one core does by our loops and by libraries."""
    found = result("reference/decisions.json")["loops"]
    loo = found["loo"]
    rows = [
        [
            "leave-one-out of {rows:,} rows under 1,000 draws [s]".format(**loo),
            two(loo["bayesens"]),
            f"ArviZ {two(loo['arviz'])}",
        ]
    ]
    for name, title in {
        "forest": "a forest of 200 trees",
        "vectors": f"{found['support vectors']:,} support vectors",
    }.items():
        speeds = {way: f"{speed / 1000:,.0f}" for way, speed in found[name].items()}
        others = ", ".join(f"{way} {speeds[way]}" for way in LIBRARIES if way in speeds)
        rows.append([f"{title} [1,000 cells a second]", speeds["bayesens"], others])
    return table(["", "ours", "libraries"], rows)


def of_decisions() -> dict[str, str]:
    """Return the figures of the pages of decisions."""
    made = result("reference/decisions.json")
    found = {
        f"half way {law}": f"{100 * made['half_way'][law]:.0f}" for law in ("one member", "half way", "right variance")
    }
    found["half way simulations"] = str(made["half_way"]["simulations"])
    found["resampled rows"] = f"{made['resampled']['rows']:,}"
    for name in ("rows", "months", "stations"):
        found[f"over {name}"] = two(max(made["resampled"][f"over {name}"]))
    for name in ("tape", "pytensor"):
        seconds = sorted(one[name] for kind, one in made["tapes"].items() if kind != "versions")
        found |= {f"least {name}": two(seconds[0]), f"most {name}": two(seconds[-1])}
    for kind, one in made["starts"].items():
        if kind != "versions":
            shares = {f"starts {name}, {kind}": f"{100 * one[name]:.0f}" for name in ("at random", "wide", "missed")}
            found |= shares | {f"{name}, {kind}": f"{one[name]:.0f}" for name in ("least below", "most below")}
    return found


TABLES: dict[str, Callable[[], str]] = {
    "loops": loops,
    "the_day": the_day,
    "the_day_coverage": the_day_coverage,
    "ladder": ladder,
    "ladder_widths": ladder_widths,
    "narmada_raw": lambda: narmada("identity"),
    "narmada_sqrt": lambda: narmada("sqrt"),
    "truths": truths,
    "cells": cells,
    "speed": lambda: speed(SPEED),
    "speed_in_short": lambda: speed(SPEED_IN_SHORT),
}


def facts() -> dict[str, str]:
    """Return every figure that a sentence may name."""
    found = {f"seconds {name}": seconds(name) for name in result("benchmarks/results.json")["cases"]}
    cases = result("benchmarks/grids.json")["cases"]
    found |= {f"million {name}": million(name) for name in cases}
    found |= of_decisions()
    for kind in ("random", "knndm"):
        for name, value in result("reference/folds_by_place.json")[kind].items():
            found[f"folds {kind} {name}"] = short(value, 4) if "crps" in name else f"{100 * value:.0f}"
    continent = {
        name: 2e10 / cases[name]["rows"] * cases[name]["seconds"] for name in ("members_grid", "cells_bma_quantiles")
    }
    found |= {"hours of members": f"{continent['members_grid'] / 3600:.0f}"}
    found |= {"minutes of combining": f"{continent['cells_bma_quantiles'] / 60:.0f}"}
    for data in DAY_COLUMNS:
        for model in [row["model"] for row in result("reference/the_day.json")[data]["differences"]]:
            found[f"{data} {model}"] = change(data, model)
            found[f"about {data} {model}"] = f"{difference_of_day(data, model)['difference']:+.0f}"
        for end in ("", ", members learn from it"):
            for row in result("reference/the_day.json")[data + end]["scores"]:
                value = row["crps"]
                found[f"crps {data} {row['model']}"] = short(value, 4 if value < 1 else 2)
    for data, options in result("reference/bma_options.json").items():
        if data in DAY_COLUMNS:
            found |= {
                f"crps {data} options {row['model']}": short(row["crps"], 4 if row["crps"] < 1 else 3)
                for row in options["scores"]
            }
            found |= {f"{data} options {row['model']}": change_of(row) for row in options["against BMA"]}
    told = find(result("reference/bma_options.json")["atlanta"]["against BMA of the day"], model="own sd")
    found["atlanta own sd"] = change_of(told)
    for title, (data, new) in LADDERS.items():
        for row in result("reference/ladders.json")[data][new]["effects"]:
            found[f"{title}: {row['effect']}"] = "{difference:+.1f} % ({low:+.1f} to {high:+.1f})".format(**row)
            found[f"about {title}: {row['effect']}"] = f"{abs(row['difference']):.0f}"
    ladders = [result("reference/ladders.json")[data][new] for data, new in LADDERS.values()]
    for effect in ("dependence", "correction"):
        sizes = sorted(abs(find(one["effects"], effect=effect)["difference"]) for one in ladders)
        found |= {f"least {effect}": f"{sizes[0]:.0f}", f"most {effect}": f"{sizes[-1]:.0f}"}
    for data, shares in {
        "ladders": [find(one["scores"], model="HBM independent")["coverage90"] for one in ladders],
        "narmada": [
            find(result("reference/narmada.json")[rows], model="HBM independent")["coverage90"]
            for rows in ("sqrt", "identity")
        ],
    }.items():
        found |= {
            f"least covered {data}": f"{100 * min(shares):.0f}",
            f"most covered {data}": f"{100 * max(shares):.0f}",
        }
    folds = [
        re.search(r"HBM in (\d) of", find(one["effects"], effect="HBM or BMA")["not_converged"]) for one in ladders[2:]
    ]
    found["folds of the Narmada"] = str(sum(int(one[1]) for one in folds if one))
    attribution = result("calibration/attribution.json")
    found |= {f"ladder {which}": str(attribution[which]["all"]) for which in ("right", "twin")}
    found["ladder pairs"] = str(attribution["pairs"])
    for which in ("model", "twin"):
        found[f"sbc {which}"] = str(sum(one["passes"] for one in result("calibration/sbc.json")[which].values()))
    for scale, rows in (("raw", "identity"), ("sqrt", "sqrt")):
        for row in result("reference/narmada.json")[rows]:
            found[f"narmada {scale} {row['model']}"] = short(row["crps"], 3)
    return found


# Words around figures, by page. Blanks stand for any white space, a field for a figure as `facts` has it.
