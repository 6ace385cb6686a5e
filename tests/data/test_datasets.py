"""Example data: the table as it is documented, from copies and by download, and what is no data of ours."""

import http.server
import shutil
import threading
from functools import partial

import pandas as pd
import pytest

from bayesens import datasets
from bayesens.datasets import oznet
from shared_data import shared_data


@pytest.fixture(scope="module")
def raw():
    return shared_data("oznet", "raw", "OzNet_study_sites.csv").parent


def test_is_the_table_that_was_published_with_four_columns_more(raw):
    wanted = pd.read_csv(shared_data("oznet", "oznet_daily.csv.gz"), parse_dates=["time"])
    found = oznet(path=raw, drop_copies=False)
    order = ["station", "time"]
    pd.testing.assert_frame_equal(
        found.sort_values(order, ignore_index=True).astype(wanted.dtypes.to_dict())[list(wanted)],
        wanted.sort_values(order, ignore_index=True),
    )
    assert found.attrs["units"]["insitu_sm"] == "m3 m-3"


def test_copies_are_left_out_and_years_chosen(raw, monkeypatch):
    monkeypatch.setenv("BAYESENS_DATA", str(raw.parent.parent))
    found = oznet(years=range(2016, 2020))
    assert found["station"].nunique() == 26
    assert not {"y8", "y9"} & set(found["station"])
    assert sorted(found["time"].dt.year.unique()) == [2016, 2017, 2018, 2019]
    assert set(oznet(years=2021)["time"].dt.year) == {2021}
    with pytest.raises(ValueError, match="years has 2031; wanted years from 2016 to 2021"):
        oznet(years=[2020, 2031])


def test_a_folder_without_the_files_and_a_file_that_was_changed(raw, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no OzNet_study_sites.csv.*unset BAYESENS_DATA"):
        oznet(path=tmp_path)
    shutil.copytree(raw, tmp_path / "raw")
    changed = tmp_path / "raw" / "OzNet_cleaned_data" / "OzNet_y5_cleaned_data.csv"
    changed.write_text(changed.read_text().replace("0.1", "0.2", 1))
    with pytest.raises(ValueError, match=r"y5_cleaned_data.csv is not the file that was published"):
        oznet(path=tmp_path)
    changed.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no OzNet_cleaned_data/OzNet_y5_cleaned_data.csv; copy the file from http"
    ):
        oznet(path=tmp_path)


@pytest.fixture
def server(raw, tmp_path, monkeypatch):
    """The origin, on this machine, with an empty cache."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "origin"))) as there:
        threading.Thread(target=there.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets, "ORIGIN", f"http://127.0.0.1:{there.server_port}/")
        monkeypatch.delenv("BAYESENS_DATA", raising=False)
        monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
        yield tmp_path
        there.shutdown()


def test_files_are_downloaded_once_and_checked(server, raw):
    shutil.copytree(raw, server / "origin")
    first = oznet(progressbar=False)
    shutil.rmtree(server / "origin")
    pd.testing.assert_frame_equal(oznet(progressbar=False), first)


@pytest.mark.slow
def test_another_file_or_none_in_its_place_is_said(server, raw):
    with pytest.raises(ConnectionError, match=r"could not download OzNet_study_sites.csv .*oznet\(path=\.\.\.\)"):
        oznet(progressbar=False)
    (server / "origin").mkdir(exist_ok=True)
    (server / "origin" / "OzNet_study_sites.csv").write_text("<html>sign in</html>")
    with pytest.raises(ValueError, match="is not the file that was published; try again"):
        oznet(progressbar=False)


def test_years_may_be_numpy_integers_and_must_be_some(raw):
    assert set(oznet(path=raw, years=pd.Series([2020]).iloc[0])["time"].dt.year) == {2020}
    with pytest.raises(ValueError, match="years is empty; wanted years such as range"):
        oznet(path=raw, years=[])


def test_atlanta_and_the_grids_are_the_files_that_are_known(monkeypatch, tmp_path):
    root = shared_data("atlanta", "grid_200406.nc").parent
    table = datasets.atlanta(path=root, years=2004)
    assert (len(table), table["monitor"].nunique(), table["date"].dt.year.unique().tolist()) == (4266, 37, [2004])
    assert table.attrs["units"]["pm25"] == "ug m-3"
    monkeypatch.setenv("BAYESENS_DATA", str(root.parent))
    grid = datasets.atlanta_grid()
    assert int(grid["aod"].notnull().sum()) == 30_027  # as the source says
    assert datasets.oznet_grid().sizes == {"lat": 100, "lon": 100}
    (tmp_path / "grid_200406.nc").write_bytes(b"a sign-in page")
    with pytest.raises(ValueError, match=r"is not the file that bayesens knows as grid_200406\.nc; copy it anew"):
        datasets.atlanta_grid(path=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no atlanta_daily\.csv\.gz, nor has atlanta in it or beside it"):
        datasets.atlanta(path=tmp_path)
    monkeypatch.delenv("BAYESENS_DATA")
    with pytest.raises(
        FileNotFoundError,
        match=r"oznet_grid\(\) reads .* name one as path, or in the environment variable BAYESENS_DATA",
    ):
        datasets.oznet_grid()
