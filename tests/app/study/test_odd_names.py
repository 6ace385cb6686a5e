"""Members that are called like a label of the report's tables."""

import pytest

import bayesens as be
from bayesens.app.study.run import run_study
from studies import undrawn

STUDY = """
[data]
table = "table.csv"
observation = "sm"
site = "station"
time = "date"

[members]
columns = ["model", "member", "parameter", "group"]

[models.BMA]
model = "bma"

[evaluation]
estimands = ["site"]
folds = 3
method = "em"
replicates = 20
"""


@pytest.mark.filterwarnings("ignore:EM found")
def test_members_may_be_called_like_labels_of_the_report(tmp_path):
    names = {"rf": "model", "mlr": "member", "svr": "parameter", "xgb": "group"}
    frame = be.simulate.region(n_sites=9, n_times=20, random_seed=11).frame.drop(columns="truth").rename(columns=names)
    frame.to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "study.toml").write_text(STUDY, encoding="utf-8")
    with undrawn():
        run_study(tmp_path / "study.toml", tmp_path / "out", say=lambda _: None, progressbar=False)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "member model" in page
    assert "member member" in page
