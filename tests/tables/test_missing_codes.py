"""Codes for missing values: refused by column, value and count, read as missing where they are named, and no false alarm."""

import re
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from coded_tables import MEMBERS, door, spoilt, table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import datasets

import bayesens as be
from bayesens.tables.missing_codes import KNOWN, check_codes, clear_codes
from shared_data import shared_data

CODES = [-9999.0, -999.0, -99.0, -99.9, -9999.9, 9999.0, 99999.0, -32768.0, 1e20, float(np.float32(9.96921e36))]


def measured(**columns):
    return columns, dict.fromkeys(columns, "measured")


# The reported case ---------------------------------------------------------------------------------------------------


def test_codes_in_one_member_are_refused_by_name_value_and_count():
    with pytest.raises(ValueError, match=r"column 'rf' holds -9999 in 24 of 240 rows \(its other values: .*\): it looks like a "
                       r"code for missing values; read it as missing by missing=-9999 \(--missing -9999\), or, if the values "
                       r"are true, say so by missing=\{'rf': 'none'\} \(--missing rf=none\)$"):  # fmt: skip
        door(spoilt(["rf"], -9999.0))


def test_codes_that_are_named_give_the_weights_of_a_table_with_gaps():
    weights = []
    for frame, options in ((spoilt(["rf"], np.nan), {}), (spoilt(["rf"], -9999.0), {"missing": -9999})):
        ensemble = door(frame, **options)
        weights.append(be.fit(be.BMA(), ensemble, method="em")["posterior"]["weight"].values.ravel())
    np.testing.assert_array_equal(*weights)
    assert weights[0][0] > 0.5
    assert ensemble.codes == {"rf": {-9999.0: 24}}
    assert "missing  -9999 in 24 rows of 'rf'" in repr(ensemble)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("columns", [["rf"], ["sm"], [*MEMBERS, "sm"]])
def test_every_known_code_is_found_in_members_and_observations(code, columns):
    with pytest.raises(ValueError, match=re.escape("in 24 of 240 rows")):
        door(spoilt(columns, code))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = door(spoilt(columns, code), missing=code)
    assert {name: sum(each.values()) for name, each in found.codes.items()} == dict.fromkeys(columns, 24)


def test_predicting_rows_that_hold_nothing_but_a_code():
    new = table().drop(columns="sm").head(2).assign(rf=-9999.0)
    with pytest.raises(ValueError, match=r"'rf' holds -9999 in 2 of 2 rows \(it has no other values\)"):
        be.Ensemble.from_frame(new, members=MEMBERS)
    assert np.isnan(be.Ensemble.from_frame(new, members=MEMBERS, missing=-9999).prediction[:, 0]).all()


# What is a code ------------------------------------------------------------------------------------------------------


def refused(**columns):
    try:
        check_codes(*measured(**columns))
    except ValueError as error:
        return str(error)
    return ""


def test_two_codes_in_one_column_and_a_column_that_is_mostly_codes():
    a = np.linspace(0.0, 1.0, 100)
    a[::7], a[1::7] = -9999.0, -999.0
    assert "-9999 in 15 and -999 in 15 of 100 rows" in refused(a=a)
    b = np.full(100, -9999.0)
    b[:8] = np.linspace(0.1, 0.8, 8)
    assert "-9999 in 92 of 100 rows" in refused(b=b)
    c = np.linspace(0.0, 1.0, 100)
    c[::9], c[1::9] = 1e20, -9999.0
    assert "they look like codes" in refused(c=c)
    assert "missing=[-9999, 1e+20]" in refused(c=c)


def test_a_code_of_ones_own_is_found_where_it_repeats_far_off_the_rest():
    a = np.random.default_rng(1).normal(5.0, 1.0, 200)
    a[::20] = -8887.0
    assert "-8887 in 10 of 200 rows" in refused(a=a)
    a[1::20] = -8886.5
    assert "-8887 in 10 and -8886.5 in 10" in refused(a=a)
    b, c = np.random.default_rng(2).normal(5.0, 1.0, (2, 200))
    b[3] = c[3] = -8887.0  # once in each of two members
    assert "column 'b' holds -8887 in 1 of 200" in refused(b=b, c=c)
    assert not refused(b=b)  # one outlier is no code


def test_a_negative_code_among_large_flows():
    flow = np.random.default_rng(3).lognormal(5.0, 2.5, 2000)
    assert flow.max() > 20_000
    flow[::100] = -999.0
    assert "-999 in 20 of 2000 rows" in refused(flow=flow)


