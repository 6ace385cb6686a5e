"""Fewer stations: who learns from which, against the chain by hand, and intervals and curves against their formulas."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.optimize import curve_fit
from scipy.stats import t as student_t
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor

import bayesens as be
from bayesens.ensemble.files import write_table
from bayesens.ensemble.sphere import great_circle
from bayesens.sensitivity.station_curves import power_law, reduction_table, reduction_words
from bayesens.sensitivity.stations import fewer_stations
from simulated import gappy_region

COLUMNS = {"members": ["rf", "mlr"], "observation": "sm", "site": "station", "group": "network", "time": "date",
           "lon": "lon", "lat": "lat", "units": "m3 m-3"}  # fmt: skip
MODELS = {"BMA": be.BMA(sigma="shared"), "Climatology": be.Climatology()}
QUICK = {"method": "em", "random_seed": 1, "progressbar": False}


@pytest.fixture(scope="module")
def frame():
    return gappy_region(20, 3, 12)


@pytest.fixture(scope="module")
def ensemble(frame):
    return be.Ensemble.from_frame(frame, **COLUMNS)


def trained(frame, y=None):
    X = frame.assign(wet=frame["truth"].round(1))[["wet"]]
    place = {"site": frame["station"], "group": frame["network"], "time": frame["date"]}
    return be.Members(
        {"mlr": LinearRegression(), "near": KNeighborsRegressor(1)}, X, frame["sm"] if y is None else y, **place
    )


@pytest.fixture(scope="module")
def found(ensemble):
    return fewer_stations(MODELS, ensemble, replicates=3, **QUICK)


# ------------------------------------------------------------------------------------------------- which stations go
def test_removals_are_nested_and_every_group_loses_its_share(frame, found):
    kept, validation = found["kept"].values, set(found["station"].values.tolist())
    training = found["train_station"].values
    assert kept.shape == (5, 3, 15)
    assert validation.isdisjoint(training.tolist())
    assert validation | set(training.tolist()) == set(frame["station"])
    assert not (kept[1:] & ~kept[:-1]).any()  # what a larger share keeps, a smaller one keeps
    assert found["n_stations"].values.T.tolist() == [[15, 13, 12, 10, 9]] * 3
    assert len({kept[2, r].tobytes() for r in range(3)}) == 3
    group = frame.drop_duplicates("station").set_index("station")["network"][training].to_numpy()
    for name in np.unique(group):
        gone = (~kept[:, :, group == name]).sum(axis=2)
        expected = (~kept).sum(axis=2) * np.mean(group == name)
        assert np.abs(gone - expected).max() <= 1.5
    rows = frame[frame["sm"].notna()].groupby("station").size()
    assert found["n_rows"].sel(share=0.2, replicate=1) == rows[training[kept[2, 1]]].sum()


def test_the_same_seed_gives_the_same_and_another_one_other_stations(ensemble, found):
    again = fewer_stations(MODELS, ensemble, replicates=3, **QUICK)
    xr.testing.assert_identical(again, found)
    other = fewer_stations(
        {"Climatology": be.Climatology()}, ensemble, shares=[0.3], replicates=1, **(QUICK | {"random_seed": 2})
    )
    assert set(other["station"].values) != set(found["station"].values)


def test_stations_to_score_at_can_be_named(ensemble):
    names = ensemble.levels("site")[[3, 8]].tolist()
    found = fewer_stations({"C": be.Climatology()}, ensemble, shares=[0.5], replicates=1, validation=names, **QUICK)
    assert found["station"].values.tolist() == names
    assert found.sizes["train_station"] == 18


# ---------------------------------------------------------------------------------------------------------- one cell
def test_a_cell_of_trained_members_equals_the_chain_by_hand(frame):
    members = trained(frame)
    found = fewer_stations(MODELS, members, shares=[0.2, 0.4], replicates=2, inner_folds=3, **QUICK)
    train = frame["station"].isin(found["train_station"].values[found["kept"].sel(share=0.4, replicate=1)]).to_numpy()
    test = (frame["station"].isin(found["station"].values) & frame["sm"].notna()).to_numpy()
    within, apart = members.split(train, test, folds=3, random_seed=1, progressbar=False)
    for name, model in MODELS.items():
        scores = be.score(be.fit(model, within, method="em", random_seed=1), apart, levels=(0.9,))
        cell = found.sel(model=name, share=0.4, replicate=1)
        assert float(cell["crps"]) == pytest.approx(float(scores["crps"].mean()), rel=1e-9)
        assert float(cell["rmse"]) == pytest.approx(float(np.sqrt((scores["error"] ** 2).mean())), rel=1e-9)
        assert float(cell["coverage90"]) == pytest.approx(float(scores["covered"].mean()), rel=1e-9)
        by_station = scores["crps"].groupby("site").mean()
        np.testing.assert_allclose(cell["station_crps"], by_station.sel(site=cell["station"].values), rtol=1e-9)


@pytest.mark.parametrize("kind", ["table", "trained"])
def test_what_is_observed_at_a_validation_station_changes_nothing_elsewhere(frame, found, kind):
    """Nothing of a validation station reaches members, weights or scales: other scores stay as they are, to the bit."""
    station = found["station"].values[0]
    changed = np.where(frame["station"] == station, 1.0 - frame["sm"], frame["sm"])
    made = {
        "table": lambda y: be.Ensemble.from_frame(frame.assign(sm=y), **COLUMNS),
        "trained": lambda y: trained(frame, y),
    }[kind]
    before, after = (fewer_stations(MODELS, made(y), shares=[0.4], replicates=1, inner_folds=3, **QUICK)["station_crps"]
                     for y in (frame["sm"].to_numpy(), changed))  # fmt: skip
    others = before["station"].values != station
    np.testing.assert_array_equal(before.isel(station=others), after.isel(station=others))
    assert (before.isel(station=~others) != after.isel(station=~others)).all()


@pytest.mark.slow  # processes start slowly
def test_processes_give_the_same(ensemble, found):
    shared = fewer_stations(MODELS, ensemble, replicates=3, workers=2, **QUICK)
    xr.testing.assert_identical(shared, found)


def test_a_run_goes_on_from_what_is_kept(frame, tmp_path, monkeypatch):
    from bayesens.sensitivity import stations as module

    options = QUICK | {"shares": [0.2, 0.4], "replicates": 2, "inner_folds": 3, "cache": tmp_path}
    members, fitted, fit = trained(frame), [], module.fit

    def counted(model, *args, **kwargs):
        fitted.append(type(model).__name__)
        if len(fitted) == 4:
            raise KeyboardInterrupt
        return fit(model, *args, **kwargs)

    monkeypatch.setattr(module, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        fewer_stations(MODELS, members, **options)
    assert len(list(tmp_path.iterdir())) == 3
    resumed = fewer_stations(MODELS, members, **options)
    assert len(fitted) == 4 + 7
    monkeypatch.setattr(be.Members, "split", None)  # nothing is trained where all is kept
    xr.testing.assert_identical(fewer_stations(MODELS, members, **options), resumed)
    assert len(fitted) == 4 + 7
    fewer_stations({"BMA": be.BMA()}, be.Ensemble.from_frame(frame, **COLUMNS), **options)
    assert len(fitted) == 4 + 7 + 5  # other members, other options


def test_a_model_that_fails_is_reported_and_the_others_go_on(ensemble):
    models = MODELS | {"Best": be.SingleMember(member="cci")}
    with pytest.warns(UserWarning, match="Best failed in 3 of 3 fits, which are missing; nothing removed: .*cci"):
        found = fewer_stations(models, ensemble, shares=[0.4], replicates=2, **QUICK)
    assert found["crps"].sel(model="Best").isnull().all()
    assert found["crps"].sel(model=["BMA", "Climatology"]).notnull().all()
    assert list(json.loads(found.attrs["failed"])) == ["Best"]
    table = reduction_table(found, replicates=100).set_index(["model", "removed"])
    assert table.loc["Best", "removals"].tolist() == [0, 0]
    assert table.loc["Best", "score"].isna().all()
    assert "CRPS of Best at 5 validation stations is not known" in reduction_words(found, replicates=100)
    with (
        pytest.raises(ValueError, match="no model could be fitted; Best: nothing removed: "),
        pytest.warns(UserWarning, match="Best failed"),
    ):
        fewer_stations({"Best": be.SingleMember(member="cci")}, ensemble, shares=[0.4], replicates=2, **QUICK)


# ------------------------------------------------------------------------------------------------------------ groups
def test_groups_go_one_at_a_time_and_their_own_stations_are_looked_at(frame, ensemble):
    found = fewer_stations(MODELS, ensemble, by="group", validation=0.4, **QUICK)
    names = sorted(frame["network"].unique())
    assert found["removed"].values.tolist() == ["", *names]
    group = frame.drop_duplicates("station").set_index("station")["network"]
    for i, name in enumerate(names, start=1):
        np.testing.assert_array_equal(
            found["kept"].values[i, 0], group[found["train_station"].values].to_numpy() != name
        )
    table = reduction_table(found, replicates=200, random_seed=1)
    assert table.groupby(["model", "scored"]).size().loc["BMA"].to_dict() == {"all": 4, "others": 6, "own": 6}
    one = table[(table["model"] == "BMA") & (table["removed"] == names[1])].set_index("scored")
    own = (group[found["station"].values] == names[1]).to_numpy()
    part, rows = found["station_crps"].sel(model="BMA", replicate=0).values, found["rows"].values
    for scored, inside in {"all": np.full(len(own), True), "own": own, "others": ~own}.items():
        mean = part[:, inside] @ rows[inside] / rows[inside].sum()
        assert one.loc[scored, "change"] == pytest.approx(100 * (mean[2] / mean[0] - 1))
        assert one.loc[scored, "validation"] == inside.sum()
    assert f"without group '{names[1]}'" in reduction_words(found, replicates=100)
    with pytest.raises(ValueError, match="no curve to fit; wanted the result of by='station'"):
        power_law(found)


# ------------------------------------------------------------------------------------------------- tables and intervals
def made(curve, n=(40, 36, 32, 28, 24), stations=8, removals=6, station_sd=0.0, noise=0.0, seed=1, rows=None):
    """A result as `fewer_stations` gives it, with scores curve(n) times factors of stations, plus noise of cells."""
    rng = np.random.default_rng(seed)
    n = np.asarray(n)
    part = np.broadcast_to(curve(n.astype(float))[:, None, None], (len(n), removals, stations)).copy()
    part[1:] += noise * rng.normal(size=(len(n) - 1, removals, stations))
    part *= np.exp(station_sd * rng.normal(size=stations))
    over, share = ("model", "share", "replicate"), 1 - n / n[0]
    rows = np.full(stations, 10) if rows is None else rows
    return xr.Dataset(
        {"station_crps": ((*over, "station"), part[None]), "station_square": ((*over, "station"), part[None] ** 2),
         "station_coverage90": ((*over, "station"), part[None]), "rows": ("station", rows),
         "n_stations": (over[1:], np.repeat(n[:, None], removals, axis=1))},
        {"model": ["BMA"], "share": share, "replicate": np.arange(removals), "station": [f"s{i}" for i in range(stations)]},
        {"by": "station", "metric": "crps", "units": ""},
    )  # fmt: skip


def test_t_intervals_leave_out_one_station_and_one_removal_at_a_time():
    rows = np.array([3, 10, 5, 8, 9, 2, 7])
    result = made(lambda n: 1 + 4 / n, stations=7, removals=6, station_sd=0.3, noise=0.05, rows=rows)
    part = result["station_crps"].values[0]

    def change(stations, removals):
        mean = part[:, removals][:, :, stations] @ rows[stations] / rows[stations].sum()
        return 100 * (mean.mean(axis=1)[3] / mean.mean(axis=1)[0] - 1)

    every, each = np.arange(7), np.arange(6)
    whole = change(every, each)
    variance = 6 / 7 * sum((change(np.delete(every, s), each) - whole) ** 2 for s in range(7))
    variance += 5 / 6 * sum((change(every, np.delete(each, r)) - whole) ** 2 for r in range(6))
    half = student_t.ppf(0.95, 5) * np.sqrt(variance)
    line = reduction_table(result, replicates=10).iloc[3]
    assert [line["change"], line["low"], line["high"]] == pytest.approx([whole, whole - half, whole + half])
    assert line["interval"] == "t with 5 degrees of freedom, 7 validation stations and 6 removals"
    one = [change(every, [r]) for r in range(6)]
    assert [line["removal_low"], line["removal_high"]] == pytest.approx(np.quantile(one, [0.05, 0.95]).tolist())


def test_of_many_stations_and_removals_the_interval_has_the_variance_of_both():
    """Change = station effect + removal effect, both normal: the bootstrap's half width is near 1.645 times the sd of the mean.

    Pigeonhole replicates also carry the interaction, which is zero here. The relative error of a half width from 2,000
    replicates is under 4 % (sd), so 20 % leaves more than 4 sd.
    """
    rng = np.random.default_rng(4)
    result = made(lambda n: np.ones(len(n)), stations=40, removals=30)
    effect = 0.05 * rng.normal(size=(40,)) + 0.05 * rng.normal(size=(30, 1))
    result["station_crps"].values[0, -1] += effect
    line = reduction_table(result, replicates=2000, random_seed=1).iloc[-1]
    sd = 100 * np.sqrt(effect.mean(axis=0).var() / 40 + effect.mean(axis=1).var() / 30)
    assert line["interval"] == "bootstrap over 40 validation stations and 30 removals"
    assert (line["high"] - line["low"]) / 2 == pytest.approx(1.645 * sd, rel=0.2)


def test_too_few_stations_or_removals_have_no_interval_and_the_coverage_is_a_plain_difference():
    few = reduction_table(made(lambda n: 1 + 4 / n, stations=4, removals=8)).iloc[-1]
    assert few[["low", "high"]].isna().all()
    assert few["interval"] == "none: 4 validation stations and 8 removals"
    assert not few["clear"]
    seldom = reduction_table(made(lambda n: 1 + 4 / n, stations=8, removals=3)).iloc[-1]
    assert seldom[["low", "removal_low"]].isna().all()
    cover = reduction_table(made(lambda n: 0.8 + 4 / n), metric="coverage90").iloc[-1]
    assert cover["unit"] == "absolute"
    assert cover["change"] == pytest.approx(4 / 24 - 4 / 40)
    rmse = reduction_table(made(lambda n: 1 + 4 / n), metric="rmse").iloc[-1]
    assert rmse["score"] == pytest.approx(1 + 4 / 24)


# --------------------------------------------------------------------------------------------------------- power law
@pytest.mark.parametrize(("a", "b", "c"), [(0.5, 3.0, 1.0), (0.02, 0.4, 0.5), (1.0, 40.0, 2.0)])
def test_a_power_law_is_recovered(a, b, c):
    law = power_law(made(lambda n: a + b * n**-c), replicates=20).iloc[0]
    assert law[["a", "b", "c"]].tolist() == pytest.approx([a, b, c], rel=1e-3)
    assert law["note"] == ""


def test_the_fit_is_that_of_least_squares_with_a_and_b_not_below_zero():
    """SciPy's bounded least squares of the mean scores, from several starts; noise makes a curve that nothing fits exactly."""
    n = np.array([60, 50, 40, 30, 20, 15, 10])
    for seed in range(4):
        result = made(lambda n: 0.6 + 4 / n, n=n, noise=0.02, seed=seed)
        mean = result["station_crps"].values[0].mean(axis=(1, 2))
        tried = [curve_fit(lambda x, a, b, c: a + b * x**-c, n / 60, mean, p0=(0.5 * mean[0], 0.5 * mean[0], c),
                           bounds=([0, 0, 0.01], [np.inf, np.inf, 10]))[0] for c in (0.3, 1.0, 3.0)]  # fmt: skip
        squares = [float(np.sum((mean - a - b * (n / 60) ** -c) ** 2)) for a, b, c in tried]
        law = power_law(result, replicates=20).iloc[0]
        mine = float(np.sum((mean - law["a"] - law["b"] * n ** -law["c"]) ** 2))
        assert mine <= min(squares) * (1 + 1e-6)
        a, b, c = tried[int(np.argmin(squares))]
        assert [law["a"], law["c"], law["b"]] == pytest.approx([a, c, b * 60**c], rel=2e-3)


