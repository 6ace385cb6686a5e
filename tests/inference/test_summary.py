"""be.summary: the text of the command, tables of a notebook, and the public names around a fit."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import bayesens as be
from bayesens.app.cli.main import app
from bayesens.inference.fit_contents import read_contents
from bayesens.inference.summary import summary_of_file


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(1)
    y = rng.normal(size=80)
    frame = pd.DataFrame({"r&f": y + rng.normal(size=80), "svr": y + rng.normal(size=80), "sm": y})
    ensemble = be.Ensemble.from_frame(frame, members=["r&f", "svr"], observation="sm", units="m3 m-3")
    return be.fit(be.HBM(), ensemble, random_seed=1, draws=200, progressbar=False)


def test_the_text_is_what_the_command_prints(fit, tmp_path):
    path = tmp_path / "fit.nc"
    be.write_fit(fit, path)
    printed = CliRunner().invoke(app, ["describe", str(path)])
    assert printed.exit_code == 0
    assert printed.output == f"{path}\n{be.summary(be.read_fit(path))}\n"
    assert repr(be.summary(fit)) == str(be.summary(fit))


def test_a_file_is_read_as_a_tree_is(fit, tmp_path):
    """Also one that was written without its options in words, and what is no fit is told as `read_fit` tells it."""
    path = tmp_path / "fit.nc"
    be.write_fit(fit, path)
    assert str(summary_of_file(path)) == str(be.summary(fit))
    old = fit.copy()
    old.attrs = {name: value for name, value in fit.attrs.items() if name != "options_changed"}
    be.write_fit(old, path)
    assert str(summary_of_file(path)) == str(be.summary(fit))
    for attrs in ({}, {"bayesens_model": "HBM"}, old.attrs | {"bayesens_format": 3}):
        old.attrs = attrs
        old.to_netcdf(path, engine="h5netcdf")
        with pytest.raises(ValueError, match=r"no bayesens fit|upgrade bayesens"):
            summary_of_file(path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        summary_of_file(tmp_path / "none.nc")


def test_the_text_has_no_colours_where_a_terminal_would_have_them(fit, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in str(be.summary(fit))


def test_a_notebook_gets_tables(fit):
    page = be.summary(fit)._repr_html_()
    assert page.count("<table") == 1 + len(be.summary(fit).tables)
    assert "<td>80 observed rows, in m3 m-3</td>" in page
    assert "r&amp;f" in page
    assert "r&f" not in page
    assert all(title.split(":")[0] in page for title in be.summary(fit).tables if "'" not in title)


def test_parts_are_values(fit):
    told = be.summary(fit)
    assert told.facts["members"] == "r&f, svr"
    assert told.tables["By member: posterior median [90 % interval]"]["member"].tolist() == ["r&f", "svr"]


def test_what_is_no_fit_is_refused(fit):
    with pytest.raises(
        TypeError, match=r"got the model BMA in place of a fit; write fit = be.fit\(be.BMA\(\), ensemble\)"
    ):
        be.summary(be.BMA())
    with pytest.raises(ValueError, match="no bayesens fit"):
        be.summary(fit["posterior"])


def test_dir_has_public_names_only():
    names = dir(be)
    assert {"fit", "summary", "write_fit", "read_fit", "dependence_words", "plots", "__version__"} <= set(names)
    assert not [name for name in names if name.startswith("_") and name != "__version__"]
    assert {"annotations", "import_module", "TYPE_CHECKING", "Any"}.isdisjoint(names)
    assert all(hasattr(be, name) for name in names)


def test_words_of_dependence_are_public():
    y = np.random.default_rng(1).normal(size=60)
    frame = pd.DataFrame({"a": y + 0.1, "b": y - np.sin(y), "y": y, "site": np.arange(60) // 6})
    frame["a"] += np.random.default_rng(2).normal(size=60)
    found = be.dependence(
        be.Ensemble.from_frame(frame, members=["a", "b"], observation="y", site="site"), random_seed=1
    )
    assert isinstance(be.dependence_words(found), str)
    assert json.loads(found.attrs["notes"]) is not None


@pytest.mark.parametrize("model", [
    be.BMA(kernel="student_t"), be.BMA(weights="group"), be.EMOS(), be.LinearPool(), be.SingleMember(), be.Climatology(),
], ids=lambda model: f"{type(model).__name__}-{getattr(model, 'weights', '')}")  # fmt: skip
def test_files_of_other_models_are_read_as_their_trees_are(model, tmp_path):
    rng = np.random.default_rng(2)
    y = rng.normal(size=120)
    frame = pd.DataFrame(
        {"a": y + rng.normal(size=120), "b": y + rng.normal(size=120), "y": y, "g": np.arange(120) // 20}
    )
    ensemble = be.Ensemble.from_frame(frame, members=["a", "b"], observation="y", group="g")
    for method in ("auto",) if getattr(model, "weights", "") == "group" else ("em", "auto"):
        tree = be.fit(model, ensemble, method=method, random_seed=1, draws=100, progressbar=False)
        be.write_fit(tree, tmp_path / f"{method}.nc")
        assert read_contents(tmp_path / f"{method}.nc") is not None
        assert str(summary_of_file(tmp_path / f"{method}.nc")) == str(be.summary(tree))
