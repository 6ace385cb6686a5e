"""A small study by EM: its file, its table, and its run."""

from contextlib import nullcontext

from bayesens import simulate
from bayesens.app.study.run import run_study
from studies import undrawn

TEXT = """
[study]
title = "A small study"
text = "Six stations <b>& more</b>."

[data]
table = "t.csv"
observation = "sm"
site = "station"
group = "network"
time = "date"
lon = "lon"
lat = "lat"
units = "m3 m-3"

[members]
columns = ["rf", "xgb"]

[products]
"Coarse input" = "mlr"

[models.BMA]
model = "bma"
sigma = "shared"
method = "em"

[models."Equal weights"]
model = "equal"
method = "em"

[evaluation]
estimands = ["site", "time"]
folds = 3
by = ["group", "season"]
replicates = 100
block = 10
"""


def table(folder, **change):
    frame = simulate.region(9, 3, 16, random_seed=1).frame.drop(columns="truth").assign(**change)
    frame.to_csv(folder / "t.csv", index=False)
    return frame


def run(folder, text=TEXT, out="out", drawn=False):
    (folder / "study.toml").write_text(text, encoding="utf-8")
    with nullcontext() if drawn else undrawn():
        return run_study(folder / "study.toml", folder / out, say=lambda _: None, progressbar=False)
