"""The door: what comes in comes out again, and what cannot be right is refused by column and row count."""

import dataclasses
import os
import re
import subprocess
import sys
import warnings
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bayesens.ensemble.collinear import affine_copies
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.streaming import sufficient_statistics

ROLES = {"site": "station", "group": "network", "time": "date", "lon": "x", "lat": "y"}


def table(n=6):
    """A small table without anything wrong: 6 rows, 3 members, 3 stations in 2 networks."""
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "date": pd.date_range("2020-03-01", periods=n, freq="D"),
            "station": [f"s{i % 3}" for i in range(n)],
            "network": [("north", "north", "south")[i % 3] for i in range(n)],
            "x": rng.uniform(-10, 10, n),
            "y": rng.uniform(40, 50, n),
            "sm": rng.uniform(0, 0.5, n),
            "rf": rng.uniform(0, 0.5, n),
            "mlr": rng.uniform(0, 0.5, n),
            "svr": rng.uniform(0, 0.5, n),
        }
    )


def door(frame, members=("rf", "mlr", "svr"), **columns):
    return Ensemble.from_frame(frame, members=members, **{"observation": "sm", **columns})


@pytest.fixture
def ensemble():
    return door(table(), units="m3 m-3", **ROLES)


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


# Labels and times


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series(["a", None, "b"], dtype=object), ["a", "", "b"]),
        (pd.Series(["a", None, "b"], dtype="string"), ["a", "", "b"]),
        (pd.Series(["a", np.nan, "b"], dtype="str"), ["a", "", "b"]),
        (pd.Series(["a", None, "b"], dtype="category"), ["a", "", "b"]),
        (pd.Series([7, None, 9]), ["7", "", "9"]),
        (pd.Series([7, None, 9], dtype="Int64"), ["7", "", "9"]),
        (pd.Series([7, 8, 9], dtype="int16"), ["7", "8", "9"]),
        (pd.Series([7, None, 9], dtype="category"), ["7", "", "9"]),
        (pd.Series([0.5, np.nan, 2.0]), ["0.5", "", "2"]),
        (pd.Series([True, False, True]), ["True", "False", "True"]),
        (pd.Series([b"a", b"b", b"a"]), ["a", "b", "a"]),
        (
            pd.to_datetime(pd.Series(["2020-01-01", None, "2020-01-02"])),
            ["2020-01-01 00:00:00", "", "2020-01-02 00:00:00"],
        ),
        (pd.Series([None, None, None], dtype=object), ["", "", ""]),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, pd.Series) else "",
)
@pytest.mark.parametrize("engine", ["h5netcdf", "zarr"])
def test_label_dtypes_survive_a_file(column, expected, engine, tmp_path):
    frame = table(3).assign(label=column, network="north")
    ensemble = door(frame, site="label", group="network")
    assert ensemble.labels("site").tolist() == expected
    assert ensemble.labels("site").dtype.kind == "U"
    path = tmp_path / "ensemble"
    if engine == "zarr":
        ensemble.dataset.to_zarr(path, consolidated=False)
    else:
        ensemble.dataset.to_netcdf(path, engine="h5netcdf")
    options = {"consolidated": False} if engine == "zarr" else {}
    with xr.open_dataset(path, engine=engine, **options) as dataset:
        again = Ensemble.from_dataset(dataset.load())
    assert again.digest == ensemble.digest
    assert again.columns == ensemble.columns
    pd.testing.assert_frame_equal(again.to_frame(), ensemble.to_frame())


def test_missing_labels_are_no_level():
    frame = table()
    frame.loc[[0, 1], "network"] = None
    with pytest.warns(
        UserWarning, match=r"'station' and 'network' \(6 rows\): 2 site\(s\) .* none in others: 's0', 's1'"
    ):
        ensemble = door(frame, **ROLES)
    assert ensemble.labels("group").tolist()[:2] == ["", ""]
    assert ensemble.levels("group").tolist() == ["north", "south"]
    assert ensemble.to_frame()["network"].isna().tolist() == [True, True] + [False] * 4


