"""An ensemble holds what its table held, is a value that nothing else changes, and gives the rows and members asked for."""

import dataclasses
import os
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from door_tables import ROLES, door, table

from bayesens.ensemble.ensemble import Ensemble

# Contents


def test_contents(ensemble):
    frame = table()
    assert ensemble.members == ("rf", "mlr", "svr")
    assert (len(ensemble), ensemble.n_obs, ensemble.n_members) == (6, 6, 3)
    np.testing.assert_array_equal(ensemble.prediction, frame[["rf", "mlr", "svr"]])
    np.testing.assert_array_equal(ensemble.observation, frame["sm"])
    assert ensemble.prediction.flags.c_contiguous
    assert ensemble.prediction.dtype == np.float64
    assert ensemble.units == "m3 m-3"
    assert ensemble.dataset["observation"].attrs == {"units": "m3 m-3"}
    assert ensemble.labels("site").tolist() == ["s0", "s1", "s2"] * 2
    assert ensemble.levels("group").tolist() == ["north", "south"]
    assert ensemble.columns == {"observation": "sm", **ROLES}
    assert dict(ensemble.dataset.sizes) == {"obs": 6, "member": 3}
    for name in ("site", "group"):
        assert ensemble.dataset[name].dims == ("obs",)
        assert ensemble.dataset[name].dtype.kind == "U"
    assert ensemble.dataset["member"].dtype.kind == "U"
    assert ensemble.dataset["time"].dtype == "datetime64[ns]"


def test_missing_values():
    frame = table()
    frame.loc[1, "rf"] = np.nan
    frame.loc[[0, 4], "sm"] = np.nan
    ensemble = door(frame)
    expected = np.ones((6, 3), dtype=bool)
    expected[1, 0] = False
    np.testing.assert_array_equal(ensemble.available, expected)
    assert ensemble.observed.tolist() == [False, True, True, True, False, True]


def test_without_observation_or_labels():
    ensemble = Ensemble.from_frame(table(), members=["rf"])
    assert ensemble.observation is None
    assert not ensemble.observed.any()
    assert ensemble.labels("site") is None
    assert ensemble.levels("site").tolist() == []
    assert ensemble.units == ""
    with pytest.raises(ValueError, match=r"6 rows, members 'rf'\) has no observation column.*observation="):
        ensemble.require_observation()
    with pytest.raises(ValueError, match=r"labels\('time'\); wanted 'site' or 'group'"):
        ensemble.labels("time")


def test_is_a_value(ensemble):
    with pytest.raises(dataclasses.FrozenInstanceError):
        ensemble.dataset = xr.Dataset()
    with pytest.raises(TypeError, match=r"Dataset without a checked 'prediction'; .*from_frame"):
        Ensemble(xr.Dataset())
    with pytest.raises(TypeError, match="DataFrame without"):
        Ensemble(table())


def test_the_frame_is_copied():
    frame = table()
    ensemble = door(frame)
    ensemble.prediction[:] = -1
    ensemble.observation[:] = -1
    pd.testing.assert_frame_equal(frame, table())


def test_rows_selected_are_copied(ensemble):
    for part in (ensemble.select(rows=slice(0, 3)), ensemble.select(members=["rf"]), ensemble.select()):
        part.prediction[:] = -1
        part.observation[:] = -1
        assert (ensemble.prediction >= 0).all()
        assert (ensemble.observation >= 0).all()


def test_repr(ensemble):
    assert repr(ensemble) == (
        "<Ensemble: 6 rows (6 observed), 3 members, m3 m-3>\n"
        "  members  rf, mlr, svr\n"
        "  sites    3 (station)\n"
        "  groups   2 (network)\n"
        "  time     2020-03-01 to 2020-03-06 (date)"
    )
    frame = table()
    frame.loc[:2, "svr"] = np.nan
    frame.loc[0, "station"] = None
    assert "svr (50.0 % missing)" in repr(door(frame))
    assert "3 (station, 1 rows without)" in repr(door(frame, site="station"))


