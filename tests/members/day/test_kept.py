"""Neighbours that a fit keeps: told more observations, against one normal of all of them, and what is refused."""

import numpy as np
import pandas as pd
import pytest

import bayesens as be
from bayesens.ensemble.places import RowPlaces
from bayesens.members.day.beside import with_neighbours_of_its_own
from bayesens.members.day.kept import keep_in, kept_in, neighbours_at, places_in, with_observations

ROLES = {"site": "site", "time": "day"}


def table(seed=1, stations=5, days=6):
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0.0, 50.0, (stations, 2))
    y = rng.normal(size=days)[:, None] + 0.5 * rng.normal(size=stations) + 0.3 * rng.normal(size=(days, stations))
    frame = pd.DataFrame({
        "site": np.tile([f"s{k}" for k in range(stations)], days), "day": np.repeat(np.arange(days) + 1, stations),
        "x": np.tile(xy[:, 0], days), "y": np.tile(xy[:, 1], days), "obs": y.ravel(),
    })  # fmt: skip
    return frame.assign(rf=frame["obs"] + rng.normal(size=len(frame)))


def rows(frame, **roles):
    return be.Ensemble.from_frame(frame, members=["rf"], covariates=["x", "y"], **ROLES | roles)


@pytest.fixture(scope="module")
def fitted():
    return with_neighbours_of_its_own(rows(table(), observation="obs"), be.Neighbours(transform="identity"))[0]


def more_of(frame):
    places = RowPlaces(("x", "y"), (frame["x"].to_numpy(), frame["y"].to_numpy()))
    site, day = frame["site"].to_numpy(dtype=np.str_), frame["day"].to_numpy()
    return {"y": frame["obs"].to_numpy(), "site": site, "time": day, "places": places}


def of_one_normal(fitted, frame, x, y, day):
    """Mean and standard deviation at a place on a day, given all observations of a table at once."""
    v, unit, center = fitted.variance, fitted.model.unit, fitted.model.center
    at = np.column_stack([np.append(frame["x"], x), np.append(frame["y"], y)])
    when, who = np.append(frame["day"], day), np.append(frame["site"].to_numpy(), "target")
    u = np.sqrt(((at[:, None] - at) ** 2).sum(axis=2))

    def matern(name):
        z = np.sqrt(3.0) * u / fitted.reach[name]
        return (1.0 + z) * np.exp(-z)

    same, own = when[:, None] == when, who[:, None] == who
    k = unit**2 + v["place"] * matern("place") + v["nugget"] * own
    k = k + same * (v["day"] + v["field"] * matern("field") + v["own"] * own)
    c, inner = k[-1, :-1], k[:-1, :-1]
    mean = center + c @ np.linalg.solve(inner, frame["obs"].to_numpy() - center)
    return mean, np.sqrt(k[-1, -1] - c @ np.linalg.solve(inner, c))


def test_later_days_and_replaced_values_are_those_of_one_normal(fitted):
    before, later = table(), table(seed=2, stations=5, days=2)
    later[["x", "y"]] = before[["x", "y"]].head(10).to_numpy()
    later["day"] += 5  # day 6 again, with other values, and a new one
    later = pd.concat([later, later.tail(1).assign(site="new", x=70.0, y=10.0, obs=2.0)])  # and a station more
    told = with_observations(fitted, **more_of(later))
    all_of = pd.concat([before[before["day"] < 6], later])
    for day in (2, 6, 7):
        new = pd.DataFrame({"site": ["t"], "day": [day], "x": [20.0], "y": [30.0], "rf": [0.0]})
        said = neighbours_at(told, rows(new), places_in(told, rows(new)))
        mean, sd = of_one_normal(fitted, all_of, 20.0, 30.0, day)
        assert said.members == ("rf", "neighbours")
        np.testing.assert_allclose(said.prediction[0, 1], mean, rtol=1e-8)
        np.testing.assert_allclose(said.dataset["covariate"].values[0, 2], sd, rtol=1e-8)


def test_a_fit_keeps_them_in_its_file(fitted, tmp_path):
    tree = be.fit(be.SingleMember(bias="none", member="rf"), rows(table(), observation="obs"), method="em")
    assert kept_in(tree) is None
    be.write_fit(keep_in(tree, fitted), tmp_path / "fit.nc")
    again = kept_in(be.read_fit(tmp_path / "fit.nc"))
    assert again.variance == pytest.approx(fitted.variance)
    np.testing.assert_array_equal(again.table.y, fitted.table.y)
    assert again.table.site.tolist() == fitted.table.site.tolist()


@pytest.mark.parametrize(("change", "words"), [
    ({"obs": np.nan}, "none of 5 rows has an observation and a time; wanted one at least"),
    ({"day": np.datetime64("2020-01-01", "ns")}, "the times of the observations are dates, and those of the fit numbers"),
    ({"x": 500.0}, "sites move"),
])  # fmt: skip
def test_observations_that_do_not_go_with_the_fit_are_refused(fitted, change, words):
    with pytest.raises(ValueError, match=words):
        with_observations(fitted, **more_of(table().tail(5).assign(**change)))


def test_a_trend_is_refused():
    model = be.Neighbours(transform="identity", trend=("x",))
    fitted = with_neighbours_of_its_own(rows(table(), observation="obs"), model)[0]
    with pytest.raises(
        ValueError, match="have a trend by 'x', which observations of new stations lack; fit them again"
    ):
        with_observations(fitted, **more_of(table()))


def test_members_of_neighbours_are_compared_by_training_them_anew():
    made = be.neighbours(rows(table(), observation="obs"), be.Neighbours(transform="identity"))
    with pytest.raises(
        ValueError, match=r"those among them that a fold would hold out; wanted be.Members.* neighbours=True"
    ):
        be.compare([be.BMA()], made, estimand="site")