def test_labels_that_cannot_be():
    frame = table(2).assign(station=[["a"], ["b"]])
    with pytest.raises(TypeError, match=r"'station' \(2 rows\) holds values that cannot be labels"):
        door(frame, site="station")
    # numpy drops a trailing NUL: these two stations would silently become one.
    with pytest.raises(ValueError, match=r"'station' holds 'a\\x00' with a NUL"):
        door(table(2).assign(station=["a", "a\0"]), site="station")
    with pytest.raises(ValueError, match=r"'station' holds .* not valid Unicode"):
        door(table(2).assign(station=pd.Series(["a", "\ud800"], dtype=object)), site="station")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series(pd.to_datetime(["2020-01-01", None])), ["2020-01-01", "NaT"]),
        (pd.Series(["2020-01-01", "2020-01-02T06:00"]), ["2020-01-01", "2020-01-02T06"]),
        (pd.Series(["2020-01-01", None], dtype="string"), ["2020-01-01", "NaT"]),
        (pd.Series(["2020-01-01", "2020-01-02"], dtype="category"), ["2020-01-01", "2020-01-02"]),
        (pd.Series([pd.Timestamp("2020-01-01").date(), None]), ["2020-01-01", "NaT"]),
        (pd.Series(pd.to_datetime(["2020-01-01 02:00+02:00", None])), ["2020-01-01", "NaT"]),
        (pd.Series(["2020-01-01T02:00+02:00", "2020-01-02T02:00+02:00"]), ["2020-01-01", "2020-01-02"]),
        (pd.Series(pd.PeriodIndex(["2020-01", "2020-02"], freq="M")), ["2020-01-01", "2020-02-01"]),
        (pd.Series(np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[s]")), ["2020-01-01", "2020-01-02"]),
        (
            # One zone with a clock change between the two rows: its offsets differ, its name does not.
            pd.Series(
                pd.DatetimeIndex(["2020-01-01 01:00", "2020-07-01 02:00"]).tz_localize(ZoneInfo("Europe/Berlin"))
            ),
            ["2020-01-01", "2020-07-01"],
        ),
    ],
)
def test_times(column, expected):
    time = door(table(2).assign(date=column), time="date").dataset["time"].values
    assert time.dtype == "datetime64[ns]"
    np.testing.assert_array_equal(time, np.array(expected, dtype="datetime64[ns]"))


def test_numeric_time_stays_numeric():
    def time(values, **kind):
        return door(table(2).assign(date=pd.Series(values, **kind)), time="date").dataset["time"].values

    assert time([2003, 2004]).dtype == np.int64
    assert time([2003, 2004], dtype="Int64").tolist() == [2003, 2004]
    assert time([2003.5, 2004.5]).tolist() == [2003.5, 2004.5]
    np.testing.assert_array_equal(time([2003, None], dtype="Int64"), [2003.0, np.nan])
    np.testing.assert_array_equal(time([2003, None], dtype=object), [2003.0, np.nan])


@pytest.mark.parametrize(
    ("column", "error", "text"),
    [
        (
            ["2020-01-01T00:00+02:00", "2020-01-01T00:00+01:00"],
            ValueError,
            r"'date' \(2 rows\) mixes time zones.*utc=True",
        ),
        (["2020-01-01T00:00+02:00", "2020-01-01T00:00"], ValueError, r"'date' \(2 rows\) mixes time zones"),
        (
            [pd.Timestamp("2020-01-01", tz="UTC"), pd.Timestamp("2020-01-01", tz="Asia/Tokyo")],
            ValueError,
            r"'date' \(2 rows\) mixes time zones",
        ),
        (
            ["2020-01-01", "01/02/2020"],
            ValueError,
            r"'date' holds '01/02/2020' .* in 1 of 2 rows \(first: row 1; counted from 0\).*format=",
        ),
        ([True, False], TypeError, r"'date' \(2 rows\) holds bool"),
        (pd.to_timedelta([1, 2], unit="D"), TypeError, r"'date' \(2 rows\) holds Timedelta"),
        (
            np.array(["1500-01-01", "1501-01-01"], dtype="datetime64[s]"),
            ValueError,
            r"'date' \(2 rows\).*1678 to 2262.*years",
        ),
        ([1.0, np.inf], ValueError, r"'date' is infinite in 1 of 2 rows"),
    ],
)
def test_times_that_cannot_be(column, error, text):
    with pytest.raises(error, match=text):
        door(table(2).assign(date=column), time="date")


