"""One fault, planted at random into a good table: read and fitted it gives the good table, an error or a warning, never a fit
without a word. Good tables give no word at all."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bayesens as be
from bayesens.ensemble.files import read_ensemble

MEMBERS = ["forest", "ridge", "svr"]
ROLES = {"members": MEMBERS, "observation": "obs", "site": "station", "time": "date", "covariates": ["height"]}
STATIONS = ["Adelong", "Bundure", "Canberra", "Daly"]
FUZZ = {
    "max_examples": 25, "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}  # fmt: skip


# Good tables ---------------------------------------------------------------------------------------------------------


def moisture(rng, n):
    return 0.05 + 0.4 * rng.beta(2, 3, n), 0.03


def flow(rng, n):
    return rng.lognormal(3, 1, n), 4.0


def celsius(rng, n):
    return rng.normal(8, 9, n), 2.0


def kelvin(rng, n):
    return rng.normal(285, 9, n), 2.0


def dust(rng, n):
    return rng.gamma(4, 4, n), 3.0


def pressure(rng, n):
    return rng.normal(1013, 9, n), 3.0


def good_table(quantity, seed, days=60):
    rng = np.random.default_rng(seed)
    n = days * len(STATIONS)
    truth, error = quantity(rng, n)
    columns = {name: truth + rng.normal(0, error, n) for name in MEMBERS}
    dates = np.tile(pd.date_range("2004-01-03", periods=days), len(STATIONS))
    height = np.repeat(rng.uniform(10, 900, len(STATIONS)).round(), days)
    places = {"station": np.repeat(STATIONS, days), "date": dates, "height": height}
    numbers = {name: values.round(5) for name, values in ({"obs": truth} | columns).items()}
    return pd.DataFrame(places | numbers)


tables = st.builds(
    good_table, st.sampled_from([moisture, flow, celsius, kelvin, dust, pressure]), st.integers(0, 10_000)
)


# What comes of a file ------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """The ensemble, if there is one, and all that was said on the way to a fit."""

    ensemble: be.Ensemble | None
    words: str


def outcome(path, content):
    path.write_bytes(content.encode())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            ensemble = read_ensemble(path, **ROLES)
            be.fit(be.BMA(group=False, sigma="shared"), ensemble, method="em", random_seed=1, progressbar=False)
        except (ValueError, TypeError, KeyError) as error:
            return Outcome(None, str(error))
    return Outcome(ensemble, "\n".join(str(one.message) for one in caught))


def text_of(frame, **options):
    return frame.to_csv(index=False, **options)


def same(ensemble, frame):
    """Whether the ensemble is the good table, whatever the order of its rows."""
    if len(ensemble.dataset["obs"]) != len(frame):
        return False
    times = ensemble.dataset["time"].to_numpy()
    return (
        np.array_equal(ensemble.labels("site"), frame["station"].to_numpy(str))
        and np.array_equal(times.astype("datetime64[D]"), frame["date"].to_numpy("datetime64[D]"))
        and np.allclose(ensemble.prediction, frame[MEMBERS], equal_nan=True)
        and np.allclose(ensemble.observation, frame["obs"], equal_nan=True)
    )


@settings(**FUZZ)
@given(tables)
def test_a_good_table_is_read_without_a_word(tmp_path, frame):
    found = outcome(tmp_path / "t.csv", text_of(frame))
    assert found.words == ""
    assert same(found.ensemble, frame)


# Codes ---------------------------------------------------------------------------------------------------------------

CODES = [
    "-9999",
    "-999",
    "-99.9",
    "-999.9",
    "-9999.0",
    "-32768",
    "1e20",
    "9.969209968386869e+36",
    "99999",
    "-1e30",
    "-8888",
]


@settings(**FUZZ)
@given(
    tables,
    st.sampled_from([*MEMBERS, "obs", "height"]),
    st.sampled_from(CODES),
    st.floats(0.001, 0.8),
    st.integers(0, 99),
)
def test_a_code_is_refused_by_column_and_count(tmp_path, frame, column, code, share, seed):
    count = int(np.ceil(share * len(frame)))
    rows = np.random.default_rng(seed).choice(len(frame), count, replace=False)
    planted = frame.astype({column: object})
    planted.loc[rows, column] = code
    found = outcome(tmp_path / "t.csv", text_of(planted))
    assert found.ensemble is None
    assert f"column {column!r} holds" in found.words
    assert f" in {count} of {len(frame)} rows" in found.words
    assert "--missing" in found.words


# Units ---------------------------------------------------------------------------------------------------------------

UNITS = {
    "percent": (100.0, 0.0), "fraction": (0.01, 0.0), "mm": (1000.0, 0.0), "m": (0.001, 0.0), "kelvin": (1.0, 273.15),
    "fahrenheit": (1.8, 32.0), "cubic feet": (35.3147, 0.0), "other": (20.0, 0.0),
}  # fmt: skip


@settings(**FUZZ)
@given(
    st.builds(good_table, st.sampled_from([moisture, flow, dust]), st.integers(0, 10_000)),
    st.sampled_from(MEMBERS), st.sampled_from(["percent", "fraction", "mm", "m", "cubic feet", "other"]),
)  # fmt: skip
def test_a_factor_of_ten_or_more_is_named(tmp_path, frame, member, unit):
    scale, offset = UNITS[unit]
    found = outcome(tmp_path / "t.csv", text_of(frame.assign(**{member: scale * frame[member] + offset})))
    assert f"member {member!r}" in found.words
    assert f"scale={{{member!r}: " in found.words


@settings(**FUZZ)
@given(st.sampled_from([(celsius, "kelvin"), (celsius, "fahrenheit"), (kelvin, "celsius")]), st.integers(0, 10_000),
       st.sampled_from(MEMBERS))  # fmt: skip
def test_degrees_are_named(tmp_path, units, seed, member):
    quantity, unit = units
    scale, offset = UNITS.get(unit, (1.0, -273.15))
    frame = good_table(quantity, seed)
    found = outcome(tmp_path / "t.csv", text_of(frame.assign(**{member: scale * frame[member] + offset})))
    assert f"member {member!r}" in found.words
    assert f"offset={{{member!r}: " in found.words


# Dates ---------------------------------------------------------------------------------------------------------------


def serial(days, first):
    return (days - pd.Timestamp(first)).dt.days


DATES = {
    "YYYYMMDD": lambda d: d.dt.strftime("%Y%m%d"),
    "YYYYMMDDHH": lambda d: d.dt.strftime("%Y%m%d00"),
    "YYYYMMDDHHMM": lambda d: d.dt.strftime("%Y%m%d0000"),
    "YYYYDDD": lambda d: d.dt.strftime("%Y%j"),
    "epoch": lambda d: serial(d, "1970-01-01") * 86400,
    "epoch_ms": lambda d: serial(d, "1970-01-01") * 86_400_000,
    "excel": lambda d: serial(d, "1899-12-30"),
    "floats": lambda d: d.dt.strftime("%Y%m%d.0"),
    "%d/%m/%Y": lambda d: d.dt.strftime("%d/%m/%Y"),
    "%m/%d/%Y": lambda d: d.dt.strftime("%m/%d/%Y"),
    "%d.%m.%Y": lambda d: d.dt.strftime("%d.%m.%Y"),
    "%d-%m-%y": lambda d: d.dt.strftime("%d-%m-%y"),
    "%d %b %Y": lambda d: d.dt.strftime("%d %b %Y"),
    "%Y/%m/%d": lambda d: d.dt.strftime("%Y/%m/%d"),
    "zone": lambda d: d.dt.strftime("%Y-%m-%dT00:00:00Z"),
}


@settings(**FUZZ)
@given(tables, st.sampled_from(sorted(DATES)), st.sampled_from([0, -40, 200]))
def test_dates_are_the_same_days_or_asked_for(tmp_path, frame, form, shift):
    frame = frame.assign(date=frame["date"] + pd.Timedelta(days=shift))
    found = outcome(tmp_path / "t.csv", text_of(frame.assign(date=DATES[form](frame["date"]))))
    assert "'date'" in found.words or same(found.ensemble, frame)
    if found.ensemble is not None:
        assert same(found.ensemble, frame)
    else:
        assert "time_format" in found.words


@settings(**FUZZ)
@given(
    tables,
    st.sampled_from(sorted(DATES)),
    st.integers(1, 31),
    st.sampled_from(["?", "2004-13-01", "31.04.2004", "n.d."]),
)
def test_one_wrong_date_among_good_ones_is_named(tmp_path, frame, form, row, wrong):
    dates = DATES[form](frame["date"]).astype(object)
    dates[row] = wrong
    found = outcome(tmp_path / "t.csv", text_of(frame.assign(date=dates)))
    assert found.ensemble is None
    assert "'date'" in found.words


# Labels --------------------------------------------------------------------------------------------------------------


@settings(**FUZZ)
@given(
    tables, st.sampled_from(["NA", "None", "null", "nan", "N/A", "007", "1e5", "TRUE", "-", "5.0"]), st.integers(0, 3)
)
def test_labels_that_look_like_something_else_stay(tmp_path, frame, word, place):
    frame = frame.assign(station=frame["station"].replace(STATIONS[place], word))
    found = outcome(tmp_path / "t.csv", text_of(frame))
    assert same(found.ensemble, frame)


@settings(**FUZZ)
@given(tables, st.sampled_from([" ", "  ", "\t", "\u00a0"]), st.booleans(), st.integers(1, 31))
def test_blanks_about_labels_make_no_new_station(tmp_path, frame, blank, before, row):
    labels = frame["station"].astype(object)
    labels[row] = blank + labels[row] if before else labels[row] + blank
    found = outcome(tmp_path / "t.csv", text_of(frame.assign(station=labels)))
    assert "'station'" in found.words or same(found.ensemble, frame)


@settings(**FUZZ)
@given(tables, st.sampled_from(["Mean", "AVERAGE", "Total", "Std"]), st.sampled_from(["station", "date"]))
def test_a_row_that_sums_up_is_named(tmp_path, frame, word, place):
    last = frame[["height", "obs", *MEMBERS]].mean().to_dict() | {"station": "", "date": ""} | {place: word}
    body = text_of(frame) + text_of(pd.DataFrame([last])[list(frame)], header=False)
    found = outcome(tmp_path / "t.csv", body)
    assert found.ensemble is None or word in found.words
    assert word in found.words


# Header and separators -----------------------------------------------------------------------------------------------


@settings(**FUZZ)
@given(tables, st.integers(0, 6), st.sampled_from([",", ";", "\t"]))
def test_a_header_that_lacks_a_name_or_has_one_too_many(tmp_path, frame, place, separator):
    head, body = text_of(frame, sep=separator).split("\n", 1)
    names = head.split(separator)
    for wrong in (names[:place] + names[place + 1 :], [*names[:place], "extra", *names[place:]]):
        found = outcome(tmp_path / "t.csv", separator.join(wrong) + "\n" + body)
        assert found.words


@settings(**FUZZ)
@given(tables, st.sampled_from(MEMBERS), st.sampled_from([*MEMBERS, "obs", "station", "date"]))
def test_two_columns_of_one_name_are_refused(tmp_path, frame, one, other):
    if one == other:
        return
    found = outcome(tmp_path / "t.csv", text_of(frame.rename(columns={one: other})))
    assert found.ensemble is None
    assert repr(other) in found.words


@settings(**FUZZ)
@given(tables, st.sampled_from([",", ";", "\t", "|"]), st.booleans())
def test_separators_and_decimal_commas(tmp_path, frame, separator, comma):
    options = {"decimal": ","} if comma else {}
    found = outcome(tmp_path / "t.csv", text_of(frame, sep=separator, **options))
    if comma:
        assert found.ensemble is None
        assert "decimal" in found.words
    else:
        assert found.words == ""
        assert same(found.ensemble, frame)


@settings(**FUZZ)
@given(tables, st.integers(1, 30), st.sampled_from(["longer", "cut", "text"]), st.sampled_from(MEMBERS))
def test_one_bad_line_is_named(tmp_path, frame, row, fault, member):
    lines = text_of(frame).splitlines()
    cells = lines[row].split(",")
    if fault == "longer":
        cells.append("0.3")
    elif fault == "cut":
        cells = cells[:-1]
    else:
        cells[list(frame).index(member)] = "bad"
    lines[row] = ",".join(cells)
    found = outcome(tmp_path / "t.csv", "\n".join(lines) + "\n")
    assert found.words
    assert "line" in found.words or repr(member) in found.words


# Rows to predict -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fits():
    made = {}
    for quantity in (moisture, flow, celsius):
        frame = good_table(quantity, 5)
        ensemble = be.Ensemble.from_frame(frame, **ROLES)
        made[quantity] = be.fit(
            be.BMA(group=False, sigma="shared"), ensemble, method="em", random_seed=1, progressbar=False
        )
    return made


@settings(**FUZZ)
@given(
    st.sampled_from([moisture, flow, celsius]), st.integers(0, 999), st.sampled_from(MEMBERS),
    st.sampled_from(["-9999", "1e20", "-999", "percent", "mm", "kelvin", "empty"]),
)  # fmt: skip
def test_rows_to_predict(tmp_path, fits, quantity, seed, member, fault):
    """Kelvin among flows, whose range is hundreds wide, is not looked for."""
    frame = good_table(quantity, seed).drop(columns="obs")
    if fault in UNITS:
        scale, offset = UNITS["percent" if fault == "kelvin" and quantity is not celsius else fault]
        frame[member] = scale * frame[member] + offset
    elif fault == "empty":
        frame[member] = np.nan
    else:
        frame.loc[:9, member] = float(fault)
    columns = {name: value for name, value in ROLES.items() if name != "observation"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            be.predict(fits[quantity], pd.read_csv(io.StringIO(text_of(frame))).pipe(be.Ensemble.from_frame, **columns))
        except ValueError as error:
            words = str(error)
        else:
            words = "\n".join(str(one.message) for one in caught)
    assert repr(member) in words
