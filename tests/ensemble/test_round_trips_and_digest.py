"""Any table comes out of an ensemble as it went in, and its digest tells every change of values and none of layout."""

import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
from door_tables import ROLES, door, label, quiet, table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bayesens.ensemble.ensemble import Ensemble

finite = st.floats(-1e6, 1e6, allow_nan=False)


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
