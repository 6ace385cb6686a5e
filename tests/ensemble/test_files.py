"""Files of tables and of fits: they come back as they were written, and what is no such file is one clear error."""

import gzip
import os
import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from files_to_write import SUFFIXES, fit, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bayesens.ensemble import files
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.files import read_ensemble, write_table
from bayesens.inference.fit_tree import FORMAT, check_fit_tree, read_fit, write_fit
from bayesens.tables.reading import read_table

# Tables


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_table_round_trip(suffix, tmp_path):
    path = tmp_path / f"table{suffix}"
    write_table(table(), path)
    assert os.listdir(tmp_path) == [path.name]
    columns = {"members": ["rf", "mlr"], "observation": "sm", "site": "station", "time": "date"}
    assert read_ensemble(path, **columns).digest == Ensemble.from_frame(table(), **columns).digest


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_an_ensembles_dataset_round_trip(suffix, tmp_path):
    ensemble = Ensemble.from_frame(table(), members=["rf", "mlr"], observation="sm", site="station", units="m3 m-3")
    path = tmp_path / f"ensemble{suffix}"
    write_table(ensemble.dataset, path)
    again = read_ensemble(path)
    assert again.digest == ensemble.digest
    assert again.columns == {"observation": "sm", "site": "station"}


def test_labels_of_a_csv_are_kept_as_written(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("station,network,rf\n007,1e3,0.5\n010,,0.25\n")
    ensemble = read_ensemble(path, members=["rf"], site="station", group="network")
    assert ensemble.labels("site").tolist() == ["007", "010"]
    assert ensemble.labels("group").tolist() == ["1e3", ""]
    assert read_table(path)["station"].tolist() == [7, 10]


def test_a_csv_error_names_the_column_that_lacks(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("station,rf\n007,0.5\n")
    with pytest.raises(KeyError, match=r"no column 'site' in the table \(1 rows\)"):
        read_ensemble(path, members=["rf"], site="site")


def test_netcdf3_is_read(tmp_path):
    path = tmp_path / "classic.nc"
    xr.Dataset({"rf": ("obs", [1.0, 2.0])}).to_netcdf(path, engine="scipy")
    assert path.read_bytes()[:3] == b"CDF"
    assert read_table(path)["rf"].values.tolist() == [1.0, 2.0]


def test_named_index_becomes_columns(tmp_path):
    frame = table().set_index("date")
    for suffix in (".csv", ".parquet", ".nc"):
        write_table(frame, tmp_path / f"t{suffix}")
        assert "date" in read_table(tmp_path / f"t{suffix}")
    frame.to_parquet(tmp_path / "indexed.parquet")
    assert "date" in read_table(tmp_path / "indexed.parquet").columns


def test_odd_dtypes_reach_netcdf(tmp_path):
    frame = pd.DataFrame(
        {
            "category": pd.Categorical(["a", None, "b"]),
            "string": pd.Series(["a", None, "b"], dtype="string"),
            "whole": pd.Series([1, None, 3], dtype="Int64"),
            "flag": [True, False, True],
            "zone": pd.to_datetime(["2020-01-01 02:00+02:00"] * 3),
            "single": np.array([1, np.inf, 3], dtype="float32"),
        }
    )
    write_table(frame, tmp_path / "t.nc")
    back = read_table(tmp_path / "t.nc")
    assert back["category"].values.tolist() == ["a", "", "b"]
    assert back["string"].values.tolist() == ["a", "", "b"]
    np.testing.assert_array_equal(back["whole"], [1, np.nan, 3])
    assert back["flag"].values.tolist() == [True, False, True]
    assert back["zone"].values[0] == np.datetime64("2020-01-01")
    np.testing.assert_array_equal(back["single"], frame["single"])


def test_a_predictions_quantiles_become_columns(tmp_path):
    quantile = np.arange(12.0).reshape(2, 3, 2)
    data = xr.Dataset(
        {"quantile": (("level", "x", "y"), quantile), "mean": (("y", "x"), np.arange(6.0).reshape(2, 3))},
        {"level": [0.05, 0.95], "x": [10, 20, 30], "site": ("y", ["a", "b"])},
    )
    write_table(data[["mean", "quantile"]], tmp_path / "p.csv")
    back = read_table(tmp_path / "p.csv")
    assert sorted(back) == ["mean", "quantile_0.05", "quantile_0.95", "site", "x"]
    row = back[(back["site"] == "b") & (back["x"] == 20)].iloc[0]
    assert row["mean"] == 4
    assert row["quantile_0.05"] == quantile[0, 1, 1]
    assert row["quantile_0.95"] == quantile[1, 1, 1]
    assert len(back) == 6
    apart = xr.Dataset({"a": ("x", [1.0]), "b": ("y", [1.0])})
    with pytest.raises(ValueError, match=r"share no dimension .*write .nc"):
        write_table(apart, tmp_path / "q.csv")
    assert os.listdir(tmp_path) == ["p.csv"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(allow_infinity=False), min_size=1, max_size=5))
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_numbers_come_back_to_the_last_bit(suffix, tmp_path, values):
    write_table(pd.DataFrame({"n": range(len(values)), "rf": values}), tmp_path / f"t{suffix}")
    np.testing.assert_array_equal(read_table(tmp_path / f"t{suffix}")["rf"], values)


# Bad tables


def test_missing_file(tmp_path):
    (tmp_path / "stations.csv").write_text("a\n1\n")
    with pytest.raises(FileNotFoundError, match=r"no file .*station.csv; did you mean 'stations.csv'\?"):
        read_table(tmp_path / "station.csv")
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere.* the folder looked in is .*nowhere"):
        read_table(tmp_path / "nowhere" / "t.csv")
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "t.zarr")
    with pytest.raises(FileNotFoundError):
        read_fit(tmp_path / "fit.nc")


