"""Reading tables: separators, headers, decimal commas, labels such as NA, rows that are cut or sum up, sheets, calendars."""

import gzip
import io
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.files import read_ensemble
from bayesens.tables.reading import as_table, read_table
from shared_data import shared_data

HEAD = ["site", "date", "sm", "rf", "svr"]
ROWS = [["A", f"2004-01-{day:02d}", 0.2 + day / 100, 0.25, 0.3] for day in range(1, 13)]
FRAME = pd.DataFrame(ROWS, columns=HEAD)


def write(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(separator=",", head=HEAD, rows=ROWS, end="\n"):
    return end.join(separator.join(map(str, row)) for row in [head, *rows]) + end


def read(path, **options):
    """Read without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_table(path, **options)


def refused(path, error=ValueError, **options):
    with pytest.raises(error) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What separates cells


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.csv.gz", "t.dat"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " ", "    "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_are_found(tmp_path, name, separator, end):
    content = lines(separator, end=end).encode()
    path = write(tmp_path, gzip.compress(content) if name.endswith("gz") else content, name)
    pd.testing.assert_frame_equal(read(path), FRAME, check_dtype=False)


def test_separators_in_cells_and_names(tmp_path):
    quoted = 'site,"rf, tuned","a;b"\n"A, north",0.1,0.2\n"B ""old""\nsouth",0.3,0.4\n'
    found = read(write(tmp_path, quoted), text=["site"])
    assert found.columns.tolist() == ["site", "rf, tuned", "a;b"]
    assert found["site"].tolist() == ["A, north", 'B "old"\nsouth']
    found = read(write(tmp_path, "rf [m3, m3];sm\n0.1;0.2\n0.3;0.4\n"))
    assert found.columns.tolist() == ["rf [m3, m3]", "sm"]
    inches = 'gauge,sm,rf\n5" pipe,0.1,0.2\n6" pipe,0.3,0.4\nplain,0.1,0.2\n'
    assert read(write(tmp_path, inches))["rf"].tolist() == [0.2, 0.4, 0.2]
    assert read(write(tmp_path, "a:b\n1:2\n"), separator=":")["b"].tolist() == [2]


def test_one_column_is_a_table(tmp_path):
    assert read(write(tmp_path, "rf\n0.1\n0.2\n")).values.tolist() == [[0.1], [0.2]]
    assert read(write(tmp_path, "note\none two\nthree\n")).values.tolist() == [["one two"], ["three"]]


def test_byte_order_marks_blank_lines_and_blanks(tmp_path):
    for content in ("\ufeff" + lines(), "\n" + lines() + "\n\n", lines(", "), lines(" ,")):
        pd.testing.assert_frame_equal(read(write(tmp_path, content), text=["site"]), FRAME, check_dtype=False)
    pd.testing.assert_frame_equal(read(write(tmp_path, lines("\t").encode("utf-16"))), FRAME, check_dtype=False)
    pd.testing.assert_frame_equal(read(write(tmp_path, lines(end="\r"))), FRAME, check_dtype=False)


CELLS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**9), 10**9))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6),
    st.lists(st.text("ab ;,\"'\t|é", max_size=6), min_size=6, max_size=6),
    st.sampled_from([",", ";", "\t"]),
)
def test_what_was_written_is_read(tmp_path, rows, labels, separator):
    frame = pd.DataFrame(rows, columns=["x", "y", "z"]).astype(float)
    frame.insert(0, "label", [f"s{label}e" for label in labels[: len(rows)]])
    frame.to_csv(tmp_path / "t.csv", sep=separator, index=False)
    pd.testing.assert_frame_equal(read(tmp_path / "t.csv", text=["label"]), frame, check_dtype=False)


# Header and rows


@pytest.mark.parametrize("first", [range(1, 41), range(40), range(7, 287, 7), [f"a{k}" for k in range(40)]])
@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
def test_a_header_with_one_name_less(tmp_path, first, separator):
    rows = [[k, 0.2, 0.21, 0.19, 0.22, 50] for k in first]
    path = write(tmp_path, lines(separator, ["id", "sm", "rf", "svr", "xgb"], rows))
    text = refused(path)
    assert "its rows have more fields than its header, 'id', 'sm', 'rf', 'svr', 'xgb' (6 and 5)" in text
    assert "truncated" not in text


def test_separators_at_the_ends_of_rows_are_no_field(tmp_path):
    content = lines().replace("\n", ",\n").replace("svr,\n", "svr\n")
    pd.testing.assert_frame_equal(read(write(tmp_path, content)), FRAME, check_dtype=False)


def test_single_rows_that_are_longer_are_named(tmp_path):
    rows = [*ROWS[:5], [*ROWS[5], 1], *ROWS[6:]]
    text = refused(write(tmp_path, lines(rows=rows)))
    assert "line 7 has 6 fields and its header" in text
    assert "(1 such of 12 rows); write a cell with commas in it in double quotes" in text


def test_rows_that_are_shorter_are_counted(tmp_path):
    rows = [*ROWS[:3], ROWS[3][:4], *ROWS[4:]]
    with pytest.warns(UserWarning, match=r"1 of 12 rows have fewer fields than the header's 5 \(first: line 5\)"):
        found = read_table(write(tmp_path, lines(rows=rows)))
    assert found["svr"].isna().sum() == 1
    assert "line 5 has 4 fields" in refused(write(tmp_path, lines(" ", rows=rows)))


def test_a_cut_file_alone_is_called_so(tmp_path):
    whole = lines()
    for cut in (5, 12, 20):
        assert "the file may be truncated" in refused(write(tmp_path, whole[:-cut]))
    assert len(read(write(tmp_path, whole.rstrip("\n")))) == 12
    for other in (lines(head=HEAD[:4]), "a,b\n1,2,3\n1,2,3\n", "", "é,1\n".encode("latin-1")):
        assert "truncated" not in refused(write(tmp_path, other))
    assert "truncated" in refused(write(tmp_path, gzip.compress(whole.encode())[:-20], "t.csv.gz"))
    assert "truncated" not in refused(write(tmp_path, whole, "t.csv.gz"))
    assert "truncated" not in refused(write(tmp_path, whole, "t.nc"))
    assert "truncated" not in refused(write(tmp_path, whole, "t.parquet"))


def test_names_twice_are_refused(tmp_path):
    text = refused(write(tmp_path, "rf,svr,rf,sm\n1.0,1.2,9.0,1.1\n2.0,2.1,8.0,1.9\n"))
    assert "its header names 'rf' more than once (columns 1, 3); wanted one of each: rename or drop the others" in text
    assert "more than once" in refused(write(tmp_path, "rf;rf ;sm\n1;2;3\n"))
    assert read(write(tmp_path, "rf,rf.1,sm\n1,2,3\n")).columns.tolist() == ["rf", "rf.1", "sm"]
    assert read(write(tmp_path, "rf,,sm,\n1,2,3,4\n")).columns.tolist() == ["rf", "Unnamed: 1", "sm", "Unnamed: 3"]


def test_a_file_without_a_header(tmp_path):
    assert "its first line holds numbers alone (0.1, 2.5e-3" in refused(
        write(tmp_path, "0.1,2.5e-3\n0.2,0.1\n")
    ).replace("'", "")
    assert read(write(tmp_path, "0,1,2\n0.1,0.2,0.3\n")).columns.tolist() == ["0", "1", "2"]
    path = shared_data("modelavg", "discharge_data.txt")
    assert "put a line of names above it" in refused(path)


# Decimal commas


def test_decimal_commas_are_named(tmp_path):
    semicolons = "site;date;sm;rf;svr\nA;2004-01-01;0,25;0,24;0,26\nA;2004-01-02;0,27;0,26;0,29\n"
    commas = 'site,date,sm,rf,svr\nA,2004-01-01,"0,25","0,24","0,26"\nA,2004-01-02,"0,27","0,26","0,29"\n'
    tabs = semicolons.replace(";", "\t")
    for content, word in ((semicolons, "semicolons"), (commas, "commas"), (tabs, "tabs")):
        text = refused(write(tmp_path, content))
        assert (
            f"of its columns, separated by {word}, 'sm', 'rf', 'svr' have decimal commas ('0,25' in 'sm'): say" in text
        )
        assert "say decimal=',' (--decimal ,)" in text
        assert read(write(tmp_path, content), decimal=",")["svr"].tolist() == [0.26, 0.29]
        assert read(write(tmp_path, content), decimal=".")["svr"].tolist() == ["0,26", "0,29"]
    with pytest.raises(ValueError, match="decimal is ';'"):
        read(write(tmp_path, commas), decimal=";")


def test_whole_numbers_among_decimal_commas(tmp_path):
    assert "'rf' have decimal commas" in refused(write(tmp_path, "rf;sm\n1;2\n-1,5;3\n;4\n"))


def test_commas_in_text_are_no_decimals(tmp_path):
    content = 'site,pair,rf\n"1,5","a,b",0.1\n"2,5","1,2,3",0.2\n'
    assert read(write(tmp_path, content), text=["site"])["site"].tolist() == ["1,5", "2,5"]


def test_the_door_of_a_frame_names_decimal_commas():
    frame = pd.DataFrame({"rf": ["0,25", "1", None]})
    with pytest.raises(TypeError, match=r"'rf' .*decimal commas.*read the file with decimal=','"):
        Ensemble.from_frame(frame, members=["rf"])


# Labels


@pytest.mark.parametrize("word", ["NA", "None", "null", "nan", "NaN", "N/A", "NULL", "n/a"])
def test_labels_such_as_na_are_kept(tmp_path, word):
    content = f"site,network,sm,rf,svr\n{word},{word},0.1,0.2,1\nB,,,0.3,1\n007,x,,,1\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        columns = {"members": ["rf", "svr"], "observation": "sm", "site": "site", "group": "network"}
        ensemble = read_ensemble(write(tmp_path, content), **columns)
    assert ensemble.labels("site").tolist() == [word, "B", "007"]
    assert ensemble.labels("group").tolist() == [word, "", "x"]
    assert np.isnan(ensemble.observation).tolist() == [False, True, True]
    assert np.isnan(ensemble.prediction[:, 0]).tolist() == [False, False, True]


def test_a_label_that_is_a_gap_elsewhere_is_told(tmp_path):
    path = write(tmp_path, "site,network,rf\nA,NA,0.1\nB,x,NA\nC,x,0.2\n")
    with pytest.warns(
        UserWarning, match=r"'network' has the label 'NA' in 1 of 3 rows, kept as written, and 'NA' stands for gaps"
    ):
        found = read_table(path, text=["site", "network"])
    assert found["network"].tolist() == ["NA", "x", "x"]


def test_blanks_at_the_ends_of_labels(tmp_path):
    assert read(write(tmp_path, "site,rf\nS1 ,1\nS2 ,2\n"), text=["site"])["site"].tolist() == ["S1", "S2"]
    with pytest.warns(
        UserWarning, match=r"'site' has labels with blanks at their ends in 1 of 3 rows; they are read as 'S1'"
    ):
        found = read_table(write(tmp_path, 'site,rf\nS1,1\n"S1 ",2\nS2,3\n'), text=["site"])
    assert found["site"].tolist() == ["S1", "S1", "S2"]


def test_labels_of_a_frame_that_differ_in_blanks():
    frame = pd.DataFrame({"rf": [1.0, 2.0, 3.0], "site": ["S1", "S1 ", "S2"]})
    with pytest.warns(
        UserWarning, match=r"'site' has labels that differ in blanks at their ends alone \('S1'\); they count"
    ):
        assert len(Ensemble.from_frame(frame, members=["rf"], site="site").levels("site")) == 3


# Rows that sum up


@pytest.mark.parametrize("word", ["Mean", "Total", "Average", "TOTAL:", "mean "])
@pytest.mark.parametrize("place", [0, 1])
def test_a_last_row_that_sums_up_is_named(tmp_path, word, place):
    last = ["", "", 0.26, 0.25, 0.3]
    last[place] = word
    text = refused(write(tmp_path, lines(rows=[*ROWS, last])), text=["site"])
    assert f"its last row has '{word.strip()}" in text
    assert f"in column '{HEAD[place]}', so it sums the others up; take it out" in text


def test_two_rows_that_sum_up(tmp_path):
    text = refused(write(tmp_path, lines(rows=[*ROWS, ["Mean", "", 1, 1, 1], ["SD", "", 1, 1, 1]])))
    assert "its last 2 rows have 'Mean', 'SD' in column 'site', so they sum the others up" in text


def test_such_words_elsewhere_are_labels(tmp_path):
    models = [["A", "2004-01-01", 0.1, 0.2, "rf"], ["A", "2004-01-01", 0.1, 0.2, "mean"]]
    models += [["A", "2004-01-02", 0.1, 0.2, "rf"], ["A", "2004-01-02", 0.1, 0.2, "mean"]]
    assert len(read(write(tmp_path, lines(rows=models)))) == 4
    assert len(read(write(tmp_path, lines(rows=[["Mean", *ROWS[0][1:]], *ROWS])))) == 13


# Sheets


def book(tmp_path, **sheets):
    with pd.ExcelWriter(tmp_path / "t.xlsx") as writer:
        for name, frame in sheets.items():
            frame.to_excel(writer, sheet_name=name, index=False)
    return tmp_path / "t.xlsx"


def test_a_sheet_is_read_as_a_file_of_text_is(tmp_path):
    frame = FRAME.assign(date=pd.to_datetime(FRAME["date"]))
    frame.loc[2, "rf"] = np.nan
    frame.loc[3, "site"] = "NA"
    frame.loc[4, "site"] = "007 "
    found = read(book(tmp_path, data=frame), text=["site"])
    assert found["site"].tolist()[2:6] == ["A", "NA", "007", "A"]
    pd.testing.assert_frame_equal(found.drop(columns="site"), frame.drop(columns="site"), check_dtype=False)
    columns = {"members": ["rf", "svr"], "observation": "sm", "site": "site", "time": "date"}
    assert read_ensemble(tmp_path / "t.xlsx", **columns).n_obs == 12


def test_several_sheets(tmp_path):
    path = book(tmp_path, one=FRAME, two=FRAME.head(2), empty=pd.DataFrame())
    with pytest.warns(
        UserWarning,
        match=r"2 sheets with cells in them \('one', 'two'\); the first one is read; say which: sheet='one' \(--sheet one\)",
    ):
        assert len(read_table(path)) == 12
    assert len(read(path, sheet="two")) == 2
    assert "it has no sheet 'three'; it has 'one', 'two'" in refused(path, sheet="three")
    assert "more than once" in refused(book(tmp_path, one=pd.DataFrame([[1, 2]], columns=["rf", "rf"])))
    assert "truncated" not in refused(write(tmp_path, "a,b\n1,2\n", "no.xlsx"))


def test_openpyxl_that_is_not_installed_is_named(tmp_path, monkeypatch):
    path = book(tmp_path, one=FRAME)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert "pip install 'bayesens[excel]', or save the sheet as .csv" in refused(path, ImportError)


# Calendars


def climate(tmp_path, calendar="noleap", units="days since 2000-01-01", first=58):
    site, time = ["a", "b"], np.arange(40.0) + first
    data = xr.Dataset(
        {name: (("time", "site"), np.random.default_rng(1).random((40, 2))) for name in ("rf", "svr", "sm")}
    )
    data = data.assign_coords(site=site, time=("time", time, {"units": units, "calendar": calendar}))
    data.to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    return tmp_path / "c.nc"


COLUMNS = {"members": ["rf", "svr"], "observation": "sm", "site": "site"}


def test_noleap_keeps_its_dates(tmp_path):
    ensemble = read_ensemble(climate(tmp_path), **COLUMNS, time="time")
    days = ensemble.dataset["time"].values[::2].astype("datetime64[D]").astype(str)
    assert days[:3].tolist() == ["2000-02-28", "2000-03-01", "2000-03-02"]
    assert as_table(read_table(tmp_path / "c.nc"), "time")["rf"].size == 80


def test_360_days_keep_their_place_in_the_year(tmp_path):
    path = climate(tmp_path, "360_day", first=0)
    with pytest.warns(UserWarning, match=r"'time' has dates of the calendar 360_day \(2000-01-01 .* to 2000-02-10"):
        ensemble = read_ensemble(path, **COLUMNS, time="time")
    time = ensemble.dataset["time"].values[::2]
    assert (np.diff(time) > np.timedelta64(0, "ns")).all()
    assert str(time[0])[:10] == "2000-01-01"
    assert str(time[-1])[:10] == "2000-02-09"  # day 39 of 360 is day 39.65 of 366


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "all_leap", "julian"])
@pytest.mark.parametrize("installed", [True, False])
def test_times_that_are_not_asked_for_do_not_matter(tmp_path, monkeypatch, calendar, installed):
    if not installed:
        monkeypatch.setitem(sys.modules, "cftime", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_ensemble(climate(tmp_path, calendar), **COLUMNS).n_obs == 80
    assert read_ensemble(climate(tmp_path, "standard", "months since 2000-01-01"), **COLUMNS).n_obs == 80


def test_cftime_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cftime", None)
    with pytest.raises(
        ImportError, match=r"'time' has times of the calendar 'noleap', .*pip install 'bayesens\[calendars\]'"
    ):
        read_ensemble(climate(tmp_path), **COLUMNS, time="time")
    with pytest.raises(ImportError, match=r"pip install 'bayesens\[calendars\]'"):
        as_table(read_table(climate(tmp_path)), "time")


def test_units_that_are_no_times(tmp_path):
    path = climate(tmp_path, "standard", "months since 2000-01-01")
    with pytest.raises(
        ValueError, match=r"'time' \(40 values\) has the units 'months since 2000-01-01' .*time_format='number'"
    ):
        read_ensemble(path, **COLUMNS, time="time")
    assert read_ensemble(path, **COLUMNS, time="time", time_format="number").dataset["time"].values[0] == 58
    for calendar in ("all_leap", "julian"):
        with pytest.raises(TypeError, match=f"calendar '{calendar}'.*convert_calendar"):
            read_ensemble(climate(tmp_path, calendar), **COLUMNS, time="time")


def test_a_dataset_that_was_not_decoded_is():
    data = xr.Dataset({"rf": ("time", [0.1, 0.2])}, {"time": ("time", [0, 366], {"units": "days since 2000-01-01"})})
    found = Ensemble.from_dataset(data, members=["rf"], time="time").dataset["time"].values
    assert found.astype("datetime64[D]").astype(str).tolist() == ["2000-01-01", "2001-01-01"]


# The real tables


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("oznet", "oznet_daily.csv.gz"), ["station", "cluster"]), (("narmada", "nrb_long.csv.gz"), ["gauge"]),
        (("atlanta", "atlanta_daily.csv.gz"), []), (("meps_precipitation", "precipitation_6h.csv.gz"), []),
        (("oznet", "raw", "OzNet_study_sites.csv"), []),
        (("oznet", "raw", "OzNet_cleaned_data", "OzNet_y5_cleaned_data.csv"), []),
        (("oznet", "grid_20160205_1km.nc"), []), (("atlanta", "grid_200406.nc"), []),
    ],
)  # fmt: skip
def test_real_tables_are_read_as_before_and_without_a_word(parts, text):
    path = shared_data(*parts)
    found = read(path, text=text)
    if path.suffix == ".nc":
        with xr.open_dataset(path, engine="h5netcdf") as data:
            assert found.identical(data.load())
        return
    expected = pd.read_csv(path, dtype=dict.fromkeys(text, str))
    pd.testing.assert_frame_equal(found, expected)


def test_reading_is_not_slower(tmp_path):
    import time

    n = 100_000
    values = np.random.default_rng(1).random((n, 8)).round(6)
    frame = pd.DataFrame(values, columns=[f"m{k}" for k in range(8)])
    frame.insert(0, "site", np.repeat([f"s{k:03d}" for k in range(100)], n // 100))
    content = frame.to_csv(index=False)
    path = write(tmp_path, content)
    took = {}
    for name, read_it in (("pandas", lambda: pd.read_csv(io.BytesIO(path.read_bytes()), dtype={"site": str})),
                          ("here", lambda: read(path, text=["site"]))):  # fmt: skip
        read_it()
        start = time.process_time()
        read_it()
        took[name] = time.process_time() - start
    assert took["here"] - took["pandas"] < 0.3, took
