"""Commands that answer questions: compare, dependence and sensitivity."""

import dataclasses

import pandas as pd
import pytest
import xarray as xr
from commands import COLUMNS, refused, region_files, run

# The standard start's optimum is what --method em gives, whatever else there is.
pytestmark = pytest.mark.filterwarnings("ignore:EM found")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A region as train.csv and new.csv."""
    place = tmp_path_factory.mktemp("answers")
    region_files(place)
    return place


def test_compare_prints_scores_and_differences_and_writes_them(folder, tmp_path):
    said = run("compare", folder / "train.csv", *COLUMNS, "--models", "bma,equal", "--method", "em", "--folds", "3",
               "--estimand", "site", "--out", tmp_path / "d.csv", "--rows", tmp_path / "r.nc", "--figure",
               tmp_path / "d.png")  # fmt: skip
    assert "Scores on rows held out (site)" in said.stdout
    assert "Against BMA" in said.stdout
    table = pd.read_csv(tmp_path / "d.csv")
    rows = xr.load_dataset(tmp_path / "r.nc", engine="h5netcdf")
    bma, equal = rows["crps"].mean("obs").values
    assert table["difference"].tolist() == pytest.approx([100 * (equal / bma - 1)])
    assert (tmp_path / "d.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("options", "text"), [
    (["--models", "bma,hmb"], "no model 'hmb' in --models; did you mean 'hbm'?"),
    (["--estimand", "time", "--time", "never"], "no column 'never'"),
    (["--folds", "40"], "40 folds of 7 sites with observations; wanted at most as many folds"),
    (["--workers", "0"], "workers is the number of processes"),
    (["--weight-covariates", "lat"], "--weight-covariates is about a rung of the ladder; add --ladder"),
    (["--ladder", "--weight-covariates", "latt"], "no column 'latt'"),
    (["--ladder", "--weight-covariates", "lat,lat"], "names something twice"),
    (["--out", "d.docx"], "--out d.docx has the suffix '.docx'"),
])  # fmt: skip
def test_compare_refuses_in_words(folder, options, text):
    said = run("compare", folder / "train.csv", *COLUMNS, "--method", "em", *options, code=1)
    assert text in said.stderr
    assert "Traceback" not in said.stderr


def test_a_rung_of_the_ladder_follows_the_columns_that_an_option_names(folder, monkeypatch):
    taken = {}

    def compare(rungs, ensemble, **_):
        taken.update(rung=rungs["BMA with weights by covariates"], plain=rungs["BMA"], kept=ensemble.covariates)
        raise ValueError("that is enough")

    monkeypatch.setattr("bayesens.comparison.compare.compare", compare)
    asked = ["--ladder", "--weight-covariates", "lon,truth,season", "--lon", "lon"]
    assert "that is enough" in refused("compare", folder / "train.csv", *COLUMNS, *asked)
    followed = {"weights": "covariates", "weight_covariates": ("lon", "truth", "season")}
    assert taken["rung"] == dataclasses.replace(taken["plain"], **followed)
    assert taken["kept"] == ("truth",)


def test_dependence_says_it_in_words_and_numbers(folder, tmp_path):
    said = run(
        "dependence", folder / "train.csv", *COLUMNS, "--out", tmp_path / "d.csv", "--figure", tmp_path / "d.svg"
    )
    assert "Correlated members do not break BMA" in said.stdout
    assert set(pd.read_csv(tmp_path / "d.csv")["measure"]) >= {"error_correlation", "k_eff", "vif"}
    assert (tmp_path / "d.svg").exists()
    alone = run("dependence", folder / "train.csv", "--members", "rf", "--observation", "sm", code=1)
    assert "the table has one member, 'rf'; dependence takes two or more" in alone.stderr


@pytest.mark.slow
def test_sensitivity_answers_what_was_asked(folder, tmp_path):
    said = run("sensitivity", folder / "train.csv", *COLUMNS, "--option", "sigma=shared", "--method", "em", "--folds", "2",
               "--what", "members,stations", "--shares", "0.2,0.4", "--out", tmp_path / "s")  # fmt: skip
    assert "Left out, one member at a time (site)" in said.stdout
    assert "A small loss does not show that a member is independent" in said.stdout
    assert pd.read_csv(tmp_path / "s" / "members_left_out.csv")["left_out"].tolist() == ["rf", "mlr", "svr", "xgb"]
    assert (tmp_path / "s" / "fewer_stations.csv").exists()
    odd = run("sensitivity", folder / "train.csv", *COLUMNS, "--what", "membres", code=1)
    assert "no part 'membres' in --what; did you mean 'members'?" in odd.stderr
    again = run("sensitivity", folder / "train.csv", *COLUMNS, "--out", tmp_path / "s", code=1)
    assert "is there already and not an empty folder; name a new one" in again.stderr


def test_sensitivity_to_priors(folder):
    said = run(
        "sensitivity", folder / "train.csv", *COLUMNS, "--what", "priors", "--model", "linear_pool", "--draws", "200"
    )
    assert "Quantities that are sensitive to priors" in said.stdout
    assert "What the priors imply before the data" in said.stdout