def test_where_the_limit_would_be_below_zero_it_is_zero():
    law = power_law(made(lambda n: 3 - 0.5 * np.log(n)), replicates=20).iloc[0]  # ever less than any power with a limit
    assert law["a"] == law["a_low"] == 0


def test_intervals_of_a_power_law_hold_it_and_widen_with_noise():
    def width(noise):
        law = power_law(made(lambda n: 0.5 + 6 / n, n=(64, 32, 16, 8, 4), stations=25, removals=25, noise=noise), replicates=300,
                        random_seed=1).iloc[0]  # fmt: skip
        assert law["c_low"] <= 1.0 <= law["c_high"]
        assert law["a_low"] <= 0.5 <= law["a_high"]
        assert law["interval"] == "bootstrap over 25 validation stations and 25 removals"
        return law["c_high"] - law["c_low"]

    assert width(0.4) > 2 * width(0.1) > 0


def test_curves_that_nothing_fits_are_said_to_be_so():
    flat = power_law(made(lambda n: 1 + 0 * n, noise=0.02), replicates=50).iloc[0]
    assert flat[["a", "b", "c", "c_low"]].isna().all()
    assert flat["note"].startswith("no fit: the curve is flat, with 24 of 40 stations the score changes by -")
    rising = power_law(made(lambda n: 1 + 0.01 * n), replicates=50).iloc[0]
    assert np.isnan(rising["c"])
    assert rising["note"] == "no fit: the score does not fall with more stations"
    few = power_law(made(lambda n: 1 + 0.01 * n, stations=3), replicates=50).iloc[0]
    assert few["note"] == rising["note"]
    steep = power_law(made(lambda n: 1 + 1e20 * n**-20.0), replicates=50).iloc[0]
    assert "best exponent lies outside 0.01 to 10" in steep["note"]
    alone = power_law(made(lambda n: 1 + 4 / n, stations=3), replicates=50).iloc[0]
    assert np.isfinite(alone["c"])
    assert alone["note"] == "no interval: 3 validation stations and 6 removals"
    with pytest.raises(ValueError, match="of 3 numbers of stations, and the curve has 3 parameters"):
        power_law(made(lambda n: 1 + 4 / n, n=(40, 30, 20)))
    with pytest.raises(ValueError, match="a coverage does not fall"):
        power_law(made(lambda n: 1 + 4 / n), metric="coverage90")


