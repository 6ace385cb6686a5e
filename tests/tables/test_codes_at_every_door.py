"""Codes for missing values in grids, streams, members, comparisons, commands and studies: refused, or read where named."""

import numpy as np
import pytest
import xarray as xr
from coded_tables import MEMBERS, door, spoilt, table
from sklearn.linear_model import LinearRegression
from typer.testing import CliRunner

import bayesens as be
from bayesens.app.cli.main import app
from bayesens.app.study.data import study_data
from bayesens.app.study.file import study_from_text
from bayesens.app.study.template import study_template
from bayesens.comparison.compare import compare
from bayesens.ensemble.files import read_ensemble
from bayesens.ensemble.streaming import SufficientStatistics

# Every door ----------------------------------------------------------------------------------------------------------


def grid(**attrs):
    values = np.random.default_rng(0).normal(0.3, 0.05, (5, 8))
    values[1, 2] = values[3, 4] = -9999.0
    return xr.Dataset({"rf": (("y", "x"), values, attrs), "svr": (("y", "x"), values[::-1] * 0.5 + 0.1)}).assign(
        svr=(("y", "x"), np.random.default_rng(1).normal(0.3, 0.05, (5, 8)))
    )


def test_grids_and_what_their_attributes_say():
    with pytest.raises(ValueError, match="'rf' holds -9999 in 2 of 40 rows"):
        be.Ensemble.from_dataset(grid(), members=["rf", "svr"])
    assert be.Ensemble.from_dataset(grid(), members=["rf", "svr"], missing=-9999).codes == {"rf": {-9999.0: 2}}
    for attrs in (
        {"_FillValue": -9999.0},
        {"missing_value": np.float32(-9999)},
        {"missing_value": np.array([-1.0, -9999.0])},
    ):
        made = be.Ensemble.from_dataset(grid(**attrs), members=["rf", "svr"])
        assert made.codes == {"rf": {-9999.0: 2}}
    odd = grid(_FillValue=0.125)  # no known code, and not far off
    odd["rf"][0, 0] = 0.125
    assert be.Ensemble.from_dataset(odd, members=["rf", "svr"], missing=-9999).codes == {"rf": {-9999.0: 2, 0.125: 1}}
    with pytest.raises(
        ValueError, match=r"variable 'rf' \(40 values\) has the attribute 'scale_factor', so its numbers are packed"
    ):
        be.Ensemble.from_dataset(grid(scale_factor=0.01), members=["rf", "svr"])


def test_a_dataset_of_an_ensemble_has_passed_the_door(tmp_path):
    made = door(spoilt(["rf"], -9999.0), missing="none")
    made.dataset.to_netcdf(tmp_path / "e.nc", engine="h5netcdf")
    back = read_ensemble(tmp_path / "e.nc")
    assert back.digest == made.digest
    named = door(spoilt(["rf"], -9999.0), missing=-9999)
    assert be.Ensemble.from_dataset(named.dataset).codes == named.codes


def test_streams_refuse_and_read_codes():
    frame = spoilt(["rf"], -9999.0)
    parts = [frame[:100], frame[100:]]
    columns = {"members": MEMBERS, "observation": "sm"}
    with pytest.raises(ValueError, match=r"chunk 0 .* column 'rf' holds -9999 in 10 of 100 rows"):
        SufficientStatistics.from_frames(parts, **columns)
    streamed = SufficientStatistics.from_frames(parts, missing=-9999, **columns)
    assert streamed.digest == SufficientStatistics.from_frames([spoilt(["rf"], np.nan)], **columns).digest


def test_training_tables_of_members_and_grids_that_they_predict():
    frame = table().assign(rain=np.random.default_rng(0).gamma(1.0, 3.0, 240), ndvi=np.linspace(0.1, 0.8, 240))
    X, roles = ["rain", "ndvi"], {"site": frame["station"]}
    bad = spoilt(["ndvi"], -9999.0, frame=frame)
    make = {"mlr": LinearRegression()}
    with pytest.raises(ValueError, match="column 'ndvi' holds -9999 in 24 of 240 rows"):
        be.Members(make, bad[X], frame["sm"], **roles)
    with pytest.raises(ValueError, match="column 'sm' holds -9999 in 24 of 240 rows"):
        be.cross_fit(make, frame[X], spoilt(["sm"], -9999.0)["sm"], progressbar=False, **roles)
    members = be.Members(make, bad[X], frame["sm"], missing={"ndvi": -9999}, **roles)
    assert int(members.rows.X["ndvi"].isna().sum()) == 24
    fitted = be.Members(make, frame[X], frame["sm"], **roles).fit(progressbar=False)
    with pytest.raises(ValueError, match="column 'ndvi' holds -9999 in 3 of 5 rows"):
        fitted.predict(frame[X].head().assign(ndvi=[0.3, 0.4, -9999.0, -9999.0, -9999.0]))
    product = be.Members({}, frame[X], frame["sm"], products=spoilt(["rf"], 1e20)[["rf"]], missing=1e20, **roles)
    assert np.isnan(product.rows.products["rf"]).sum() == 24