def test_integers_and_single_precision():
    frame = pd.DataFrame({"a": np.arange(30), "y": np.linspace(0, 30, 30).astype(np.float32)})
    frame.loc[::10, "a"] = -9999
    frame.loc[1::10, "y"] = np.float32(-99.9)
    with pytest.raises(
        ValueError, match=r"'a' holds -9999 in 3 .* column 'y' holds -99\.9 in 3 .* missing=\[-9999, -99\.9\]"
    ):
        be.Ensemble.from_frame(frame, members=["a"], observation="y")
    made = be.Ensemble.from_frame(frame, members=["a"], observation="y", missing=[-9999, -99.9])
    assert made.codes == {"a": {-9999.0: 3}, "y": {-99.9: 3}}


@pytest.mark.parametrize("values", [
    np.r_[np.zeros(800), np.random.default_rng(0).gamma(0.5, 8.0, 200)],  # precipitation
    np.r_[np.zeros(20), np.linspace(50.0, 52.0, 100)],  # dry, or large
    np.maximum(np.random.default_rng(0).normal(0, 1, 500), -0.5),  # censored from below
    np.minimum(np.random.default_rng(0).lognormal(0, 1.5, 500), 5.0),  # and from above
    np.round(np.random.default_rng(0).normal(20, 3, 500)),
    np.full(50, 3.5), np.repeat([0.0, 1.0], 40), np.array([2.0, 3.0, 3.0, 2.0]),
    np.random.default_rng(0).poisson(3, 500).astype(float),
    np.random.default_rng(0).standard_t(1, 2000), np.random.default_rng(0).pareto(0.7, 2000),
    np.r_[np.random.default_rng(0).normal(size=300), 1e6],
    np.arange(0.0, 20_000.0, 7.0), np.arange(-12_000.0, 12_000.0), np.array([-99.0]) + np.arange(300.0),
    -1e8 + np.random.default_rng(0).normal(size=60), 1e7 + np.random.default_rng(0).normal(size=60),
    np.array([5.0]), np.array([9999.0, 9500.0, 10200.0]), np.array([999.0]),
])  # fmt: skip
def test_values_that_are_none(values):
    assert not refused(a=values, b=1.5 * values)


def test_places_and_covariates():
    lon, lat = np.repeat([10.1, 10.2, 10.3, 10.4, 10.5, -155.0], 40), np.repeat([-10.0, -99.0], 120)
    frame = table().assign(lon=lon, lat=lat, dem=np.repeat([100.0, 103.0, 104.0, 105.0, 101.0, 2900.0], 40))
    places = {"lon": "lon", "lat": "lat", "covariates": ["dem"]}
    with pytest.raises(ValueError, match=r"^column 'lat' holds -99 in 120 of 240 rows"):
        door(frame, **places)
    assert (
        door(frame.assign(lat=50.0), **places).n_obs == 240
    )  # a far island and a mountain, in all rows of one station each
    assert door(frame.assign(lat=50.0, lon=np.r_[np.full(40, -99.0), np.tile(lon[:200:40], 40)]), **places).n_obs == 240
    with pytest.raises(ValueError, match=r"^column 'dem' holds -9999 in 24 of 240 rows"):
        door(spoilt(["dem"], -9999.0, frame=frame.assign(lat=50.0)), **places)
    with pytest.raises(ValueError, match=r"^column 'lon' holds -9999 in 24 of 240 rows"):
        door(spoilt(["lon"], -9999.0, frame=frame.assign(lat=50.0)), **places)


# Said by the user ----------------------------------------------------------------------------------------------------


def test_true_values_are_kept_where_the_user_says_so():
    frame = spoilt(["rf", "svr"], -9999.0)
    for true in ("none", (), [], {"rf": "none", "svr": ()}, {"*": "none"}):
        kept = door(frame, missing=true)
        assert (kept.prediction[::10, :2] == -9999.0).all()
        assert kept.codes == {}
    with pytest.raises(ValueError, match="column 'svr' holds"):
        door(frame, missing={"rf": "none"})
    mixed = door(frame, missing={"rf": "none", "*": -9999})
    assert (mixed.prediction[::10, 0] == -9999.0).all()
    assert mixed.codes == {"svr": {-9999.0: 24}}


