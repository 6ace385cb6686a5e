"""Parts that a study may have, such as droughts, maps and the ladder: their tables are those of the library."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from small_study import TEXT, run, table

import bayesens as be
from bayesens import simulate
from bayesens.app.study.data import study_data
from bayesens.app.study.file import read_study
from bayesens.geo.representativeness import variance_components
from bayesens.geo.spatial import morans_i
from bayesens.members.fitted import FittedMembers

pytestmark = [pytest.mark.filterwarnings("ignore:EM found"), pytest.mark.slow]

PARTS = """
[study]
jobs = 1

[data]
table = "t.csv"
observation = "sm"
site = "station"
group = "network"
time = "date"
units = "m3 m-3"

[members]
train = ["mlr"]
covariates = ["heat", "rain"]
columns = ["rf"]
sums = {rain = [12]}
folds = 2

[models.BMA]
model = "bma"
method = "em"

[evaluation]
folds = 2
by = ["cell"]
replicates = 50

[importance]
repeats = 2

[drought]
by = "all"
percentile = 0.3
min_count = 5

[sensitivity]
members = ["member", "cluster"]
shapley = true
stations = [0.2, 0.4]
replicates = 2
validation = 0.25

[representativeness]
cell = "cell"
errors = [0.02]

[map]
grid = "grid.nc"
products = ["coarse"]
bands = ["low", "all"]
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study with every part: importance, droughts, representativeness and maps."""
    folder = tmp_path_factory.mktemp("parts")
    frame = simulate.region(8, 2, 30, random_seed=1).frame
    rng = np.random.default_rng(1)
    moisture = frame.pop("truth")
    frame = frame.assign(heat=rng.normal(size=len(frame)), rain=moisture + rng.normal(0, 0.02, len(frame)))
    frame["cell"] = frame["network"] + "-" + (frame["station"].str[-1].astype(int) % 2).astype(str)
    frame.to_csv(folder / "t.csv", index=False)
    y, x = np.arange(12.0), np.arange(10.0)
    field = 0.2 + 0.05 * np.sin(y / 3)[:, None] + 0.05 * np.cos(x / 3)[None] + rng.normal(0, 0.005, (12, 10))
    layers = {"heat": np.zeros((12, 10)) + rng.normal(size=(12, 10)), "rain": field, "rain_12d": 2 * field, "rf": field,
              "coarse": field.mean() + 0 * field + np.round(field, 1)}  # fmt: skip
    layers["rain"][0, 0] = np.nan
    grid = xr.Dataset({name: (("y", "x"), values) for name, values in layers.items()}, {"y": y, "x": x})
    grid.to_netcdf(folder / "grid.nc", engine="h5netcdf")
    return folder, run(folder, PARTS, drawn=True)


def read(folder, name):
    return pd.read_csv(folder / "out" / "tables" / f"{name}.csv")


def test_every_part_writes_its_tables_and_stands_in_the_report(whole):
    folder, done = whole
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    for title in (
        "Droughts",
        "What drives the members",
        "What a station stands for",
        "Maps",
        "What the results rest on",
    ):
        assert re.search(rf"<h2[^>]*>.*{title}", page), title
    assert {"importance", "inflation", "covariate_correlations", "droughts", "variance_components", "upscaling", "maps",
            "stations_needed", "rmse_to_cell"} <= {Path(name).stem for name in done.files}  # fmt: skip


def test_members_left_out_and_stations_removed_are_what_the_library_gives(whole):
    folder, done = whole
    study = read_study(folder / "study.toml")
    source = study_data(study).source
    options = {"estimand": "site", "folds": 2, "inner_folds": 2, "method": "em", "random_seed": 1, "progressbar": False}
    wanted = be.sensitivity.members_left_out(be.BMA(), source, replicates=50, **options)
    found = read(folder, "left_out_bma")
    assert found["left_out"].tolist() == wanted["left_out"].tolist() == ["mlr", "rf"]
    np.testing.assert_allclose(found["difference"], wanted["difference"])
    np.testing.assert_allclose(found["low"], wanted["low"])
    values = read(folder, "shapley_bma")
    gained = values["empty_score"].iloc[0] - values["full_score"].iloc[0]
    assert values["value"].sum() == pytest.approx(gained)
    curve = read(folder, "fewer_stations")
    assert curve["removed"].tolist() == [0.0, 0.2, 0.4]
    assert curve["removals"].tolist()[1:] == [2, 2]
    assert {"left_out_bma", "shapley_bma", "learning_curve"} <= {Path(name).stem for name in done.files}


def test_the_ladder_and_priors_of_a_study(tmp_path):
    """A study of precomputed members with posteriors: the ladder by two estimands, power-scaling, what priors imply."""
    table(tmp_path)
    text = TEXT.replace('method = "em"\n\n[models."Equal', '\n[models."Equal')
    text = text.replace("folds = 3", "folds = 2") + "draws = 100\n[ladder]\n[sensitivity]\n"
    done = run(tmp_path, text, drawn=True)
    steps = read(tmp_path, "ladder")
    assert set(steps["estimand"]) == {"site", "time"}
    rungs = read(tmp_path, "ladder_scores").query("estimand == 'site'").set_index("model")["crps"]
    line = steps.query("estimand == 'site' and effect == 'HBM or BMA'").iloc[0]
    assert line["difference"] == pytest.approx(100 * (rungs["HBM"] / rungs["BMA"] - 1))
    assert set(read(tmp_path, "ladder_coverage_by_predicted")["model"]) == set(rungs.index)
    assert {"power_scaling_bma", "prior_bma", "left_out_bma", "weights_bma"} <= {Path(name).stem for name in done.files}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "With the same group and site effects, HBM against BMA" in page
    assert "From equal weights to HBM" in page


def test_maps_are_those_of_the_final_members_and_fits(whole):
    folder, _ = whole
    table = read(folder, "maps").set_index(["statistic", "band"])
    assert {"mlr", "rf", "BMA", "coarse"} == set(table)
    made = xr.load_dataset(folder / "out" / "maps" / "bma.nc", engine="h5netcdf")
    assert made["mean"].dims == ("y", "x")
    assert made["mean"].shape == (12, 10)
    area = xr.load_dataset(folder / "out" / "maps" / "applicability.nc", engine="h5netcdf")
    assert area["dissimilarity"].dims == ("y", "x")
    assert np.flatnonzero(area["dissimilarity"].isnull()).tolist() == [0]  # the cell without rain
    expected = xr.load_dataset(folder / "out" / "maps" / "expected_error.nc", engine="h5netcdf")
    silent = area["dissimilarity"].isnull() | (area["dissimilarity"] > expected.attrs["highest_dissimilarity"])
    assert (expected["expected_error"].isnull() == silent).all()
    assert expected["share_beyond"].item() == pytest.approx((silent.sum() - 1).item() / 119)
    study = read_study(folder / "study.toml")
    data = study_data(study)
    grid = xr.load_dataset(folder / "grid.nc", engine="h5netcdf")
    cells = grid.to_dataframe().reset_index()
    predicted = data.source.fit(random_seed=1, progressbar=False).predict(cells)
    kept = FittedMembers.load(folder / "out" / "members").predict(cells)
    pd.testing.assert_frame_equal(kept, predicted, check_exact=True)
    rows = be.Ensemble.from_frame(predicted, members=["mlr", "rf"], units="m3 m-3")
    tree = be.read_fit(folder / "out" / "fits" / "bma.nc")
    wanted = be.predict(tree, rows, quantiles=(0.05,))
    np.testing.assert_allclose(made["mean"].values.ravel(), wanted["mean"].values)
    np.testing.assert_allclose(
        made["quantile_value"].sel(quantile=0.05).values.ravel(), wanted["quantile_value"].values[:, 0]
    )
    # Maps are judged on the cells that all of them have: one lacks the member rf.
    found = morans_i(made["mean"].where(grid["rf"].notnull()), bands=["all"])["i"].item()
    assert table.loc[("Moran's I", "0-100 %"), "BMA"] == pytest.approx(found)


def test_droughts_are_scored_with_what_was_held_out(whole):
    folder, _ = whole
    predicted = pd.read_parquet(folder / "out" / "predictions" / "bma-site.parquet").dropna(subset=["sm"])
    cut = predicted.groupby("station")["sm"].quantile(0.3).reindex(predicted["station"]).to_numpy()
    event = (predicted["sm"] < cut).astype(float)
    table = read(folder, "droughts").set_index("model")
    assert table.loc["BMA", "rate"] == pytest.approx(event.mean())
    assert table.loc["BMA", "brier"] == pytest.approx(np.mean((predicted["probability_below"] - event) ** 2))
    events = read(folder, "drought_events")
    assert events["duration"].sum() == pytest.approx(6 * event.sum(), rel=0.2)
    assert events["probability, BMA"].between(0, 1).all()


def test_what_a_station_stands_for_is_that_of_the_library(whole):
    folder, _ = whole
    frame = pd.read_csv(folder / "t.csv", parse_dates=["date"])
    found = variance_components(frame, value="sm", station="station", time="date", cell="cell")
    np.testing.assert_allclose(read(folder, "variance_components")["variance"], found.table["variance"])
    np.testing.assert_allclose(read(folder, "stations_needed")["stations"], found.stations_needed([0.02])["stations"])


def test_what_a_grid_or_a_part_lacks_is_named(whole, tmp_path):
    folder, _ = whole
    for name in ("t.csv", "grid.nc"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(KeyError, match=r"no variable 'carse' in the grid grid.nc.*did you mean 'coarse'"):
        run(tmp_path, PARTS.replace('["coarse"]', '["carse"]').replace("[importance]\nrepeats = 2\n", ""))
    assert not (tmp_path / "out").exists()  # before anything was computed
    with pytest.raises(KeyError, match=r"no variable 'lat' in the grid grid.nc"):
        run(tmp_path, PARTS.replace('method = "em"', 'method = "em"\nscale = ["mean", "lat"]').replace(
            "[data]\n", '[data]\nlat = "lat"\nlon = "lon"\n', 1))  # fmt: skip
    with pytest.raises(ValueError, match=r"representativeness\.cell names 'cel'; did you mean 'cell'"):
        run(tmp_path, PARTS.replace('cell = "cell"', 'cell = "cel"'))
