"""What changes nothing that neighbours say: order, names, units and empty rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from day_tables import said, table
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = st.integers(0, 1000)


@pytest.fixture(autouse=True, scope="module")
def compiled():
    """PyMC's compiler raises the limit of recursion at its first use, which hypothesis watches."""
    said(table())


FEW = settings(max_examples=6, deadline=None)


@FEW
@given(SEEDS)
def test_order_of_rows_and_rows_without_observation_change_nothing(seed):
    frame = table(seed)
    order = np.random.default_rng(seed).permutation(len(frame))
    np.testing.assert_allclose(said(frame.iloc[order]), said(frame)[order], rtol=1e-6)
    more = table(seed + 1).assign(obs=np.nan, time=lambda t: t["time"] + pd.Timedelta("7D"))
    more["site"] = "new" + more["site"]
    both = pd.concat([frame, more], ignore_index=True)
    np.testing.assert_allclose(said(both)[: len(frame)], said(frame), rtol=1e-6)


@FEW
@given(SEEDS)
def test_names_of_stations_change_nothing(seed):
    frame = table(seed)
    names = dict(zip([f"s{k}" for k in range(5)], "dbeca", strict=True))
    np.testing.assert_allclose(said(frame.assign(site=frame["site"].map(names))), said(frame), rtol=1e-6, atol=1e-6)


@FEW
@given(SEEDS, st.floats(-1e3, 1e3), st.floats(0.01, 1e3))
def test_origin_and_unit_of_coordinates_change_nothing(seed, shift, unit):
    frame = table(seed)
    own, moved = said(frame), said(frame.assign(x=(frame["x"] + shift) * unit, y=(frame["y"] - shift) * unit))
    np.testing.assert_allclose(moved[:, :2], own[:, :2], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moved[:, 2], own[:, 2] * unit, rtol=1e-9)


@FEW
@given(SEEDS, st.sampled_from(["s", "ms", "us", "ns"]))
def test_unit_of_time_changes_nothing(seed, unit):
    frame = table(seed)
    np.testing.assert_array_equal(said(frame.assign(time=frame["time"].astype(f"datetime64[{unit}]"))), said(frame))
