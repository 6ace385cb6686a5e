"""Seams of maps: a number that sees them, and members by region that blend at borders leave none."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.linear_model import LinearRegression

import bayesens as be


def test_jumps_are_those_by_hand_and_missing_cells_are_left_out():
    values = xr.DataArray([[1.0, 2.0, 5.0], [1.5, np.nan, 5.5]], dims=("lat", "lon"))
    label = xr.DataArray([[0, 0, 1], [0, 0, 1]], dims=("lat", "lon"))
    found = be.spatial.border_jumps(values, label)
    assert found.loc["across", ["pairs", "mean_jump"]].tolist() == [1, 3.0]
    assert found.loc["inside", "pairs"] == 3
    assert found.loc["inside", "mean_jump"] == pytest.approx((1.0 + 0.5 + 0.5) / 3)
    days = xr.concat([values, values + 1.0], "time")
    np.testing.assert_allclose(be.spatial.border_jumps(days, label)["mean_jump"], found["mean_jump"])


def test_what_has_no_border_is_refused():
    with pytest.raises(ValueError, match="0 of 4 pairs of neighbours have different labels"):
        be.spatial.border_jumps(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="wanted labels of the same cells"):
        be.spatial.border_jumps(np.zeros((2, 2)), xr.DataArray(np.zeros((2, 3)), dims=("y", "x")))


@pytest.mark.filterwarnings("ignore::UserWarning")  # the grid is of no station that the fit knows
def test_members_by_region_leave_a_seam_and_blended_ones_do_not():
    """Two regions with other relations of moisture to rain: a map takes the border as a step, or fades over 60 km."""
    rng = np.random.default_rng(4)
    site = np.repeat(np.arange(24), 25)
    lon, lat = 140.0 + 4.0 * rng.random(24), -35.0 + 2.0 * rng.random(24)
    west, rain = lon[site] < 142.0, rng.gamma(2.0, 1.0, 600)
    y = np.where(west, 0.10 + 0.03 * rain, 0.22 + 0.01 * rain) + rng.normal(0.0, 0.01, 600)
    frame = pd.DataFrame({"rain": rain, "station": [f"s{k}" for k in site], "lon": lon[site], "lat": lat[site],
                          "region": np.where(west, "west", "east")})  # fmt: skip
    x, y_ = np.linspace(140.2, 143.8, 37), np.linspace(-34.8, -33.2, 9)
    smooth = 2.0 + np.sin(x)[None] * np.cos(3.0 * y_)[:, None]
    grid = xr.Dataset({"rain": (("lat", "lon"), smooth)}, {"lat": y_, "lon": x})
    label = xr.DataArray(
        np.broadcast_to(np.where(x < 142.0, "west", "east"), (9, 37)), dims=("lat", "lon"), coords=grid.coords
    )
    ratio = {}
    for blend in (None, 60.0):
        asked = {"by": "region", "blend": blend, "min_rows": 20, "min_sites": 2}
        members = be.Members({"mlr": LinearRegression()}, frame, y, site="station", lon="lon", lat="lat", **asked)
        fit = be.fit(be.SingleMember(site=False), be.cross_fit(members, folds=4, progressbar=False), method="em")
        found = be.map(members.fit(progressbar=False), fit, grid, progressbar=False, region=None if blend else label)
        ratio[blend] = be.spatial.border_jumps(found["mean"], label).loc["across", "ratio"]
    assert ratio[None] > 3.0
    assert ratio[60.0] < 1.5