def test_codes_that_are_not_all_named_are_refused_still():
    frame = spoilt(["svr"], -999.0, every=9, frame=spoilt(["rf"], -9999.0))
    with pytest.raises(ValueError, match="'svr' holds -999 in 27 of 240"):
        door(frame, missing=-9999)
    assert door(frame, missing=(-9999, -999)).codes == {"rf": {-9999.0: 24}, "svr": {-999.0: 27}}


def test_what_missing_may_not_be():
    with pytest.raises(TypeError, match="missing is the text '-9999'; wanted a number"):
        door(table(), missing="-9999")
    with pytest.raises(TypeError, match=r"missing has True; wanted numbers"):
        door(table(), missing=[True])
    with pytest.raises(KeyError, match=r"no column 'rff' .* did you mean 'rf'"):
        door(table(), missing={"rff": -9999})


def test_a_value_near_a_code_that_was_named_is_kept():
    values = {"a": np.array([1.0, 1.0 + 1e-6, 1.0 - 1e-6, 2.0])}
    assert clear_codes(values, 1.0) == {"a": {1.0: 1}}
    assert np.isnan(values["a"]).tolist() == [True, False, False, False]


# Properties ----------------------------------------------------------------------------------------------------------

ordinary = hnp.arrays(np.float64, st.integers(20, 60), elements=st.floats(-90, 90), unique=True)


@settings(max_examples=150, deadline=None)
@given(ordinary, st.sampled_from([code for code in KNOWN if abs(code) > 500]), st.integers(1, 15), st.floats(1e-3, 1))
def test_a_known_code_is_found_whatever_the_rest_is(values, code, n, unit):
    values = values * unit
    assert not refused(a=values)
    values[:n] = code
    said = refused(a=values)
    assert f" in {n} of {len(values)} rows" in said
    columns = {"a": values.copy()}
    clear_codes(columns, code)
    assert np.isnan(columns["a"]).sum() == n
    assert not refused(**columns)


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 80), elements=st.floats(0, 300).map(lambda x: round(x, 1))), st.data())
def test_ordinary_values_are_none_in_any_order_and_with_gaps(values, data):
    """Rounded positive numbers up to 300, many of them equal: nothing is ten times their range away from the others."""
    values[data.draw(hnp.arrays(bool, len(values)))] = np.nan
    said = refused(a=values)
    rest = np.unique(values[~np.isnan(values)])
    if said:  # only what stands far off, repeated: told by definition
        kept = (rest[low : len(rest) - high] for low in range(3) for high in range(3))
        assert max(np.diff(rest)) > 10 * min(np.ptp(part) for part in kept if len(part) > 4)
    assert refused(a=values[::-1].copy()) == said


# No false alarm ------------------------------------------------------------------------------------------------------


def quiet(frame):
    frame = frame.rename(columns=str)
    columns = {str(name): frame[name].to_numpy(float, na_value=np.nan) for name in frame.select_dtypes("number")}
    for kind in ("measured", "covariate"):
        check_codes(columns, dict.fromkeys(columns, kind))
    for rows in (5, 30, 300):
        some = frame.sample(min(rows, len(frame)), random_state=rows)
        check_codes(
            {name: some[name].to_numpy(float, na_value=np.nan) for name in columns}, dict.fromkeys(columns, "measured")
        )


@pytest.mark.parametrize("place", [
    ("oznet", "oznet_daily.csv.gz"), ("narmada", "nrb_long.csv.gz"), ("atlanta", "atlanta_daily.csv.gz"),
    ("meps_precipitation", "precipitation_6h.csv.gz"), ("modelavg", "discharge_data.txt"),
])  # fmt: skip
def test_no_alarm_on_real_data(place):
    path = shared_data(*place)
    quiet(pd.read_csv(path) if ".csv" in place[1] else pd.read_csv(path, sep=r"\s+", header=None))


def test_no_alarm_on_the_data_of_scikit_learn():
    quiet(datasets.load_diabetes(as_frame=True).frame)
    quiet(datasets.load_diabetes(as_frame=True, scaled=False).frame)
    for make in (datasets.make_regression, datasets.make_friedman1, datasets.make_friedman2, datasets.make_friedman3):
        for n in (20, 500):
            X, y = make(n, random_state=n)
            quiet(pd.DataFrame(X).assign(y=y))


def test_the_door_is_not_slower():
    """Eight columns of 100,000 rows: a few milliseconds, and room for a machine that is busy."""
    values = np.random.default_rng(0).lognormal(3, 2, (8, 100_000))
    columns = {f"m{i}": column for i, column in enumerate(values)}
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        check_codes(*measured(**columns))
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.1