def test_other_calendars_are_named():
    class Julian:
        calendar = "julian"

    column = [Julian(), Julian()]
    with pytest.raises(TypeError, match=r"'date' \(2 rows\).*convert_calendar"):
        door(table(2).assign(date=column), time="date")


# Refusals at the door


def bad(**change):
    return table().assign(**change)


REFUSALS = {
    "unknown member": (
        table(),
        {"members": ["rf", "mlrr"]},
        KeyError,
        r"no column 'mlrr' in the table \(6 rows\); did you mean 'mlr'\? It has 'date'",
    ),
    "unknown site": (table(), {"site": "Station"}, KeyError, r"no column 'Station' .*\(6 rows\).*'station'"),
    "in the index": (
        table().set_index("station"),
        {"site": "station"},
        KeyError,
        r"'station' is in the index .*\(6 rows\).*reset_index",
    ),
    "members as text": (table(), {"members": "rf"}, TypeError, r"'rf'; wanted a list .*members=\['rf'\]"),
    "members empty": (table(), {"members": []}, ValueError, "members is empty"),
    "members numbers": (table(), {"members": ["rf", 3]}, TypeError, r"1 name\(s\) that are not text \(.?3"),
    "member twice": (
        table(),
        {"members": ["rf", "mlr", "rf"]},
        ValueError,
        r"'rf' more than once; wanted each .*: 'rf', 'mlr'$",
    ),
    "role as list": (table(), {"site": ["station"]}, TypeError, r"site=\['station'\]; wanted the name of one column"),
    "member is observation": (
        table(),
        {"members": ["rf", "sm"]},
        ValueError,
        r"'sm' \(6 rows\) is named both as a member and as the observation",
    ),
    "site is group": (
        table(),
        {"site": "station", "group": "station"},
        ValueError,
        r"'station' \(6 rows\).*the site and as the group",
    ),
    "column twice": (
        pd.concat([table(), table()[["rf"]]], axis=1),
        {},
        ValueError,
        r"\(6 rows\) has more than one column called 'rf'",
    ),
    "no rows": (table().iloc[:0], {}, ValueError, r"zero rows in columns 'rf', 'mlr', 'svr', 'sm'"),
    "text": (
        bad(rf=["0.1", "n/a", "0.3", "-", "0.2", "0.1"]),
        {},
        TypeError,
        r"'rf' \(6 rows\).*'n/a' .* 2 of 6 rows \(first: row 1, 3; counted from 0\); correct them, or leave .*to_numeric",
    ),
    "numbers as text": (bad(rf=["0.1"] * 6), {}, TypeError, r"'rf' \(6 rows\) has dtype .*written as text.*to_numeric"),
    "text observation": (
        bad(sm=list("abcdef")),
        {},
        TypeError,
        r"'sm' \(6 rows\).*'a' and the like stand in 6 of 6 rows",
    ),
    "text lon": (bad(x=list("abcdef")), {"lon": "x"}, TypeError, r"'x' \(6 rows\)"),
    "booleans": (bad(rf=[True] * 6), {}, TypeError, r"'rf' \(6 rows\) has dtype bool; wanted numbers"),
    "complex": (bad(rf=np.full(6, 1j)), {}, TypeError, r"'rf' \(6 rows\) has dtype complex"),
    "categories": (bad(rf=pd.Categorical([1.0] * 6)), {}, TypeError, r"'rf' \(6 rows\) has dtype category"),
    "times as member": (table(), {"members": ["rf", "date"]}, TypeError, r"'date' \(6 rows\) has dtype datetime64"),
    "infinite": (
        bad(mlr=[1, np.inf, 2, -np.inf, np.inf, 3.0]),
        {},
        ValueError,
        r"'mlr' is infinite in 3 of 6 rows \(first: row 1, 3, 4; counted from 0\); wanted finite numbers: correct them",
    ),
    "infinite observation": (bad(sm=[np.inf, 1, 2, 3, 4, 5]), {}, ValueError, r"'sm' is infinite in 1 of 6 rows"),
    "infinite latitude": (bad(y=[-np.inf, 1, 2, 3, 4, 5]), {"lat": "y"}, ValueError, r"'y' is infinite in 1 of 6 rows"),
    "site in two groups": (
        bad(network=["a", "a", "b", "b", "a", "b"]),
        {"site": "station", "group": "network"},
        ValueError,
        r"columns 'station' and 'network' \(6 rows\): 1 site\(s\).*'s0' in 'a', 'b'; wanted each site",
    ),
    "mixed units": (
        table(),
        {"units": {"rf": "m3 m-3", "sm": "%"}},
        ValueError,
        r"mixed units \(6 rows\): 'm3 m-3' in 'rf'; '%' in 'sm'",
    ),
    "units of another": (table(), {"units": {"rff": "%"}}, KeyError, r"'rff' .* did you mean 'rf'"),
    "units number": (table(), {"units": 3}, TypeError, r"units is 3; wanted one string"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case):
    frame, columns, error, text = REFUSALS[case]
    with pytest.raises(error) as caught:
        door(frame, **columns)
    assert re.search(text, str(caught.value)), str(caught.value)


def test_not_a_table():
    with pytest.raises(TypeError, match=r"got Dataset; wanted a pandas.DataFrame"):
        door(xr.Dataset())
    with pytest.raises(TypeError, match=r"got DataFrame; wanted an xarray.Dataset"):
        Ensemble.from_dataset(table())


def test_rows_are_named_by_the_tables_own_index():
    frame = table().set_index(pd.Index(list("abcdef")))
    frame.loc["c", "rf"] = np.inf
    with pytest.raises(ValueError, match=r"'rf' is infinite in 1 of 6 rows \(first: row 'c'\)"):
        door(frame)


def test_an_unused_duplicate_column_is_no_matter():
    frame = pd.concat([table(), table()[["x"]]], axis=1)
    assert len(door(frame)) == 6


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "Float64", "int64", "Int32", "UInt8", "double[pyarrow]", object]
)
def test_numeric_dtypes(dtype):
    frame = table().assign(rf=pd.Series([1, 2, 3, 4, 5, 6]).astype(dtype))
    ensemble = door(frame)
    assert ensemble.prediction[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    if dtype in ("Float64", "Int32", "UInt8", "double[pyarrow]", object):
        frame.loc[0, "rf"] = None
        np.testing.assert_array_equal(door(frame).prediction[:2, 0], [np.nan, 2])


def test_units():
    assert door(table(), units={"rf": "mm", "sm": "mm"}).units == "mm"
    frame = table()
    frame.attrs["units"] = "mm"
    assert door(frame).units == "mm"
    assert door(frame, units="cm").units == "cm"
    frame.attrs["units"] = {"anything": "else", "rf": 3}
    assert door(frame).units == ""
    frame.attrs["units"] = {"anything": "else", "rf": "mm"}
    assert door(frame).units == "mm"


def test_mixed_units_in_attrs():
    frame = table()
    frame.attrs["units"] = {"rf": "m3 m-3", "sm": "%", "x": "degrees"}
    with pytest.raises(
        ValueError, match=r"mixed units \(6 rows\): 'm3 m-3' in 'rf'; '%' in 'sm'; wanted one .*--units"
    ):
        door(frame)
    assert door(frame, units="%").units == "%"


# Warnings


def test_rows_without_members_warn_at_the_caller():
    frame = table()
    frame.loc[[1, 4], ["rf", "mlr", "svr"]] = np.nan
    with pytest.warns(
        UserWarning, match=r"members \('rf', 'mlr', 'svr'\) are missing in 2 of 6 rows; .* kept"
    ) as caught:
        door(frame)
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


# Round trips and properties

finite = st.floats(-1e6, 1e6, allow_nan=False)
label = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=4)


