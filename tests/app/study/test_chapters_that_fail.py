"""What a report says of a chapter that cannot be made, and what is refused before the work begins."""

import numpy as np
import pytest
import xarray as xr
from small_study import TEXT, run, table

from bayesens import plots
from bayesens.app.study import folder as written
from bayesens.app.study import run as runner
from bayesens.app.study.file import read_study
from bayesens.app.study.maps.pictures import varies
from bayesens.app.study.run import run_study
from bayesens.comparison.compare import held_out

pytestmark = pytest.mark.filterwarnings("ignore:EM found")


def test_a_chapter_that_cannot_be_made_is_said_and_the_others_are_there(tmp_path, monkeypatch):
    def coverage(results):
        raise ValueError("none of 3 rows has *what* it needs")

    monkeypatch.setattr(written, "coverage", coverage)
    table(tmp_path)
    with pytest.warns(UserWarning, match="The chapter 'Coverage' failed, and the report goes without: none of 3 rows"):
        done = run(tmp_path, TEXT.replace('"site", "time"', '"site"'))
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "failed: none of 3 rows has *what* it needs" in page
    assert "Through time" in page
    assert {"tables/scores.csv", "fits/bma.nc"} <= set(done.files)


def test_parts_and_figures_that_fail_are_said_and_the_others_are_there(tmp_path, monkeypatch):
    def fails(*args, **options):
        raise ValueError(f"no use for {len(args)} things")

    monkeypatch.setattr(
        runner, "held_out", lambda *args, **options: (fails if "part" in options else held_out)(*args, **options)
    )
    monkeypatch.setattr(runner, "recalibrated", fails)
    monkeypatch.setattr(plots, "stations", fails)
    table(tmp_path)
    text = TEXT.replace('"site", "time"', '"site"') + "[ladder]\n[recalibration]\n"
    with pytest.warns(UserWarning, match="and the report goes without") as caught:
        done = run(tmp_path, text)
    failed = ("The ladder of models", 2), ("Recalibrating", 1), ("the figure 'stations'", 1)
    for (what, things), one in zip(failed, caught, strict=True):
        assert str(one.message).startswith(what)
        assert str(one.message).endswith(f"the report goes without: no use for {things} things")
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert 'id="ladder"' in page
    assert "The ladder of models failed: no use for 2 things" in page
    assert "Recalibrating failed: no use for 1 things" in page
    assert "The figure stations could not be drawn: no use for 1 things" in page
    assert {"figures/pit.svg", "figures/pit.png", "tables/scores.csv"} <= set(done.files)
    assert not any("stations." in file and "figures" in file for file in done.files)


@pytest.mark.filterwarnings("ignore:36 of 36 thresholds")
def test_a_drought_without_a_threshold_is_refused_before_the_work(tmp_path):
    table(tmp_path)
    (tmp_path / "study.toml").write_text(TEXT + '[drought]\nby = "season"\n', encoding="utf-8")
    said = []
    with pytest.raises(ValueError, match=r"no station has 30 observations in a season, .* \(drought.min_count"):
        run_study(tmp_path / "study.toml", tmp_path / "out", say=said.append, progressbar=False)
    assert not any("Scoring" in text for text in said)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [12.345678, 1e-4, -3e5])
def test_a_map_of_one_number_does_not_vary(dtype, value):
    """The standard deviation of single numbers that are equal is not zero: it was above 1e-9 of their mean."""
    field = xr.DataArray(np.full((50, 48), value, dtype), dims=("y", "x"))
    assert not varies(field)
    assert not varies(field.where(field["x"] > 50))
    assert varies(field * (1 + xr.DataArray(1e-4 * np.arange(48), dims="x")).astype(dtype))


@pytest.mark.parametrize(
    ("change", "text", "error"),
    [
        ({"network": "one"}, TEXT.replace('"time"]', '"group"]'), "the estimand 'group' needs two groups"),
        ({}, TEXT.replace("folds = 3", "folds = 10"), "10 folds of 9 sites"),
        ({}, TEXT + '[representativeness]\ncell = "lon"\n', "no cell has two stations at the same time"),
    ],
)
def test_what_a_later_part_cannot_do_is_refused_before_the_work(tmp_path, change, text, error):
    """The folds of all estimands and the cells with several stations are looked at first."""
    table(tmp_path, **change)
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    said = []
    with pytest.raises(ValueError, match=error):
        run_study(tmp_path / "study.toml", tmp_path / "out", say=said.append, progressbar=False)
    assert not any("Scoring" in one for one in said)


def test_stations_that_stand_for_a_cell_need_times(tmp_path):
    table(tmp_path)
    text = (
        TEXT.replace('time = "date"\n', "").replace('["site", "time"]', '["site"]')
        + '[representativeness]\ncell = "lon"\n'
    )
    (tmp_path / "study.toml").write_text(text.replace(', "season"', ""), encoding="utf-8")
    with pytest.raises(ValueError, match=r"\[representativeness\] needs data.time: name the column"):
        read_study(tmp_path / "study.toml")


@pytest.mark.filterwarnings("ignore:.* failed and is left out")
def test_a_part_of_the_sensitivity_that_fails_is_said_and_the_others_are_there(tmp_path):
    """EMOS takes its variance from differences of members, and has none of one member."""
    table(tmp_path)
    text = (
        TEXT[: TEXT.index("[models.BMA]")]
        + '[models.EMOS]\nmodel = "emos"\nmethod = "em"\n\n'
        + TEXT[TEXT.index("[evaluation]") :]
    )
    text = (
        text.replace('"site", "time"', '"site"')
        + '[sensitivity]\nmembers = ["member"]\nstations = [0.3]\nreplicates = 2\n'
    )
    with pytest.warns(UserWarning, match="Leaving members out of EMOS failed, .* EMOS takes its variance from how"):
        done = run(tmp_path, text)
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "Leaving members out of EMOS failed: " in page
    assert "figures/learning_curve.png" in done.files
