"""Dates written as numbers or as text: read where one reading alone is possible, asked for elsewhere, and counts stay counts."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bayesens.comparison.bootstrap import time_blocks
from bayesens.ensemble.ensemble import Ensemble
from bayesens.tables.columns import times
from bayesens.tables.dates import check_format, number_form

DAYS = pd.date_range("2004-01-01", "2006-12-31")
SECONDS = DAYS.to_numpy().astype("datetime64[s]").astype(np.int64)
MOMENTS = st.datetimes(pd.Timestamp("1700-01-01").to_pydatetime(), pd.Timestamp("2261-12-31").to_pydatetime())


def read(values, name="date", time_format=None):
    """The column as times, without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return times(pd.Series(values, name=name), time_format)


def blocks(time):
    return len(np.unique(time_blocks(time, 30)))


# Numbers that can be nothing else


@pytest.mark.parametrize("pattern", ["%Y%m%d", "%Y%m%d00", "%Y%j", "%Y%m%d0000", "%Y%m%d000000"])
def test_numbers_that_are_days(pattern):
    text = DAYS.strftime(pattern)
    whole = text.astype(np.int64)
    for column in (whole, whole.astype(float), text, pd.array(whole, "Int64")):
        np.testing.assert_array_equal(read(column), DAYS.to_numpy())
    assert blocks(whole.to_numpy() if pattern != "%Y%j" else read(whole)) == 37
    assert blocks(read(whole)) == 37


def test_months_and_hours():
    months = pd.date_range("1999-01-01", periods=30, freq="MS")
    np.testing.assert_array_equal(read(months.strftime("%Y%m").astype(int)), months.to_numpy())
    hours = pd.date_range("1999-12-31", periods=50, freq="h")
    np.testing.assert_array_equal(read(hours.strftime("%Y%m%d%H").astype(int)), hours.to_numpy())
    # Hours from 1 to 24: the last one is the midnight at the day's end.
    assert read([2004013124, 2004020101]).tolist() == [
        pd.Timestamp("2004-02-01").value, pd.Timestamp("2004-02-01 01:00").value,
    ]  # fmt: skip


def test_a_gap_stays_a_gap():
    found = read([20040101, None, 20040103])
    assert pd.isna(found).tolist() == [False, True, False]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(MOMENTS, min_size=1, max_size=20), st.sampled_from(["%Y%m%d", "%Y%m%d%H", "%Y%j", "%Y%m", "%Y%m%d%H%M"])
)
def test_every_date_comes_back(moments, pattern):
    text = pd.Series([moment.strftime(pattern) for moment in moments])
    expected = pd.to_datetime(text, format=pattern).to_numpy()
    np.testing.assert_array_equal(read(text.astype(np.int64)), expected.astype("datetime64[ns]"))


def test_a_wrong_date_among_dates_is_named():
    with pytest.raises(
        ValueError, match=r"'date' has 20040230, which is no date YYYYMMDD as others are, and 1 such of 1097"
    ):
        read([*DAYS.strftime("%Y%m%d").astype(int), 20040230])
    with pytest.raises(ValueError, match=r"'date' has -9999, .* 1 such of 1097 rows; correct them or leave them empty"):
        read([*DAYS.strftime("%Y%m%d").astype(int), -9999])


# Numbers that stay numbers


@pytest.mark.parametrize(
    "values",
    [
        range(1, 1000), range(0, 24 * 365 * 20), range(1990, 2021), [1990.5, 1991.5], range(30_000, 40_000),
        range(200_000, 300_000),
        range(2_000_000, 2_000_500), range(17_000_101, 17_000_301), [0.25, 0.5], [1], [-5, 5], [200_401, 200_413], range(0, 5),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["step", "k", None])
def test_counts_and_years_stay_numbers(values, name):
    values = np.array(values)
    found = read(values, name)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 99_000_000), st.integers(2, 5000), st.integers(1, 7))