@st.composite
def tables(draw):
    """Any table that the door should take: gaps in everything, odd names, an index of its own."""
    n = draw(st.integers(1, 6))
    names = draw(st.lists(label, min_size=9, max_size=9, unique=True))
    members, others = names[: draw(st.integers(1, 3))], names[3:]
    gaps = st.one_of(finite, st.just(np.nan))
    frame = pd.DataFrame(index=pd.Index(draw(st.lists(st.integers(-9, 9), min_size=n, max_size=n))))
    for name in members:
        frame[name] = draw(hnp.arrays(np.float64, n, elements=gaps))
    columns = {}
    sites = draw(st.lists(st.one_of(st.none(), label), min_size=n, max_size=n))
    # Every site's group follows from its name, so that no site is in two.
    values = {
        "observation": draw(hnp.arrays(np.float64, n, elements=gaps)),
        "site": pd.Series(sites, dtype=draw(st.sampled_from([object, "string", "category"]))).to_numpy(),
        "group": np.array([None if site is None else f"g{len(site)}" for site in sites], dtype=object),
        "time": draw(
            hnp.arrays("datetime64[s]", n, elements=st.integers(-(10**9), 10**9).map(lambda s: np.datetime64(s, "s")))
        ),
        "lon": draw(hnp.arrays(np.float64, n, elements=gaps)),
        "lat": draw(hnp.arrays(np.float64, n, elements=gaps)),
    }
    for name, (role, value) in zip(others, values.items(), strict=True):
        if draw(st.booleans()):
            frame[name] = value
            columns[role] = name
    return frame, members, columns