def test_html_is_escaped():
    frame = table().rename(columns={"rf": "<b>rf</b>"})
    html = door(frame, members=["<b>rf</b>"], units="<i>")._repr_html_()
    assert "&lt;b&gt;rf&lt;/b&gt;" in html
    assert "&lt;i&gt;" in html
    assert "<b>" not in html
    assert html.count("<table>") == html.count("</table>") == 1


# Warnings


def test_rows_without_members_warn_at_the_caller():
    frame = table()
    frame.loc[[1, 4], ["rf", "mlr", "svr"]] = np.nan
    with pytest.warns(
        UserWarning, match=r"members \('rf', 'mlr', 'svr'\) are missing in 2 of 6 rows; .* kept"
    ) as caught:
        Ensemble.from_frame(frame, members=("rf", "mlr", "svr"), observation="sm")
    assert [os.path.basename(warning.filename) for warning in caught] == ["test_ensemble.py"]


def test_repeated_site_and_time_warn():
    frame = table()
    frame.loc[3, ["date"]] = frame.loc[0, "date"]
    with pytest.warns(UserWarning, match=r"'station' and 'date': 1 of 6 rows repeat"):
        door(frame, **ROLES)
    frame.loc[[0, 3], "station"] = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        door(frame, site="station", time="date")


def test_a_good_table_is_silent(ensemble):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        door(table(), **ROLES)
        ensemble.select(rows=[0, 0])
        ensemble.check_training()


# Selection


def test_select(ensemble):
    part = ensemble.select(members=["svr", "rf"], rows=[4, 0])
    assert part.members == ("svr", "rf")
    np.testing.assert_array_equal(part.prediction, table()[["svr", "rf"]].to_numpy()[[4, 0]])
    assert part.prediction.flags.c_contiguous
    assert part.labels("site").tolist() == ["s1", "s0"]
    assert part.units == "m3 m-3"
    assert part.dataset.attrs == ensemble.dataset.attrs
    mask = table()["station"] == "s2"
    assert ensemble.select(rows=mask).labels("site").tolist() == ["s2", "s2"]
    assert len(ensemble.select(rows=slice(None, None, 2))) == 3
    assert ensemble.select(rows=-1).labels("site").tolist() == ["s2"]
    assert ensemble.select().digest == ensemble.digest


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ({"members": ["rff"]}, KeyError, r"no member 'rff' in the ensemble \(6 rows\); did you mean 'rf'"),
        ({"members": []}, ValueError, "members is empty"),
        ({"members": ["rf", "rf"]}, ValueError, "'rf' more than once"),
        ({"rows": [True, False]}, ValueError, r"shape \(2,\); wanted \(6,\)"),
        ({"rows": np.zeros(6, dtype=bool)}, ValueError, "leaves zero of 6 rows"),
        ({"rows": []}, ValueError, "leaves zero of 6 rows"),
        ({"rows": [0, 6]}, IndexError, "from 0 to 6; wanted positions within 6 rows"),
        ({"rows": [-7]}, IndexError, "from -7 to -7"),
        ({"rows": [0.5]}, TypeError, "dtype float64"),
        ({"rows": ["a"]}, TypeError, "dtype <U1"),
    ],
)
def test_select_refuses(ensemble, asked, error, text):
    with pytest.raises(error, match=text):
        ensemble.select(**asked)


def test_a_misspelt_keyword_is_named_at_every_door():
    frame = pd.DataFrame({"model": ["rf"], "value": [0.1], "day": [1]})
    with pytest.raises(TypeError, match=r"from_long\(\) got .* 'tme'. Did you mean 'time'"):
        Ensemble.from_long(frame, model="model", value="value", tme="day")
    with pytest.raises(TypeError, match=r"from_dataset\(\) got .* 'covariate'. Did you mean 'covariates'"):
        Ensemble.from_dataset(xr.Dataset({"rf": ("obs", [0.1])}), members=["rf"], covariate=["dem"])
    with pytest.raises(
        TypeError, match=r"from_dataset\(\) got .* 'zzz'. It has 'members', 'prediction', 'observation'"
    ):
        Ensemble.from_dataset(xr.Dataset({"rf": ("obs", [0.1])}), members=["rf"], zzz=1)