def test_no_count_is_taken_for_a_date(start, n, step):
    counted = start + step * np.arange(max(n, 40))
    # 40 numbers and more that all are a year and a day of it, and follow each other so, are dates and no counts.
    assume(
        not (
            ((counted // 1000 >= 1678) & (counted // 1000 <= 2261)) & (counted % 1000 >= 1) & (counted % 1000 <= 366)
        ).all()
    )
    assert number_form(counted, least=7) == ""
    assert read(counted, "step").dtype.kind == "i"


# Numbers that may be dates


@pytest.mark.parametrize(
    ("values", "name", "form"),
    [
        (SECONDS, "date", "epoch"), (SECONDS, "t", "epoch"), (SECONDS * 1000, "t", "epoch_ms"),
        (SECONDS * 10**6, "t", "epoch_us"),
        (SECONDS * 10**9, "t", "epoch_ns"), (SECONDS // 86400 + 25569, "date", "excel"),
        (SECONDS / 86400 + 25569.25, "Time", "excel"),
        (SECONDS // 86400 + 719529, "day", "matlab"), (SECONDS - 400_000_000, "x", "epoch"),
    ],
)  # fmt: skip
def test_what_may_be_a_date_is_asked_for(values, name, form):
    with pytest.raises(ValueError) as caught:
        read(values, name)
    text = str(caught.value)
    assert text.startswith(f"column {name!r} (1096 rows) has numbers from ")
    assert f"say time_format={form!r} (--time-format {form}) (in pandas: pd.to_datetime(frame[{name!r}]" in text
    assert text.endswith("if plain numbers, time_format='number' (--time-format number)")
    assert read(values, name, "number").dtype == values.dtype
    found = read(values, name, form)
    assert blocks(found) == 37
    assert str(found[0])[:10] in text
    assert str(found[-1])[:10] in text


def test_days_since_a_date():
    np.testing.assert_array_equal(read(np.arange(1096), "k", "days since 2004-01-01"), DAYS.to_numpy())
    np.testing.assert_array_equal(read(np.arange(1096) * 24, "k", "hours since 2004-01-01"), DAYS.to_numpy())
    np.testing.assert_array_equal(read(SECONDS / 86400 + 40587, "k", "mjd"), DAYS.to_numpy())


def test_years_become_dates_where_that_is_said():
    assert read(range(1990, 2021), "year", "%Y").dtype.kind == "M"


# Text


@pytest.mark.parametrize(
    "pattern", ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%d/%m/%Y %H:%M", "%d.%m.%y", "%m/%d/%Y %I:%M %p"]
)
def test_the_one_format_that_fits_is_read_and_named(pattern):
    text = pd.Series(DAYS.strftime(pattern), name="date")
    with pytest.warns(UserWarning, match=r"'date' \(1096 rows\) is read as") as caught:
        found = times(text)
    assert len(caught) == 1
    assert f"is read as {pattern!r}, the one format that fits" in str(caught[0].message)
    np.testing.assert_array_equal(found, DAYS.to_numpy())
    np.testing.assert_array_equal(read(text, "date", pattern), DAYS.to_numpy())


@pytest.mark.parametrize("pattern", ["%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%Y/%m/%d", "%Y-%m-%d", "%Y%m%d"])
def test_dates_without_doubt_are_read_without_a_word(pattern):
    np.testing.assert_array_equal(read(DAYS.strftime(pattern)), DAYS.to_numpy())


def test_two_readings_are_asked_for():
    early = DAYS[DAYS.day < 13]
    for pattern in ("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y %H:%M"):
        text = early.strftime(pattern)
        with pytest.raises(
            ValueError,
            match=r"'date' holds '.*', which is .* as '%d.%m.%Y.*' and .* as '%m.%d.%Y.*all 432 rows fit both",
        ):
            read(text)
        np.testing.assert_array_equal(read(text, "date", pattern), early.to_numpy())
    with pytest.warns(UserWarning, match=r"'%d/%m/%Y'; '%m/%d/%Y' gives the same days"):
        assert str(times(pd.Series(["01/01/2004", "02/02/2004"]))[1])[:10] == "2004-02-02"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dates(pd.Timestamp("1900-01-01").date(), pd.Timestamp("2099-12-31").date()), min_size=1, max_size=8))
def test_a_day_and_a_month_are_never_changed_in_silence(days):
    text = pd.Series([day.strftime("%d/%m/%Y") for day in days], name="date")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = times(text)
        except ValueError as error:
            assert "fit both" in str(error)  # noqa: PT017
            assert all(day.day < 13 for day in days)
            return
    assert said
    assert pd.DatetimeIndex(found).date.tolist() == days


def test_rows_that_do_not_fit_are_counted():
    with pytest.raises(ValueError, match=r"'date' holds '31/01/2004' and the like in 1 of 2 rows .*--time-format"):
        read(["2004-01-01", "31/01/2004"])
    with pytest.raises(
        ValueError, match=r"holds '01/13/2004' and the like in 1 of 2 rows .*time_format='%d/%m/%Y' says"
    ):
        read(["01/02/2004", "01/13/2004"], "date", "%d/%m/%Y")
    with pytest.raises(
        ValueError, match=r"holds 'x' and the like in 1 of 2 rows .*wanted numbers, as time_format='epoch' says"
    ):
        read(["x", "1072915200"], "date", "epoch")


# Formats


@pytest.mark.parametrize("form", ["dd/mm/yyyy", "", "days", "weeks since 2000-01-01", "days since noon"])
def test_a_format_that_is_none(form):
    with pytest.raises(ValueError, match="time_format is"):
        check_format(form)


def test_a_format_that_is_no_text():
    with pytest.raises(TypeError, match="time_format is 3; wanted text"):
        check_format(3)


# The door


def test_from_frame_takes_the_format():
    frame = pd.DataFrame({"rf": [1.0, 2.0], "date": [37987, 37988]})
    ensemble = Ensemble.from_frame(frame, members=["rf"], time="date", time_format="excel")
    assert str(ensemble.dataset["time"].values[0])[:10] == "2004-01-01"
    again = Ensemble.from_frame(ensemble.to_frame(), members=["rf"], time="date", time_format="excel")  # dates by now
    assert again.digest == ensemble.digest
    with pytest.raises(ValueError, match="time_format is 'serial'"):
        Ensemble.from_frame(frame, members=["rf"], time="date", time_format="serial")


def test_the_door_is_not_slower():
    import time

    n = 100_000
    column = pd.Series(np.resize(DAYS.strftime("%Y%m%d%H").astype(np.int64), n), name="date")
    start = time.process_time()
    read(column)
    assert time.process_time() - start < 0.15