def quiet(frame, members, **columns):
    """Drawn values are true ones, also where they are -99999."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Ensemble.from_frame(frame, members=members, missing="none", **columns)


@settings(max_examples=60, deadline=None)
@given(tables())
def test_round_trip(made):
    frame, members, columns = made
    ensemble = quiet(frame, members, **columns)
    back = ensemble.to_frame()
    expected = frame[
        [
            *(columns[role] for role in ("site", "group", "time", "lon", "lat", "observation") if role in columns),
            *members,
        ]
    ]
    assert list(back) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(back[name].isna(), expected[name].isna())
        known = expected[name].notna().to_numpy()
        assert back[name][known].tolist() == expected[name][known].tolist()
    assert quiet(back, members, **columns).digest == ensemble.digest
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        again = Ensemble.from_dataset(ensemble.dataset)
    assert again.digest == ensemble.digest
    assert again.columns == ensemble.columns


@settings(max_examples=40, deadline=None)
@given(tables(), st.data())
def test_select_commutes(made, data):
    frame, members, columns = made
    ensemble = quiet(frame, members, **columns)
    rows = data.draw(st.lists(st.integers(0, len(frame) - 1), min_size=1, max_size=6))
    chosen = data.draw(st.permutations(members).map(lambda names: names[: max(1, len(names) - 1)]))
    at_once = ensemble.select(members=chosen, rows=rows)
    assert at_once.digest == ensemble.select(rows=rows).select(members=chosen).digest
    assert at_once.digest == ensemble.select(members=chosen).select(rows=rows).digest
    # Selecting from the ensemble is selecting from the table.
    assert at_once.digest == quiet(frame.iloc[rows], chosen, **columns).digest


@settings(max_examples=30, deadline=None)
@given(tables())
def test_digest_ignores_layout(made):
    frame, members, columns = made
    ensemble = quiet(frame, members, **columns)
    relaid = ensemble.dataset.copy(deep=True)
    relaid["prediction"] = relaid["prediction"].copy(data=np.asfortranarray(relaid["prediction"].values))
    for name in ("site", "group"):
        if name in relaid.coords:
            relaid[name] = relaid[name].astype("<U40")
    assert Ensemble(relaid).digest == ensemble.digest
    renamed = {name: f"renamed {name}" for name in columns.values()}
    columns = {role: renamed[name] for role, name in columns.items()}
    assert quiet(frame.rename(columns=renamed).reset_index(drop=True), members, **columns).digest == ensemble.digest


def test_digest_ignores_which_zero_and_which_nan():
    one = table().assign(rf=[0.0, np.nan, 1, 2, 3, 4])
    odd = np.frombuffer(np.uint64(0xFFF8000000000001).tobytes(), dtype=np.float64)[0]
    assert np.isnan(odd)
    two = table().assign(rf=[-0.0, odd, 1, 2, 3, 4])
    assert door(one).digest == door(two).digest


def test_digest_sees_every_change(ensemble):
    frame = table()
    changes = [
        frame.assign(rf=frame["rf"] + 1e-16),
        frame.assign(sm=frame["sm"] * (1 + 1e-15)),
        frame.assign(station=frame["station"] + "x"),
        frame.assign(network="north"),
        frame.assign(date=frame["date"] + pd.Timedelta("1ns")),
        frame.assign(x=0.0),
        frame.assign(y=0.0),
        frame[::-1],
    ]
    digests = [door(change, units="m3 m-3", **ROLES).digest for change in changes]
    digests += [
        ensemble.digest,
        door(frame, units="%", **ROLES).digest,
        door(frame, units="m3 m-3").digest,
        ensemble.select(members=["mlr", "rf", "svr"]).digest,
        door(frame.rename(columns={"rf": "r"}), ["r", "mlr", "svr"], units="m3 m-3", **ROLES).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert re.fullmatch("[0-9a-f]{64}", ensemble.digest)


def test_digest_is_the_same_in_another_process():
    code = (
        "import pandas as pd; from bayesens.ensemble.ensemble import Ensemble; "
        "frame = pd.DataFrame({'rf': [1.0, None], 'mlr': [2.0, 3.0], 's': ['b', 'a']}); "
        "print(Ensemble.from_frame(frame, members=['rf', 'mlr'], site='s').digest)"
    )
    frame = pd.DataFrame({"rf": [1.0, None], "mlr": [2.0, 3.0], "s": ["b", "a"]})
    here = Ensemble.from_frame(frame, members=["rf", "mlr"], site="s").digest
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert there.stdout.strip() == here


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["rf", "mlr", "sm"]),
    st.sets(st.integers(0, 5), min_size=1),
    st.sampled_from([np.inf, -np.inf, "x", "n/a"]),
)
def test_bad_cells_are_counted(name, rows, value):
    frame = table()
    frame[name] = frame[name].astype(object)
    frame.loc[sorted(rows), name] = value
    if isinstance(value, float):
        frame[name] = frame[name].astype(float)
    first = ", ".join(map(str, sorted(rows)[:3]))
    text = rf"{name!r}.* in {len(rows)} of 6 rows \(first: row {first}; counted from 0\)"
    with pytest.raises((TypeError, ValueError), match=text):
        door(frame)


@settings(max_examples=30, deadline=None)
@given(st.lists(label, min_size=1, max_size=4), st.sampled_from(["members", "observation", "site", "lat"]))
def test_any_unknown_name_is_named(names, role):
    unknown = [name for name in dict.fromkeys(names) if name not in table()]
    if not unknown:
        return
    asked = unknown if role == "members" else unknown[0]
    with pytest.raises(KeyError) as caught:
        door(table(), **{role: asked})
    assert repr(unknown[0]) in str(caught.value)
    assert "(6 rows)" in str(caught.value)


# Datasets


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


# Training


def test_good_training_table(ensemble):
    assert ensemble.check_training(n_parameters=6) is None


@pytest.mark.parametrize(
    ("change", "n_parameters", "text"),
    [
        ({"sm": np.nan}, 0, r"observation column 'sm' is missing in all 6 rows; wanted .*check the column"),
        ({"sm": [1, np.nan, 1, 1, 1, 1]}, 0, r"observation column 'sm' is constant \(1\) in the 5 observed rows"),
        ({"rf": np.nan}, 0, r"member 'rf' is missing in all of the 6 observed rows .*leave it out"),
        (
            {"rf": [9, *[np.nan] * 5], "sm": [np.nan, 1, 2, 3, 4, 5]},
            0,
            r"'rf' is missing in all of the 5 observed rows \(of 6\)",
        ),
        ({"rf": 0.3, "svr": 0.2}, 0, r"members 'rf', 'svr' are constant in the 6 observed rows .*leave it out"),
        (
            {"rf": [9, *[0.1] * 5], "sm": [np.nan, 1, 2, 3, 4, 5]},
            0,
            r"'rf' is constant in the 5 observed rows \(of 6\)",
        ),
        (
            {},
            7,
            r"6 of 6 rows have an observation \('sm'\) and at least one member, but the model has 7 parameters; .*add rows",
        ),
        ({"sm": [np.nan, 1, 2, 3, 4, 5]}, 6, r"5 of 6 rows"),
        (
            {"mlr": table()["sm"]},
            0,
            r"member 'mlr' is equal to the observation 'sm' in all of the 6 observed rows.*leaked.*leave it out",
        ),
        ({"mlr": table()["sm"].astype("float32")}, 0, r"'mlr' is equal to the observation"),
        ({"mlr": table()["sm"].where([True, True, True, False, False, True])}, 0, r"'mlr' is equal to the observation"),
    ],
)
def test_training_refusals(change, n_parameters, text):
    with pytest.raises(ValueError, match=text):
        door(table().assign(**change)).check_training(n_parameters=n_parameters)


def test_training_needs_observations():
    with pytest.raises(ValueError, match="no observation column"):
        Ensemble.from_frame(table(), members=["rf"]).check_training()


def test_nearly_wrong_is_right():
    near = table()["sm"].copy()
    near.iloc[2] += 1e-4
    door(table().assign(mlr=near)).check_training(n_parameters=6)
    flat = np.full(6, 0.3)
    flat[3] += 1e-6
    door(table().assign(rf=flat)).check_training()


# Exact dependence


def members(**columns):
    return quiet(pd.DataFrame(columns), list(columns))


def random(seed, n=30):
    return np.random.default_rng(seed).normal(280, 5, n)


def test_affine_copies():
    a, b = random(1), random(2)
    assert affine_copies(members(a=a, b=b, c=1.8 * a - 459.67, d=-b)) == [("a", "c"), ("b", "d")]
    assert affine_copies(members(a=a, b=a + 1e-6 * b)) == []
    assert affine_copies(members(a=a, flat=np.full(30, 3.0), flat2=np.full(30, 4.0))) == []
    assert affine_copies(members(a=a)) == []


def test_affine_copies_where_both_exist():
    a = random(1)
    gaps = np.where(np.arange(30) % 3 == 0, np.nan, 2 * a)
    assert affine_copies(members(a=a, gaps=gaps)) == [("a", "gaps")]
    # Two rows always lie on a line, and no row is no evidence.
    assert affine_copies(members(a=a, two=np.where(np.arange(30) < 2, random(2), np.nan))) == []
    even = np.arange(30) % 2 == 0
    assert affine_copies(members(a=np.where(even, a, np.nan), b=np.where(even, np.nan, a))) == []


def linear_dependence(ensemble):
    frame = ensemble.to_frame().assign(y=np.arange(ensemble.n_obs))
    observed = Ensemble.from_frame(frame, members=ensemble.members, observation="y")
    return sufficient_statistics(observed, "identity").dependent_members()


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-1e4, 1e4), st.sampled_from([-1, 1]), st.integers(0, 99))
def test_any_affine_copy_is_found(slope, offset, sign, seed):
    a = np.random.default_rng(seed).normal(size=40)
    pair = members(a=a, b=offset + sign * slope * a)
    # Adding a large offset to a small copy rounds it: that rounding, not 1e-10, is then what is left.
    if abs(offset) * 1e-16 < 1e-11 * slope:
        assert affine_copies(pair) == [("a", "b")]
        assert linear_dependence(pair) == ["a", "b"]


def test_linear_dependence():
    a, b, c, d = (random(seed) for seed in range(4))
    assert linear_dependence(members(a=a, b=b, c=c, d=d)) == []
    assert linear_dependence(members(a=a, b=b, mean=(a + b) / 2, d=d)) == ["a", "b", "mean"]
    assert linear_dependence(members(a=a, b=b, c=3 - 0.2 * a, d=d + 0.3, e=a + b - d)) == ["a", "b", "c", "d", "e"]
    assert linear_dependence(members(a=a, b=b, c=(a + b) / 2 + 1e-6 * c)) == []
    assert linear_dependence(members(a=a, flat=np.full(30, 2.0))) == ["flat"]


def test_linear_dependence_on_complete_rows():
    a, b = random(1), random(2)
    mean = np.where(np.arange(30) < 10, np.nan, (a + b) / 2)
    assert linear_dependence(members(a=a, b=b, mean=mean)) == ["a", "b", "mean"]
    few = np.where(np.arange(30) < 26, np.nan, random(3))
    assert linear_dependence(members(a=a, b=b, few=few)) == []
    assert linear_dependence(members(a=a, b=np.full(30, np.nan))) == []


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
