"""Labels and times of all dtypes come into an ensemble, and out of its files, as they were; what is none is refused by name."""

from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from door_tables import ROLES, door, table

from bayesens.ensemble.ensemble import Ensemble


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series(["a", None, "b"], dtype=object), ["a", "", "b"]),
        (pd.Series(["a", None, "b"], dtype="string"), ["a", "", "b"]),
        (pd.Series(["a", np.nan, "b"], dtype="str"), ["a", "", "b"]),
        (pd.Series(["a", None, "b"], dtype="category"), ["a", "", "b"]),
        (pd.Series([7, None, 9]), ["7", "", "9"]),
        (pd.Series([7, None, 9], dtype="Int64"), ["7", "", "9"]),
        (pd.Series([7, 8, 9], dtype="int16"), ["7", "8", "9"]),
        (pd.Series([7, None, 9], dtype="category"), ["7", "", "9"]),
        (pd.Series([0.5, np.nan, 2.0]), ["0.5", "", "2"]),
        (pd.Series([True, False, True]), ["True", "False", "True"]),
        (pd.Series([b"a", b"b", b"a"]), ["a", "b", "a"]),
        (
            pd.to_datetime(pd.Series(["2020-01-01", None, "2020-01-02"])),
            ["2020-01-01 00:00:00", "", "2020-01-02 00:00:00"],
        ),
        (pd.Series([None, None, None], dtype=object), ["", "", ""]),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, pd.Series) else "",
)
@pytest.mark.parametrize("engine", ["h5netcdf", "zarr"])
def test_label_dtypes_survive_a_file(column, expected, engine, tmp_path):
    frame = table(3).assign(label=column, network="north")
    ensemble = door(frame, site="label", group="network")
    assert ensemble.labels("site").tolist() == expected
    assert ensemble.labels("site").dtype.kind == "U"
    path = tmp_path / "ensemble"
    if engine == "zarr":
        ensemble.dataset.to_zarr(path, consolidated=False)
    else:
        ensemble.dataset.to_netcdf(path, engine="h5netcdf")
    options = {"consolidated": False} if engine == "zarr" else {}
    with xr.open_dataset(path, engine=engine, **options) as dataset:
        again = Ensemble.from_dataset(dataset.load())
    assert again.digest == ensemble.digest
    assert again.columns == ensemble.columns
    pd.testing.assert_frame_equal(again.to_frame(), ensemble.to_frame())


def test_missing_labels_are_no_level():
    frame = table()
    frame.loc[[0, 1], "network"] = None
    with pytest.warns(
        UserWarning, match=r"'station' and 'network' \(6 rows\): 2 site\(s\) .* none in others: 's0', 's1'"
    ):
        ensemble = door(frame, **ROLES)
    assert ensemble.labels("group").tolist()[:2] == ["", ""]
    assert ensemble.levels("group").tolist() == ["north", "south"]
    assert ensemble.to_frame()["network"].isna().tolist() == [True, True] + [False] * 4


def test_labels_that_cannot_be():
    frame = table(2).assign(station=[["a"], ["b"]])
    with pytest.raises(TypeError, match=r"'station' \(2 rows\) holds values that cannot be labels"):
        door(frame, site="station")
    # numpy drops a trailing NUL: these two stations would silently become one.
    with pytest.raises(ValueError, match=r"'station' holds 'a\\x00' with a NUL"):
        door(table(2).assign(station=["a", "a\0"]), site="station")
    with pytest.raises(ValueError, match=r"'station' holds .* not valid Unicode"):
        door(table(2).assign(station=pd.Series(["a", "\ud800"], dtype=object)), site="station")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series(pd.to_datetime(["2020-01-01", None])), ["2020-01-01", "NaT"]),
        (pd.Series(["2020-01-01", "2020-01-02T06:00"]), ["2020-01-01", "2020-01-02T06"]),
        (pd.Series(["2020-01-01", None], dtype="string"), ["2020-01-01", "NaT"]),
        (pd.Series(["2020-01-01", "2020-01-02"], dtype="category"), ["2020-01-01", "2020-01-02"]),
        (pd.Series([pd.Timestamp("2020-01-01").date(), None]), ["2020-01-01", "NaT"]),
        (pd.Series(pd.to_datetime(["2020-01-01 02:00+02:00", None])), ["2020-01-01", "NaT"]),
        (pd.Series(["2020-01-01T02:00+02:00", "2020-01-02T02:00+02:00"]), ["2020-01-01", "2020-01-02"]),
        (pd.Series(pd.PeriodIndex(["2020-01", "2020-02"], freq="M")), ["2020-01-01", "2020-02-01"]),
        (pd.Series(np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[s]")), ["2020-01-01", "2020-01-02"]),
        (
            # One zone with a clock change between the two rows: its offsets differ, its name does not.
            pd.Series(
                pd.DatetimeIndex(["2020-01-01 01:00", "2020-07-01 02:00"]).tz_localize(ZoneInfo("Europe/Berlin"))
            ),
            ["2020-01-01", "2020-07-01"],
        ),
    ],
)
def test_times(column, expected):
    time = door(table(2).assign(date=column), time="date").dataset["time"].values
    assert time.dtype == "datetime64[ns]"
    np.testing.assert_array_equal(time, np.array(expected, dtype="datetime64[ns]"))


def test_numeric_time_stays_numeric():
    def time(values, **kind):
        return door(table(2).assign(date=pd.Series(values, **kind)), time="date").dataset["time"].values

    assert time([2003, 2004]).dtype == np.int64
    assert time([2003, 2004], dtype="Int64").tolist() == [2003, 2004]
    assert time([2003.5, 2004.5]).tolist() == [2003.5, 2004.5]
    np.testing.assert_array_equal(time([2003, None], dtype="Int64"), [2003.0, np.nan])
    np.testing.assert_array_equal(time([2003, None], dtype=object), [2003.0, np.nan])


@pytest.mark.parametrize(
    ("column", "error", "text"),
    [
        (
            ["2020-01-01T00:00+02:00", "2020-01-01T00:00+01:00"],
            ValueError,
            r"'date' \(2 rows\) mixes time zones.*utc=True",
        ),
        (["2020-01-01T00:00+02:00", "2020-01-01T00:00"], ValueError, r"'date' \(2 rows\) mixes time zones"),
        (
            [pd.Timestamp("2020-01-01", tz="UTC"), pd.Timestamp("2020-01-01", tz="Asia/Tokyo")],
            ValueError,
            r"'date' \(2 rows\) mixes time zones",
        ),
        (
            ["2020-01-01", "01/02/2020"],
            ValueError,
            r"'date' holds '01/02/2020' .* in 1 of 2 rows \(first: row 1; counted from 0\).*format=",
        ),
        ([True, False], TypeError, r"'date' \(2 rows\) holds bool"),
        (pd.to_timedelta([1, 2], unit="D"), TypeError, r"'date' \(2 rows\) holds Timedelta"),
        (
            np.array(["1500-01-01", "1501-01-01"], dtype="datetime64[s]"),
            ValueError,
            r"'date' \(2 rows\).*1678 to 2262.*years",
        ),
        ([1.0, np.inf], ValueError, r"'date' is infinite in 1 of 2 rows"),
    ],
)
def test_times_that_cannot_be(column, error, text):
    with pytest.raises(error, match=text):
        door(table(2).assign(date=column), time="date")


def test_other_calendars_are_named():
    class Julian:
        calendar = "julian"

    column = [Julian(), Julian()]
    with pytest.raises(TypeError, match=r"'date' \(2 rows\).*convert_calendar"):
        door(table(2).assign(date=column), time="date")
