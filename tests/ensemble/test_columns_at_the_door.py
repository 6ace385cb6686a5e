"""Columns of a table that cannot be right are refused by their name and the count of rows; units are read, and are one."""

import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from door_tables import door, label, table
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesens.ensemble.ensemble import Ensemble


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
