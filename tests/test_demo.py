"""The demo: its folder, the choice of stations, the true values that it compares with, and all of it once."""

import json
import os
import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

import bayesens as be
from bayesens import demo, simulate
from bayesens.cli import app
from bayesens.options import options_to_json

# Few rows: EM has several optima, and no station held out was seen.
pytestmark = pytest.mark.filterwarnings("ignore:EM found", "ignore:.* that the fit has not seen")

MEMBERS = list(simulate.REGION_MEMBER)
FILES = {
    "README.txt", "demo.json", "train.csv", "held_out.csv", "scores.csv", "recovered.csv", "predictions_bma.csv",
    "predictions_hbm.csv", *(f"fits/{name}.nc" for name in ("bma", "hbm", "climatology", "best_member", "equal_weights")),
    *(f"figures/{name}.png" for name in ("intervals", "scores", "coverage", "pit", "weights", "recovered", "biases")),
}  # fmt: skip


def near_truth(ensemble, draws=200):
    """A fit of HBM that nobody sampled: draws around values like those that the region is made of."""
    rng = np.random.default_rng(1)
    dims = {"member": MEMBERS, "member_": MEMBERS, "group": ensemble.levels("group"), "site": ensemble.levels("site")}

    def around(center, *names, spread=0.004):
        value = np.broadcast_to(np.asarray(center, float), tuple(len(dims[name]) for name in names))
        return ("chain", "draw", *names), value + spread * rng.normal(size=(2, draws, *value.shape))

    corr = 0.7 + 0.3 * np.eye(4)
    named = {f"{level}_corr": (("chain", "draw", "member", "member_"), np.broadcast_to(corr, (2, draws, 4, 4)))
             for level in ("residual", "bias_site", "bias_group")}  # fmt: skip
    for level in ("site", "group"):
        named |= {
            f"truth_{level}": around(0, level), f"truth_{level}_sd": around(0.025, spread=0.001),
            f"bias_{level}": around(0, level, "member"), f"bias_{level}_sd": around(0.015, "member", spread=0.001),
            f"slope_{level}": around([0.8, 0.68, 0.74, 0.86], "member", spread=0.02),
        }  # fmt: skip
    named |= {
        "truth_mean": around(0.22), "truth_sd": around(0.05, spread=0.001),
        "bias": around([0.008, -0.012, 0.02, -0.004], "member"),
        "slope": around([0.775, 0.658, 0.716, 0.832], "member", spread=0.02),
        "error_sd": around([0.027, 0.034, 0.031, 0.028], "member", spread=0.001),
        "linear_weight": around([0.6, -0.2, 0, 0.4], "member", spread=0.05),
    }  # fmt: skip
    tree = be.fit(be.BMA(), ensemble, method="em")
    tree["posterior"] = xr.DataTree(xr.Dataset(named, dims | {"chain": [0, 1], "draw": range(draws)}))
    model = be.HBM().resolve(ensemble)
    tree["history"] = xr.DataTree(model.history(ensemble))
    options = options_to_json(model)
    tree.attrs |= {"bayesens_model": "HBM", "bayesens_options": json.dumps(options), "point_estimate": 0, "method": "nuts",
                   "rhat_max": 1.0, "ess_min": 400.0, "divergences": 0}  # fmt: skip
    del tree.attrs["optima"]
    return tree


@pytest.fixture
def quick(monkeypatch):
    """Let the demo make its fits without a sampler."""

    def fit(model, ensemble, **_):
        return near_truth(ensemble) if isinstance(model, be.HBM) else be.fit(model, ensemble, method="em")

    monkeypatch.setattr(demo, "fit", fit)


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_what_the_readme_says_and_replaces_a_former_one(quick, tmp_path):
    said = []
    out = tmp_path / "demo"
    result = demo.run_demo(out, n_times=20, say=said.append)
    assert files(out) == FILES == set(result.files)
    assert os.listdir(tmp_path) == ["demo"]
    assert said[0] == "Simulated 560 rows at 28 stations; 7 of them are held out."
    assert sum(line.startswith("Fitting") for line in said) == 5

    train, held = (pd.read_csv(out / f"{name}.csv") for name in ("train", "held_out"))
    assert not set(train["station"]) & set(held["station"])
    assert set(train["network"]) == set(held["network"])
    scores = pd.read_csv(out / "scores.csv", index_col="model")
    pd.testing.assert_frame_equal(scores, result.scores, rtol=1e-9)
    tree = be.read_fit(out / "fits" / "hbm.nc")
    roles = {"observation": "sm", "site": "station", "group": "network"}
    rows = be.score(tree, be.Ensemble.from_frame(held, members=MEMBERS, **roles))
    assert scores.loc["HBM", "crps"] == pytest.approx(float(rows["crps"].mean()))
    predicted = pd.read_csv(out / "predictions_hbm.csv")
    assert predicted["sm"].tolist() == held["sm"].tolist()
    inside = (predicted["q05"] <= predicted["sm"]) & (predicted["sm"] <= predicted["q95"])
    assert inside.mean() == pytest.approx(scores.loc["HBM", "coverage_90"])

    text = (out / "README.txt").read_text(encoding="utf-8")
    assert result.findings in text
    assert f"hold {100 * inside.mean():.0f} % of the observations" in text
    for path in FILES - {"demo.json", "README.txt"}:
        name = path.rsplit("/", 1)[-1]
        assert name in text or path.startswith(("fits/", "predictions_")), path

    (out / "scores.csv").write_text("spoilt", encoding="utf-8")
    demo.run_demo(out, n_times=20, random_seed=2, say=said.append)
    assert (out / "scores.csv").read_text(encoding="utf-8") != "spoilt"
    assert json.loads((out / "demo.json").read_text(encoding="utf-8"))["random_seed"] == 2
    assert os.listdir(tmp_path) == ["demo"]

    (out / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"holds 1 files that no demo wrote, 'mine.txt'; name a new folder"):
        demo.run_demo(out, say=said.append)
    assert (out / "mine.txt").exists()


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(simulate, "region", lambda **_: pytest.fail("the work began"))
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("", encoding="utf-8")
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    for out, error, text in (
        (tmp_path / "file", NotADirectoryError, "is a file; the demo writes a folder"),
        (tmp_path / "full", FileExistsError, "holds 1 files that no demo wrote, 'thesis.tex'"),
        (tmp_path / "no" / "demo", FileNotFoundError, "does not exist; create it first"),
        (tmp_path / "file" / "demo", NotADirectoryError, "is a file, not a folder"),
        (".", ValueError, "is the folder that you are in, or above it"),
        (tmp_path, ValueError, "is the folder that you are in, or above it"),
    ):
        with pytest.raises(error, match=text):
            demo.run_demo(out)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "full")])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")


