"""Folds by place in study files and commands: the numbers of the library, and refusals in their own words."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import bayesens as be
from bayesens.app.cli.main import app
from bayesens.app.study.data import study_data
from bayesens.app.study.file import study_from_text
from bayesens.app.study.maps.grid import map_points_of
from bayesens.app.study.run import run_study
from bayesens.members.estimators import default_estimators
from studies import undrawn

TEXT = """
[data]
table = "t.csv"
observation = "sm"
site = "site"
time = "time"

[members]
train = ["mlr"]
covariates = ["rf", "rain"]
columns = ["other"]
folds = "knndm 3"

[models.BMA]
model = "bma"
method = "em"

[models."Equal weights"]
model = "equal"
method = "em"

[evaluation]
estimands = ["site"]
folds = "knndm 4"
buffer = 0.5
places = ["x", "y"]
replicates = 50

[map]
grid = "grid.nc"
"""


@pytest.fixture
def folder(tmp_path):
    """Ten pairs of stations in a plane 60 wide, and a grid of the plane."""
    rng = np.random.default_rng(1)
    at = np.repeat(np.repeat(rng.uniform(5.0, 55.0, (10, 2)), 2, axis=0) + rng.normal(size=(20, 2)), 6, axis=0)
    frame = pd.DataFrame({"x": at[:, 0], "y": at[:, 1], "site": np.repeat([f"s{i:02d}" for i in range(20)], 6)})
    frame["time"] = np.tile(pd.date_range("2020-01-01", periods=6), 20)
    frame["sm"] = 0.3 + 0.02 * np.sin(at[:, 0] / 9) + rng.normal(scale=0.02, size=len(frame))
    frame = frame.assign(
        rf=frame.sm + rng.normal(scale=0.02, size=120),
        rain=rng.normal(size=120),
        other=frame.sm + rng.normal(scale=0.03, size=120),
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    values = rng.uniform(0.2, 0.4, (3, 13, 13))
    axis = np.linspace(0, 60, 13)
    grid = xr.Dataset(
        {name: (("y", "x"), one) for name, one in zip(("rf", "other", "rain"), values)}, {"y": axis, "x": axis}
    )
    grid.to_netcdf(tmp_path / "grid.nc", engine="h5netcdf")
    return tmp_path


def rows_of(folder, trained=False, **options):
    frame = pd.read_csv(folder / "t.csv", parse_dates=["time"])
    columns = {"site": "site", "time": "time"}
    if trained:
        data = be.Members({"mlr": default_estimators()["mlr"]}, frame[["rf", "rain", "other", *columns]], frame["sm"],
                          products=["other"], **columns)  # fmt: skip
    else:
        data = be.Ensemble.from_frame(frame, members=["rf", "other"], observation="sm", **columns)
    options = {"map_points": xr.load_dataset(folder / "grid.nc", engine="h5netcdf")} | options
    models = {"BMA": be.BMA(), "Equal weights": be.EqualWeights()}
    return be.compare(models, data, estimand="site", method="em", random_seed=1, places=frame[["x", "y"]],
                      progressbar=False, **options)  # fmt: skip


@pytest.mark.slow
def test_a_study_holds_out_by_place(folder):
    (folder / "study.toml").write_text(TEXT, encoding="utf-8")
    with undrawn():
        run_study(folder / "study.toml", folder / "out", say=lambda _: None, progressbar=False)
    found = pd.read_csv(folder / "out" / "tables" / "scores.csv").query("group == 'all'")
    way = {"trained": True, "folds": "knndm 4", "buffer": 0.5}
    rows = rows_of(folder, inner_folds="knndm 3", **way)
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert (
        "4 folds (distances matched to the map, nothing learnt within 0.5 units of the coordinates of a site held out)"
        in page
    )
    assert "units of x and y from the nearest station; half of the stations held out were further than" in page
    assert (folder / "out" / "figures" / "fold_distances.svg").exists()
    assert found["crps"].tolist() == pytest.approx(rows["crps"].mean("obs").values.tolist())
    assert found["crps"].tolist() != pytest.approx(
        rows_of(folder, inner_folds=3, **way)["crps"].mean("obs").values.tolist()
    )
    expected = xr.load_dataset(folder / "out" / "maps" / "expected_error.nc", engine="h5netcdf")
    assert expected["expected_error"].sizes == {"y": 13, "x": 13}
    assert 0 <= expected["share_beyond"].item() <= 1


def test_the_map_of_a_study_is_looked_at_where_it_can_be(folder):
    """With any folds, for the warning; one in other coordinates is refused only where folds are to match it."""
    plain = study_from_text(TEXT.replace('"knndm 4"', "5").replace('"knndm 3"', "5"), folder=folder)
    matched = study_from_text(TEXT, folder=folder)
    cells = map_points_of(plain, study_data(plain))
    with pytest.warns(UserWarning, match="held-out sites are much nearer to training sites than the map"):
        rows_of(folder, folds=5, map_points=cells)
    away = xr.load_dataset(folder / "grid.nc", engine="h5netcdf").assign_coords(x=np.linspace(1e6, 1.1e6, 13))
    away.to_netcdf(folder / "grid.nc", engine="h5netcdf")
    assert map_points_of(plain, study_data(plain)) is None
    with pytest.raises(ValueError, match="the map lies elsewhere than the sites"):
        run_study(matched, folder / "out", say=lambda _: None, progressbar=False)
    assert not (folder / "out").exists()


def test_a_grid_may_call_degrees_as_the_table_does(folder):
    frame = pd.read_csv(folder / "t.csv").rename(columns={"x": "east_deg", "y": "north_deg"})
    frame.to_csv(folder / "t.csv", index=False)
    grid = xr.load_dataset(folder / "grid.nc", engine="h5netcdf").rename({"x": "east_deg", "y": "north_deg"})
    grid.to_netcdf(folder / "grid.nc", engine="h5netcdf")
    text = TEXT.replace('places = ["x", "y"]\n', "").replace(
        "[members]", 'lon = "east_deg"\nlat = "north_deg"\n[members]'
    )
    study = study_from_text(text, folder=folder)
    cells = map_points_of(study, study_data(study))
    assert (cells.names, len(cells), cells.units) == (("lon", "lat"), 169, "km")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"knndm 3"', '"nndm"', "members.folds: no kind of folds 'nndm' in folds='nndm'; did you mean 'knndm'"),
        ('"knndm 4"', '"nndm"', "evaluation.folds: no kind of folds 'nndm' in folds='nndm'; did you mean 'knndm'"),
        ('"knndm 4"', '"knndm four"', "evaluation.folds: folds is 'knndm four'; wanted a kind and a number"),
        (
            '[map]\ngrid = "grid.nc"',
            "",
            r"evaluation.folds = 'knndm' matches the distances of a map: name its grid in \[map\]",
        ),
        (
            'places = ["x", "y"]',
            "",
            "evaluation.folds needs the places of sites: name data.lon and data.lat, or evaluation.pl",
        ),
        ('grid = "grid.nc"', "", "map.grid: is missing"),
        ('folds = "knndm 4"\nbuffer = 0.5\nplaces = ["x", "y"]', "", "members.folds needs the places of sites"),
        ('site = "site"', "", "evaluation.folds is about sites and needs data.site"),
        (
            'folds = "knndm 4"\nbuffer = 0.5\nplaces = ["x", "y"]',
            "buffer = 2",
            "evaluation.buffer needs the places of sites",
        ),
        ("buffer = 0.5", "buffer = -1", "evaluation.buffer: Input should be greater than 0; got -1"),
        ('places = ["x", "y"]', 'places = ["x"]', "evaluation.places: .*at least 2 items"),
    ],
)
def test_a_study_refuses_what_does_not_fit(old, new, text):
    given = TEXT if "members" in text else TEXT.replace('"knndm 3"', "3")
    assert old in given
    with pytest.raises(ValueError, match=text):
        study_from_text(given.replace(old, new).replace('estimands = ["site"]', ""))


def test_the_command_line_takes_folds_by_place(folder):
    columns = ["--members", "rf,other", "--observation", "sm", "--site", "site", "--time", "time", "--method", "em"]
    ask = [str(folder / "t.csv"), *columns, "--models", "bma,equal"]
    by_place = ["--places", "x,y", "--folds", "knndm 4", "--buffer", "0.5", "--map", str(folder / "grid.nc")]
    said = CliRunner().invoke(app, ["compare", *ask, *by_place, "--rows", str(folder / "r.nc")])
    assert said.exit_code == 0, said.output
    found = xr.load_dataset(folder / "r.nc", engine="h5netcdf")
    wanted = rows_of(folder, folds="knndm 4", buffer=0.5)
    assert (found.attrs["folds"], found.attrs["buffer"]) == ("knndm 4", 0.5)
    assert (found["fold"].values == wanted["fold"].values).all()
    assert np.allclose(found["crps"], wanted["crps"])
    for change, text in [
        (by_place[2:], "name its columns lon and lat (--lon, --lat), or planar x and y: --places x,y"),
        (by_place[:4], "no map is given; pass its cells, --map grid, or choose --folds blocks"),
        ([*by_place[:3], "knn"], "no kind of folds 'knn' in --folds knn; did you mean 'knndm'"),
    ]:
        said = CliRunner().invoke(app, ["compare", *ask, *change])
        assert said.exit_code == 1
        assert text in " ".join(said.stderr.split()), said.stderr