def test_products_of_a_comparison():
    ensemble, options = door(table()), {"estimand": "site", "folds": 3, "method": "em", "progressbar": False}
    product = table(seed=5)["rf"].to_numpy(copy=True)
    product[::10] = -9999.0
    with pytest.raises(ValueError, match="product 'SMAP' holds -9999 in 24 of 240 rows"):
        compare({"BMA": be.BMA()}, ensemble, products={"SMAP": product}, **options)
    with pytest.warns(UserWarning, match="24 of 240 observed rows are left out"):
        rows = compare({"BMA": be.BMA()}, ensemble, products={"SMAP": product}, missing=-9999, **options)
    assert rows.sizes["obs"] == 216


# The command line and studies ----------------------------------------------------------------------------------------


def command(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def test_commands_take_the_codes(tmp_path):
    path, out = tmp_path / "t.csv", tmp_path / "fit.nc"
    spoilt(["rf"], -9999.0).to_csv(path, index=False)
    words = ["--members", "rf,svr,xgb,mlr", "--observation", "sm", "--site", "station"]
    fit = ["fit", path, *words, "--out", out, "--method", "em"]
    assert "'rf' holds -9999 in 24 of 240 rows" in command(*fit, code=1).stderr
    assert "Read as missing: -9999 in 24 rows of 'rf'" in command(*fit, "--missing", "-9999").stderr
    predict = ["predict", out, path, "--out", tmp_path / "p.csv"]
    assert "--missing -9999" in command(*predict, code=1).stderr
    assert "24 rows of 'rf'" in command(*predict, "--missing", "rf=-9999").stderr
    assert "24 rows of 'rf'" in command("score", out, path, "--missing", "-9999,-999").stderr
    assert "'rf' holds -9999" in command("score", out, path, "--missing", "svr=none", code=1).stderr
    assert "wanted numbers" in command(*fit, "--missing", "NA", code=1).stderr


STUDY = """
[data]
table = "{table}"
observation = "sm"
site = "station"
{missing}

[members]
columns = ["rf", "svr"]

[products]
coarse = "mlr"

[models.BMA]
model = "bma"
"""


def test_studies_take_the_codes(tmp_path):
    path = tmp_path / "t.csv"
    spoilt(["rf", "mlr"], -9999.0).to_csv(path, index=False)

    def data(missing):
        return study_data(study_from_text(STUDY.format(table=path, missing=missing)))

    for none in ("", "missing = []"):
        with pytest.raises(ValueError, match=r"'rf' holds -9999 in 24 of 240 rows.*in a study: data\.missing"):
            data(none)
    for some in (
        "missing = [-9999]",
        "missing = -9999",
        'missing = {"*" = -9999}',
        "missing = {rf = [-9999], mlr = -9999}",
    ):
        found = data(some)
        assert np.isnan(found.source.prediction[:, 0]).sum() == 24
        assert np.isnan(found.products["coarse"]).sum() == 24
        assert found.codes == {"rf": {-9999.0: 24}, "mlr": {-9999.0: 24}}
    assert (data('missing = "none"').source.prediction[::10, 0] == -9999.0).all()
    with pytest.raises(ValueError, match=r"data\.missing names 'rff'; did you mean 'rf'"):
        data("missing = {rff = -9999}")


def test_init_asks_for_the_codes_and_writes_them(tmp_path):
    frame = spoilt(["rf"], -9999.0)
    with pytest.raises(ValueError, match="'rf' holds -9999 in 24 of 240 rows"):
        study_template(frame, "t.csv")
    text = study_template(frame, "t.csv", missing=-9999)
    assert "missing = [-9999]" in text
    assert '"rf"' in study_from_text(text).model_dump_json()
    frame.to_csv(tmp_path / "t.csv", index=False)
    command("init", tmp_path / "t.csv", "--out", tmp_path / "s.toml", "--missing", "-9999")
    assert study_data(study_from_text((tmp_path / "s.toml").read_text(), folder=tmp_path)).codes == {
        "rf": {-9999.0: 24}
    }
