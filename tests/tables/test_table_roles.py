"""What columns are taken for: usual names, values that allow them, reasons for all, and nothing dropped without a line."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from bayesens.app.cli.roles import held_out_words, other_unit_words, show_roles
from bayesens.tables.table_roles import column_roles
from shared_data import shared_data


def table(n=60, seed=1, **more):
    rng = np.random.default_rng(seed)
    y = rng.normal(10, 3, n)
    return pd.DataFrame({"model1": y + rng.normal(0, 1, n), "model2": y + rng.normal(0, 2, n)} | more), y


@pytest.mark.parametrize("name", [
    "obs", "observed", "observation", "Observations", "y", "target", "truth", "measured", "insitu", "in_situ", "In-Situ",
    "station_value", "reference", "y_true", "pm25_obs", "q observed",
])  # fmt: skip
def test_usual_names_of_the_observation(name):
    frame, y = table()
    found = column_roles(frame.assign(**{name: y}))
    assert found.roles == {"observation": name}
    assert found.members == ("model1", "model2")


@pytest.mark.parametrize("name", ["n_obs", "obs_count", "obs_error", "obs_flag"])
def test_a_count_or_an_error_of_observations_is_no_observation(name):
    frame, y = table()
    with pytest.raises(ValueError, match="no column looks like the observation; name it: --observation"):
        column_roles(frame.assign(**{name: y}))
    assert column_roles(frame.assign(**{name: y, "y": y})).roles == {"observation": "y"}


def test_y_beside_x_is_a_place_where_it_has_one_value_a_site():
    frame, y = table()
    station = np.repeat(list("abcdef"), 10)
    places = {"station": station, "x": np.repeat(np.arange(6.0), 10), "y": np.repeat(np.arange(6.0), 10)}
    with pytest.raises(ValueError, match="no column looks like the observation"):
        column_roles(frame.assign(pm25=y, **places))
    found = column_roles(frame.assign(pm25=y, **places), given={"observation": "pm25"})
    assert found.table.set_index("column")["role"]["y"] == "-"
    # A covariate x and a target y are no place.
    assert column_roles(frame.assign(x=1.0 * np.arange(60), y=y)).roles == {"observation": "y"}


def test_every_column_has_a_line_with_its_reason():
    frame, y = table()
    frame = frame.assign(obs=np.where(np.arange(60) < 6, np.nan, y), far=1e3 + y, flat=2.0,
                         noise=np.cos(np.arange(60.0)) + 10, empty=np.nan, note="dry", wet=y > 10,
                         other_obs=y + 1, tiny=10 + y / 1e3, station=["s"] * 60)  # fmt: skip
    found = column_roles(frame)
    lines = found.table.set_index("column")
    assert list(lines.index) == list(frame.columns)
    assert lines["why"].map(bool).all()
    assert lines["role"].to_dict() == {
        "model1": "member", "model2": "member", "obs": "observation", "station": "site",
    } | dict.fromkeys(["far", "flat", "noise", "empty", "note", "wet", "other_obs", "tiny"], "-")  # fmt: skip
    assert lines.at["obs", "missing"] == pytest.approx(10)
    assert lines.at["model1", "r"] == pytest.approx(np.corrcoef(frame["model1"][6:], y[6:])[0, 1])
    for name, why in {"far": "sd away", "flat": "constant", "noise": "r not above 0.3", "empty": "empty",
                      "note": "text", "wet": "true or false", "other_obs": "like the observation's name",
                      "tiny": "sd 0.001"}.items():  # fmt: skip
        assert why in lines.at[name, "why"], name


def test_columns_that_are_named_need_no_guess():
    frame, y = table(a=np.arange(60.0))
    found = column_roles(frame.assign(y=y, obs=y), given={"observation": "y", "members": ["model2"]})
    assert (found.roles, found.members, found.covariates) == ({"observation": "y"}, ("model2",), ())
    lines = found.table.set_index("column")["why"]
    assert (lines["y"], lines["model2"], lines["model1"]) == (
        "named by --observation", "named by --members", "not in --members",
    )  # fmt: skip
    with pytest.raises(ValueError, match="the table has no column 'model3'; it has 'model1'"):
        column_roles(frame, given={"members": ["model3"]})


def test_covariates_to_train_from_say_why_they_are_no_members():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"y": rng.normal(size=50), "rain": rng.normal(100, 5, 50), "dem": np.arange(50.0)})
    found = column_roles(frame)
    assert (found.members, found.covariates) == ((), ("rain", "dem"))
    assert found.table["why"].str.startswith("to train members; mean ").tolist() == [False, True, True]
    assert "four members will be trained on 2 columns" in held_out_words(found)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60), unique=True, max_size=8
    ),
    st.lists(st.sampled_from(["number", "text", "flag", "empty", "date"]), min_size=8, max_size=8),
)
def test_no_column_is_dropped_and_eighty_characters_are_enough(names, kinds):
    values = {"number": np.arange(9.0), "text": list("abcdefghi"), "flag": [True] * 9, "empty": [None] * 9,
              "date": pd.date_range("2020-01-01", periods=9)}  # fmt: skip
    columns = {name: values[kind] for name, kind in zip(names, kinds, strict=False)} | {"obs": np.sin(np.arange(9.0))}
    found = column_roles(pd.DataFrame(columns), given={"observation": "obs"})
    assert found.table["column"].tolist() == list(columns)
    assert found.table["why"].map(bool).all()
    console = Console(width=80, record=True, file=open("/dev/null", "w"), highlight=False, markup=False)  # noqa: SIM115
    show_roles(console, "t.csv", found)
    assert max(map(cell_len, console.export_text().splitlines())) <= 80  # some characters have no width


def test_the_words_say_what_is_held_out():
    frame, y = table()
    assert "(estimand row), for no column looks like a site or a time" in held_out_words(
        column_roles(frame.assign(y=y))
    )
    assert "(estimand time), for no column looks like a site" in held_out_words(
        column_roles(frame.assign(y=y, date=range(60)))
    )
    assert held_out_words(column_roles(frame.assign(y=y, site="s"))).endswith("(estimand site).")


@pytest.mark.parametrize(("path", "roles", "members"), [
    ("narmada/nrb_long.csv.gz", {"observation": "obs", "site": "gauge", "time": "date"}, 8),
    ("oznet/oznet_daily.csv.gz", {"observation": "insitu_sm", "site": "station", "group": "cluster", "time": "time",
                                  "lon": "lon", "lat": "lat"}, None),
])  # fmt: skip
def test_real_tables(path, roles, members):
    found = column_roles(pd.read_csv(shared_data(path)))
    assert found.roles == roles
    assert members is None or len([name for name in found.members if name.startswith("VIC")]) == members


def test_a_map_coordinate_is_not_the_observation_of_real_data():
    frame = pd.read_csv(shared_data("atlanta/atlanta_daily.csv.gz"))
    with pytest.raises(ValueError, match="no column looks like the observation; name it: --observation"):
        column_roles(frame)
    assert column_roles(frame, given={"observation": "pm25"}).roles == {
        "observation": "pm25", "site": "monitor", "time": "date",
    }  # fmt: skip


# Predictions in another unit


def test_a_column_in_another_unit_is_told_with_the_keys_that_convert_it():
    rng = np.random.default_rng(1)
    y = rng.uniform(0.1, 0.4, 80)
    frame = pd.DataFrame(
        {"obs": y, "rf": y + rng.normal(0, 0.03, 80), "smap": 100 * (y + rng.normal(0, 0.05, 80)), "dem": 9 * y + 50}
    )
    found = column_roles(frame)
    assert found.members == ("rf",)
    assert list(found.other_units) == ["smap"]
    why = found.table.set_index("column")["why"]
    assert why["smap"] == "like it x 0.01"
    (told,) = other_unit_words(found)
    assert told.endswith("add it to members.columns, and under [data]: scale = {smap = 0.01}")
    kelvin = frame.assign(obs=40 * y, **{"2 m temp": 40 * frame["rf"] + 273.15})[["obs", "2 m temp"]]
    (told,) = other_unit_words(column_roles(kelvin))
    assert told.endswith('offset = {"2 m temp" = -273.15}')


@pytest.mark.parametrize("place", [
    ("oznet", "oznet_daily.csv.gz"), ("narmada", "nrb_long.csv.gz"), ("meps_precipitation", "precipitation_6h.csv.gz"),
])  # fmt: skip
def test_no_column_of_real_tables_is_taken_for_one_in_another_unit(place):
    frame = pd.read_csv(shared_data(*place))
    for part in (frame, frame.head(300), frame.sample(min(2000, len(frame)), random_state=1)):
        assert column_roles(part).other_units == {}