# ------------------------------------------------------------------------------------------------------------- words
@pytest.mark.slow
def test_a_world_in_which_fewer_stations_hurt_shows_it():
    """The nearest station tells what a station has: the fewer, the farther it is. Climatology has next to nothing to lose.

    In 30 such worlds, 60 % removed changed the score of BMA by 64 to 189 %, every time clearly, and that of climatology by
    -3 to 9 %, less than a tenth as much in all but one.
    """
    rng = np.random.default_rng(7)
    x = rng.uniform(0, 10, size=80)
    frame = pd.DataFrame({"station": np.repeat([f"s{i:02d}" for i in range(80)], 4), "x": np.repeat(x, 4)})
    frame["sm"] = np.sin(3 * frame["x"]) + 0.02 * rng.normal(size=len(frame))
    members = be.Members({"near": KNeighborsRegressor(4)}, frame[["x"]], frame["sm"], site=frame["station"])
    found = fewer_stations({"BMA": be.BMA(), "Climatology": be.Climatology()}, members, shares=[0.3, 0.5, 0.6], replicates=10,
                           validation=0.4, **QUICK)  # fmt: skip
    table = reduction_table(found, replicates=200, random_seed=1).set_index(["model", "removed"])
    assert table.loc[("BMA", 0.6), "clear"]
    assert table.loc[("BMA", 0.6), "change"] > 40
    assert (np.diff(table.loc["BMA", "score"]) > 0).all()
    assert abs(table.loc[("Climatology", 0.6), "change"]) < table.loc[("BMA", 0.6), "change"] / 5
    words = reduction_words(found, replicates=200, random_seed=1)
    assert "Learnt from 19 in place of 48 stations, the CRPS of BMA at 32 validation stations changes by +" in words
    assert "the error of scale" in words
    assert "cannot learn more from stations of this kind" in words
    assert "without coordinates that is not known here" in words