def test_a_demo_that_fails_leaves_nothing_and_keeps_the_former_one(quick, tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    former = {"files": ["demo.json"]}
    (tmp_path / "demo" / "demo.json").write_text(json.dumps(former), encoding="utf-8")
    monkeypatch.setattr(demo, "_write", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        demo.run_demo(tmp_path / "demo", n_times=10, say=lambda _: None)
    assert os.listdir(tmp_path) == ["demo"]
    assert json.loads((tmp_path / "demo" / "demo.json").read_text(encoding="utf-8")) == former


def test_about_a_quarter_of_the_stations_of_every_network_are_held_out():
    frame = simulate.region(n_times=2, random_seed=1).frame
    held = demo.held_out_stations(frame, random_seed=1)
    counts = frame[frame["station"].isin(held)].drop_duplicates("station")["network"].value_counts()
    assert counts.sort_index().tolist() == [3, 2, 2]
    assert held == demo.held_out_stations(frame, random_seed=1) != demo.held_out_stations(frame, random_seed=2)


def test_true_values_are_those_that_many_rows_show():
    """Regressions within stations of a long simulation: standard errors of 0.002 and less."""
    region = simulate.region(n_times=3000, random_seed=3)
    names = ["sm", *MEMBERS]
    frame = region.frame.dropna()
    apart = frame[names] - frame.groupby("station")[names].transform("mean")
    slope = apart[MEMBERS].T @ apart["sm"] / (apart["sm"] @ apart["sm"])
    rest = apart[MEMBERS] - np.outer(apart["sm"], slope)
    ensemble = be.Ensemble.from_frame(frame.iloc[::50], **demo.COLUMNS)
    table = demo.recovery(near_truth(ensemble), region)
    true = {name: part.set_index("member")["true"] for name, part in table.groupby("parameter")}
    np.testing.assert_allclose(true["slope"][MEMBERS], slope, atol=0.01)
    np.testing.assert_allclose(true["error_sd"][MEMBERS], rest.std(), rtol=0.01)
    for pair, value in true["error_corr"].items():
        one, other = pair.split(", ")
        assert value == pytest.approx(rest[one].corr(rest[other]), abs=0.01)
    # At the centre of the fit, networks differ from the mean bias by their own shift.
    shift = table.query("parameter == 'bias_network' and network == 'net2'").set_index("member")["true"] - true["bias"]
    np.testing.assert_allclose(shift[MEMBERS], region.truth["bias_group"].loc["net2", MEMBERS])
    assert (table["inside"] == ((table["q05"] <= table["true"]) & (table["true"] <= table["q95"]))).all()


def test_findings_claim_no_difference_that_stations_do_not_show():
    rng = np.random.default_rng(1)
    site = np.repeat([f"s{i}" for i in range(7)], 20)

    def scores(crps):
        return xr.Dataset({"crps": ("obs", crps)}, {"site": ("obs", site)})

    crps = rng.uniform(1, 2, len(site))
    percent, low, high = demo._difference({"a": scores(0.9 * crps), "b": scores(crps)}, "a", "b")
    assert (percent, low, high) == (pytest.approx(-10), pytest.approx(-10), pytest.approx(-10))
    other = crps + np.where(site == "s0", 3, -0.4)  # worse at one station, better at all others
    percent, low, high = demo._difference({"a": scores(other), "b": scores(crps)}, "a", "b")
    assert low < percent < high
    assert low < 0 < high


@pytest.mark.slow  # timed: it wants a machine to itself
def test_the_whole_demo(tmp_path):
    begin = time.perf_counter()
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo")])
    seconds = time.perf_counter() - begin
    assert result.exit_code == 0, result.output
    assert "Warning" not in result.stderr
    assert files(tmp_path / "demo") == FILES
    scores = pd.read_csv(tmp_path / "demo" / "scores.csv", index_col="model")
    # Whatever the seed: models with members beat climatology by far, and 90 % intervals at 7 stations are not far off.
    assert (scores.drop("Climatology")["crps"] < 0.8 * scores.loc["Climatology", "crps"]).all()
    assert scores.loc[["BMA", "HBM"], "coverage_90"].between(0.75, 0.99).all()
    # 30 intervals of 90 %, of values whose errors go together; a wrong sign or scale would lose most of them.
    assert pd.read_csv(tmp_path / "demo" / "recovered.csv")["inside"].sum() >= 20
    assert seconds < 180