@pytest.mark.parametrize("name", ["t.xls", "t", "t.gz", "t.csv.zip", "t.nc.gz"])
def test_unknown_suffix(name, tmp_path):
    (tmp_path / name).write_text("a\n1\n")
    with pytest.raises(ValueError, match=r"has the suffix .*; wanted one of '.csv', .*'.xlsx', .*'.zarr'"):
        read_table(tmp_path / name)
    with pytest.raises(ValueError, match="has the suffix"):
        write_table(table(), tmp_path / f"out-{name}")
    assert os.listdir(tmp_path) == [name]


def test_a_folder_is_no_file(tmp_path):
    for name in ("t.csv", "t.nc"):
        (tmp_path / name).mkdir()
        with pytest.raises(IsADirectoryError, match="is a folder; wanted one file"):
            read_table(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        read_fit(tmp_path / "t.nc")


UNREADABLE = {
    "empty.csv": (b"", r"empty.csv \(0 bytes\) as .csv: No columns"),
    "ragged.csv": (b"a,b\n1,2\n1,2,3\n", r"ragged.csv \(14 bytes\).*line 3"),
    "shifted.csv": (b"a,b\n1,2,3\n1,2,3\n", r"more fields than its header, 'a', 'b'"),
    "latin.csv": ("a,b\né,1\n".encode("latin-1"), "utf-8"),
    "cut.csv.gz": (gzip.compress(os.urandom(3000))[:500], "cut.csv.gz .500 bytes.*truncated"),
    "plain.csv.gz": (b"a\n1\n", "gzip"),
    "cut.parquet": (b"PAR1" + bytes(40), r"cut.parquet \(44 bytes\) as .parquet"),
    "text.nc": (b"a,b\n1,2\n", r"text.nc \(8 bytes\) as .nc"),
    "file.zarr": (b"a", "file.zarr"),
    "header.csv": (b"a,b\n", r"header.csv has 0 rows and columns 'a', 'b'; wanted some rows"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_tables(name, tmp_path):
    content, text = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_table(tmp_path / name)
    assert re.search(text, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_no_store(tmp_path):
    (tmp_path / "t.zarr").mkdir()
    with pytest.raises(ValueError, match=r"cannot read .*t.zarr \(a folder\) as .zarr"):
        read_table(tmp_path / "t.zarr")


def test_empty_datasets(tmp_path):
    xr.Dataset().to_netcdf(tmp_path / "none.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"has no variables at its top level.*group"):
        read_table(tmp_path / "none.nc")
    xr.Dataset({"rf": (("obs", "x"), np.empty((0, 2)))}).to_netcdf(tmp_path / "zero.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"has zero rows \(obs: 0, x: 2\)"):
        read_table(tmp_path / "zero.nc")
    write_fit(fit(), tmp_path / "fit.nc")
    with pytest.raises(ValueError, match="it is a fit, not a table"):
        read_table(tmp_path / "fit.nc")


def truncated(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_netcdf(share, tmp_path):
    write_table(table(), tmp_path / "t.nc")
    truncated(tmp_path / "t.nc", share)
    with pytest.raises(ValueError, match=r"cannot read .*t.nc \(\d+ bytes\) as .nc: .*truncated"):
        read_table(tmp_path / "t.nc")
    write_fit(fit(), tmp_path / "fit.nc")
    truncated(tmp_path / "fit.nc", share)
    with pytest.raises(ValueError, match=r"cannot read .*fit.nc \(\d+ bytes\) as a fit .*truncated"):
        read_fit(tmp_path / "fit.nc")


def test_a_missing_library_is_not_called_a_broken_file(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")

    def lacks(*_):
        raise ImportError("no pyarrow")

    monkeypatch.setattr(pd, "read_parquet", lacks)
    with pytest.raises(ImportError, match="no pyarrow"):
        read_table(tmp_path / "t.parquet")


# Fits


def test_fit_round_trip(tmp_path):
    path = tmp_path / "fit.nc"
    tree = fit(bayesens_options='{"kernel": "normal"}')
    write_fit(tree, path)
    assert os.listdir(tmp_path) == ["fit.nc"]
    back = read_fit(path)
    xr.testing.assert_identical(back["posterior"].to_dataset(), tree["posterior"].to_dataset())
    assert dict(back.attrs) == dict(tree.attrs)
    # Plain xarray reads the same.
    with xr.open_datatree(path, engine="h5netcdf") as opened:
        xr.testing.assert_identical(opened["posterior"].to_dataset().load(), back["posterior"].to_dataset())


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="looks up open files in /proc")
def test_a_fit_that_was_read_holds_no_file(tmp_path):
    path = tmp_path / "fit.nc"
    write_fit(fit(), path)
    back = read_fit(path)
    held = [
        os.readlink(f"/proc/self/fd/{number}")
        for number in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{number}")
    ]
    assert str(path) not in held
    path.write_bytes(b"gone")
    np.testing.assert_array_equal(back["posterior"]["weight"], fit()["posterior"]["weight"])
    write_fit(back, path)
    write_fit(fit(bayesens_model="HBM"), path)
    assert read_fit(path).attrs["bayesens_model"] == "HBM"


NOT_FITS = [
    (lambda tree: tree.attrs.clear(), "no attributes 'bayesens_format', 'bayesens_model'; wanted what fit returns"),
    (lambda tree: tree.attrs.pop("bayesens_model"), "no attributes 'bayesens_model'"),
    (
        lambda tree: tree.attrs.update(bayesens_format="one"),
        "'bayesens_format' is 'one'; wanted a whole number from 1 to 2",
    ),
    (lambda tree: tree.attrs.update(bayesens_format=0), "whole number from 1"),
    (lambda tree: tree.attrs.update(bayesens_format=1.5), "'bayesens_format' is .*1.5"),
    (
        lambda tree: tree.attrs.update(bayesens_format=FORMAT + 1),
        "has format 3, and this bayesens reads formats up to 2: upgrade",
    ),
    (lambda tree: tree.attrs.pop("bayesens_options"), r"this fit \(BMA\) has lost 'bayesens_options'; .*or fit again"),
    (lambda tree: tree.__delitem__("posterior"), "has lost 'posterior'; wanted all that fit returned"),
]


@pytest.mark.parametrize(("change", "text"), NOT_FITS)
def test_not_a_fit(change, text, tmp_path):
    tree = fit()
    change(tree)
    with pytest.raises(ValueError, match=text):
        check_fit_tree(tree)
    with pytest.raises(ValueError, match=text):
        write_fit(tree, tmp_path / "fit.nc")
    assert os.listdir(tmp_path) == []
    tree.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=rf"fit.nc: .*{text}"):
        read_fit(tmp_path / "fit.nc")


def test_what_is_no_fit_file(tmp_path):
    xr.Dataset({"rf": ("obs", [1.0])}).to_netcdf(tmp_path / "classic.nc", engine="scipy")
    with pytest.raises(ValueError, match=r"classic.nc \(\d+ bytes\) is not a NetCDF-4 file: it starts with b'CDF"):
        read_fit(tmp_path / "classic.nc")
    write_table(table(), tmp_path / "t.nc")
    with pytest.raises(ValueError, match=r"t.nc: this is no bayesens fit"):
        read_fit(tmp_path / "t.nc")
    (tmp_path / "empty.nc").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty.nc \(0 bytes\) is not a NetCDF-4 file"):
        read_fit(tmp_path / "empty.nc")
    with pytest.raises(TypeError, match="got Dataset; wanted a fit"):
        check_fit_tree(xr.Dataset())
    with pytest.raises(ValueError, match=r"suffix '.zarr'; a fit is a NetCDF file"):
        write_fit(fit(), tmp_path / "fit.zarr")


def test_a_fit_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "fit.nc"
    write_fit(fit(), path)
    wrong = fit()
    wrong["posterior"] = wrong["posterior"].assign(odd=xr.DataArray(np.array([object()]), dims="x"))
    with pytest.raises((TypeError, ValueError)):
        write_fit(wrong, path)
    assert os.listdir(tmp_path) == ["fit.nc"]
    assert "odd" not in read_fit(path)["posterior"]


def test_public_names_are_here():
    assert all(hasattr(files, name) for name in files.__all__)