def test_the_distance_to_the_nearest_station_left_is_said(frame, ensemble, found):
    place = frame.drop_duplicates("station").set_index("station")[["lon", "lat"]]
    kept = found["train_station"].values[found["kept"].sel(share=0.4, replicate=2)]
    distance = [
        min(great_circle(*place.loc[one], *place.loc[other]) for other in kept) for one in found["station"].values
    ]
    assert float(found["nearest"].sel(share=0.4, replicate=2)) == pytest.approx(np.median(distance))
    assert "have a station to learn from within" in reduction_words(found, replicates=50)


def test_results_can_be_written(found, tmp_path):
    write_table(found, tmp_path / "fewer.nc")
    again = xr.load_dataset(tmp_path / "fewer.nc", engine="h5netcdf")
    pd.testing.assert_frame_equal(
        reduction_table(again, replicates=50, random_seed=1), reduction_table(found, replicates=50, random_seed=1)
    )


# ---------------------------------------------------------------------------------------------------------- refusals
def test_refusals(frame, ensemble):
    def refused(match, error=ValueError, data=ensemble, **options):
        with pytest.raises(error, match=match):
            fewer_stations({"C": be.Climatology()}, data, **(QUICK | options))

    refused(r"the shares 0.1, 0.12 remove 2, 2 of 15 stations", shares=[0.1, 0.12])
    refused("wanted shares of the stations to remove inside", shares=[0.5, 1.0])
    refused("validation is 1.5; wanted a share", validation=1.5)
    refused("no station 's99' in the observed rows", KeyError, validation=["s99"])
    refused(r"wanted a share such as 0.25, or a list of labels: \['a'\]", TypeError, validation="a")
    refused("1 of 15 stations would be left to learn from; wanted at least 2", shares=[0.9])
    refused(r"wanted at least 12 \(inner_folds\)", data=trained(frame), inner_folds=12)
    refused("no metric 'csrp'", KeyError, metric="csrp")
    refused("no value of by 'network'", KeyError, by="network")
    refused("workers is the number of processes", workers=0)
    refused(
        "are cross-fitted: they have learnt from the stations",
        data=be.cross_fit(trained(frame), folds=3, progressbar=False),
    )
    bare = be.Ensemble.from_frame(frame, members=["rf"], observation="sm")
    refused("need a label in every row: no row has one", data=bare)
    lone = be.Ensemble.from_frame(frame, members=["rf"], observation="sm", site="station")
    refused("there are no groups to remove", data=lone, by="group")
