"""Ensembles of an xarray.Dataset: grids are stacked as xarray does it, and a dataset that cannot be one is refused."""

import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from door_tables import door, table

from bayesens.ensemble.ensemble import Ensemble


def grid():
    rng = np.random.default_rng(5)
    return xr.Dataset(
        {
            "prediction": (("time", "member", "y", "x"), rng.random((2, 3, 4, 5)), {"units": "m3 m-3"}),
            "truth": (("y", "x", "time"), rng.random((4, 5, 2)), {"units": "m3 m-3"}),
            "region": (("y", "x"), np.where(np.arange(20).reshape(4, 5) < 7, "west", "east")),
        },
        {
            "time": pd.date_range("2021-01-01", periods=2),
            "member": ["rf", "mlr", "svr"],
            "y": [50.0, 49.0, 48.0, 47.0],
            "x": np.arange(5.0),
            "lat2": (("y", "x"), rng.random((4, 5))),
        },
    )


def test_grid_is_stacked():
    data = grid()
    ensemble = Ensemble.from_dataset(data, observation="truth", group="region", time="time", lon="x", lat="lat2")
    assert (ensemble.n_obs, ensemble.members, ensemble.units) == (40, ("rf", "mlr", "svr"), "m3 m-3")
    stacked = data.stack(obs=("time", "y", "x"))
    np.testing.assert_array_equal(ensemble.prediction, stacked["prediction"].transpose("obs", "member"))
    np.testing.assert_array_equal(ensemble.observation, stacked["truth"])
    np.testing.assert_array_equal(ensemble.dataset["time"], stacked["time"])
    np.testing.assert_array_equal(ensemble.dataset["lon"], stacked["x"])
    np.testing.assert_array_equal(ensemble.dataset["lat"], stacked["lat2"])
    np.testing.assert_array_equal(ensemble.labels("group")[:20], data["region"].values.reshape(-1))
    np.testing.assert_array_equal(ensemble.labels("group")[20:], data["region"].values.reshape(-1))


def test_one_variable_a_member():
    data = grid()["prediction"].to_dataset("member").assign(truth=grid()["truth"])
    for name in ("rf", "mlr", "svr"):
        data[name].attrs["units"] = "m3 m-3"
    ensemble = Ensemble.from_dataset(data, members=["svr", "rf"], observation="truth", lat="y")
    whole = Ensemble.from_dataset(grid(), members=["svr", "rf"], observation="truth", lat="y")
    assert ensemble.digest == whole.digest
    data["rf"] = data["rf"].transpose("x", "time", "y")
    assert Ensemble.from_dataset(data, members=["svr", "rf"], observation="truth", lat="y").digest == whole.digest


def test_numbered_members():
    data = grid().assign_coords(member=[0, 1, 2])
    assert Ensemble.from_dataset(data).members == ("0", "1", "2")
    assert Ensemble.from_dataset(data, members=["2"]).members == ("2",)


DATASETS = {
    "mixed units": (
        lambda d: d.assign(truth=d["truth"].assign_attrs(units="%")),
        {"observation": "truth"},
        ValueError,
        r"mixed units \(40 rows\): 'm3 m-3' in 'rf', 'mlr', 'svr'; '%' in 'truth'",
    ),
    "no prediction": (
        lambda d: d.drop_vars("prediction"),
        {},
        KeyError,
        r"no variable 'prediction' in the dataset \(.*time: 2.*members=\[",
    ),
    "no member dimension": (
        lambda d: d.rename(member="model"),
        {},
        ValueError,
        r"'prediction' has dimensions 'time', 'model', 'y', 'x', wanted one called 'member'",
    ),
    "no names": (
        lambda d: d.drop_vars("member"),
        {},
        ValueError,
        r"'member' of 'prediction' \(length 3\) has no names.*assign_coords",
    ),
    "unknown member": (
        lambda d: d,
        {"members": ["svm"]},
        KeyError,
        r"no member 'svm' in variable 'prediction' .*did you mean 'svr'",
    ),
    "unknown role": (
        lambda d: d,
        {"observation": "truht"},
        KeyError,
        r"no variable 'truht' in the dataset .*did you mean 'truth'",
    ),
    "observation broadcast": (
        lambda d: d.assign(truth=d["truth"].isel(time=0, drop=True)),
        {"observation": "truth"},
        ValueError,
        r"'truth' has dimensions 'y', 'x'; wanted the same .*\(40 rows\)",
    ),
    "label with another dimension": (
        lambda d: d.assign(basin=("basin", ["a", "b"])),
        {"site": "basin"},
        ValueError,
        r"'basin' has dimensions 'basin'; wanted some of 'time', 'y', 'x'",
    ),
    "infinite": (
        lambda d: d.where(d["x"] != 3, np.inf),
        {},
        ValueError,
        r"'rf' is infinite in 8 of 40 rows \(first: row \(",
    ),
    "member twice": (lambda d: d.assign_coords(member=["rf", "rf", "svr"]), {}, ValueError, "'rf' more than once"),
    "site in two groups": (
        lambda d: d,
        {"site": "x", "group": "region"},
        ValueError,
        r"columns 'x' and 'region' \(40 rows\): 5 site\(s\).*and 2 more",
    ),
    "both roles": (lambda d: d, {"lon": "x", "lat": "x"}, ValueError, r"'x' \(40 rows\).*the lon and as the lat"),
}


@pytest.mark.parametrize("case", DATASETS)
def test_dataset_refusals(case):
    change, columns, error, text = DATASETS[case]
    with pytest.raises(error) as caught:
        Ensemble.from_dataset(change(grid()), **columns)
    assert re.search(text, str(caught.value)), str(caught.value)


def test_members_of_different_shape():
    data = xr.Dataset({"rf": (("y", "x"), np.ones((2, 3))), "clim": ("y", np.ones(2))})
    with pytest.raises(ValueError, match=r"'clim' has dimensions 'y'; wanted the same as the first member, 'y', 'x'"):
        Ensemble.from_dataset(data, members=["rf", "clim"])
    with pytest.raises(KeyError, match="no variable 'svr' in the dataset"):
        Ensemble.from_dataset(data, members=["rf", "svr"])


def test_units_may_be_overridden():
    data = grid()
    data["truth"].attrs["units"] = "m3/m3"
    assert Ensemble.from_dataset(data, observation="truth", units="m3 m-3").units == "m3 m-3"


def test_own_dataset_whose_columns_borrow_the_names_of_roles():
    frame = table().rename(columns={"rf": "site", "mlr": "time"})
    ensemble = door(frame, members=["site", "time"], site="station", time="date")
    again = Ensemble.from_dataset(ensemble.dataset)
    assert again.digest == ensemble.digest
    pd.testing.assert_frame_equal(again.to_frame(), ensemble.to_frame())
