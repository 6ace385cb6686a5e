"""What a report says of a chapter that cannot be made, and what is refused before the work begins."""

import numpy as np
import pytest
import xarray as xr
from small_study import TEXT, run, table

from bayesens.app.study import folder as written
from bayesens.app.study.maps.pictures import varies
from bayesens.app.study.run import run_study

pytestmark = pytest.mark.filterwarnings("ignore:EM found")


def test_a_chapter_that_cannot_be_made_is_said_and_the_others_are_there(tmp_path, monkeypatch):
    def coverage(results):
        raise ValueError("none of 3 rows has *what* it needs")

    monkeypatch.setattr(written, "coverage", coverage)
    table(tmp_path)
    with pytest.warns(UserWarning, match="the chapter 'Coverage' of the report could not be made: none of 3 rows"):
        done = run(tmp_path, TEXT.replace('"site", "time"', '"site"'))
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "This chapter could not be made: none of 3 rows has *what* it needs" in page
    assert "Through time" in page
    assert {"tables/scores.csv", "fits/bma.nc"} <= set(done.files)


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
