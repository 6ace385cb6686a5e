"""Members with a fit of each region: thin regions take the pooled fit, and blended weights add up to one and have no seam."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from member_tables import QUIET, members, table
from sklearn.linear_model import LinearRegression

from bayesens.members.cross_fitting import cross_fit
from bayesens.members.regions import Regions


def test_each_region_has_its_own_fit_and_thin_ones_take_the_pooled_fit():
    frame = table(n_sites=12)
    frame["region"] = np.repeat(["west", "east", "thin"], [60, 60, 24])
    made = members(frame, by="region", min_rows=30, min_sites=3)
    with pytest.warns(UserWarning, match="1 of 3 regions have fewer than 30 rows or 3 stations to learn from: 'thin'"):
        fitted = made.fit(**QUIET)
    X = frame[["rain", "heat"]]
    asked = pd.Series(["west", "east", "thin", "unknown"] * 36)
    found = fitted.predict(X, region=asked.to_numpy())["mlr"]
    for name in ("west", "east", "pooled"):
        train = frame["region"] == name if name != "pooled" else frame["region"].notna()
        wanted = LinearRegression().fit(X[train], frame.loc[train, "sm"]).predict(X)
        rows = (asked == name) if name != "pooled" else asked.isin(["thin", "unknown"])
        np.testing.assert_allclose(found[rows], wanted[rows], rtol=1e-9)
    with pytest.warns(UserWarning, match="in some fold"):
        ensemble = cross_fit(made, folds=3, **QUIET)
    fold = ensemble.dataset["fold"].values
    test, west = fold == 1, (frame["region"] == "west").to_numpy()
    wanted = LinearRegression().fit(X[~test & west], frame.loc[~test & west, "sm"]).predict(X[test & west])
    np.testing.assert_allclose(ensemble.prediction[test & west, 0], wanted, rtol=1e-9)
    with pytest.raises(ValueError, match="have fits of 2 regions"):
        fitted.predict(X)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.floats(1.0, 200.0))
def test_blended_weights_sum_to_one_and_have_no_seam(seed, length):
    """Along any line the weights move by at most a few steps over the blending length."""
    rng = np.random.default_rng(seed)
    n = 12
    stations = pd.DataFrame(
        {
            "site": np.arange(n),
            "region": rng.choice(list("abc"), n),
            "lon": rng.uniform(100, 104, n),
            "lat": rng.uniform(38, 42, n),
        }
    )
    regions = Regions.of_training(stations, min_rows=1, min_sites=1, length=length)
    lon, lat = (np.linspace(*rng.uniform(low, low + 4, 2), 2000) for low in (100, 38))
    weight = regions.weight(2000, lon=lon, lat=lat)
    np.testing.assert_allclose(weight.sum(axis=1), 1, atol=1e-12)
    assert (weight >= 0).all()
    step = np.hypot(np.diff(lon), np.diff(lat)).max() * 112  # km, more than a degree of either
    # Each share changes by at most 2 step / length of itself, the floor included; a share of shares by four times that.
    assert np.abs(np.diff(weight, axis=0)).max() <= 8.1 * step / length


def test_at_a_station_its_region_wins_and_halfway_both_count():
    stations = pd.DataFrame({"site": ["a", "b"], "region": ["west", "east"], "lon": [0.0, 1.0], "lat": [0.0, 0.0]})
    regions = Regions.of_training(stations, min_rows=1, min_sites=1, length=5.0)
    weight = regions.weight(4, lon=[0.0, 0.5, 1.0, np.nan], lat=[0.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(weight, [[0, 1, 0], [0.5, 0.5, 0], [1, 0, 0], [0, 0, 1]], atol=1e-9)
    # Great circle against the formula: a degree of the equator is 2 pi R / 360.
    near = Regions.of_training(stations, min_rows=1, min_sites=1, length=50.0).weight(1, lon=[0.4], lat=[0.0])
    share = np.exp(-0.2 * 2 * np.pi * 6371.0088 / 360 / 50) - 1e-3
    np.testing.assert_allclose(near[0, :2], [share / (share + 1 - 1e-3), (1 - 1e-3) / (share + 1 - 1e-3)], rtol=1e-9)


def test_blended_predictions_are_the_weighted_fits_without_seams():
    frame = table(n_sites=10, n_days=20)
    X = frame[["rain", "heat"]]
    made = members(frame, by="region", lon="lon", lat="lat", blend=10.0, min_rows=20, min_sites=2)
    fitted = made.fit(**QUIET)
    line = pd.DataFrame({"rain": 1.0, "heat": 0.0}, index=np.arange(2000))
    lon = np.linspace(101.0, 103.0, 2000)
    found = fitted.predict(line, lon=lon, lat=np.full(2000, 40.0))["mlr"].to_numpy()
    ends = [LinearRegression().fit(X[frame["region"] == name], frame.loc[frame["region"] == name, "sm"]).predict(line[:1])[0]
            for name in ("west", "east")]  # fmt: skip
    np.testing.assert_allclose(found[[0, -1]], ends, rtol=1e-6)
    assert np.abs(np.diff(found)).max() < 0.01 * abs(ends[1] - ends[0])  # 2,000 steps of 85 m, 10 km to blend over
    assert np.isfinite(cross_fit(made, folds=3, **QUIET).prediction).all()
    with pytest.raises(ValueError, match=r"wanted the places of the rows: lon=\.\.\., lat=\.\.\."):
        fitted.predict(line)


def test_memberships_blend_regions():
    frame = table()
    soft = pd.DataFrame({"west": np.linspace(1, 0, 108), "east": np.linspace(0, 1, 108)})
    fitted = members(frame, by=soft, min_rows=10).fit(**QUIET)
    X = frame[["rain", "heat"]]
    own = [fitted.predict(X, membership=soft * 0 + row)["mlr"] for row in ([1.0, 0.0], [0.0, 1.0])]
    blended = fitted.predict(X, membership=soft)["mlr"]
    np.testing.assert_allclose(blended, soft["west"] * own[0] + soft["east"] * own[1], rtol=1e-9)
    with pytest.raises(ValueError, match="by is no membership in 108 of 108 rows"):
        members(frame, by=soft * 2)
