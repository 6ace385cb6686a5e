"""Figures of predictions and events through time show every row, at its time and station, and no line across a gap."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr

mpl.use("Agg")
from drawn import spans, texts
from matplotlib import pyplot as plt

from bayesens import plots


def test_daily_observations_through_years_are_dots():
    quantile = xr.DataArray(
        np.tile([0.1, 0.2, 0.3], (400, 1)), dims=("obs", "quantile"), coords={"quantile": [0.05, 0.5, 0.95]}
    )
    few, many = (plots.intervals(quantile[:n], np.full(n, 0.2)) for n in (100, 400))
    size = [next(line.get_markersize() for line in ax.lines if line.get_label() == "observation") for ax in (few, many)]
    assert size[0] > 2 * size[1]


class TestThroughTime:
    time = pd.date_range("2020-01-01", periods=6).to_numpy()
    late = np.r_[time[:3], time[3:] + np.timedelta64(60, "D")]

    def quantile(self, n=6):
        value = np.arange(n, dtype=float)[:, None] + [-1.0, 0.0, 1.0]
        return xr.DataArray(value, dims=("obs", "quantile"), coords={"quantile": [0.05, 0.5, 0.95]})

    def test_no_line_crosses_a_gap_and_every_row_is_drawn(self):
        whole, broken = (plots.intervals(self.quantile(), None, time) for time in (self.time, self.late))
        np.testing.assert_array_equal(whole.lines[0].get_ydata(), np.arange(6))
        np.testing.assert_array_equal(broken.lines[0].get_ydata(), [0, 1, 2, np.nan, 3, 4, 5])
        assert len(broken.collections[0].get_paths()) == 2

    def test_a_row_alone_between_gaps_is_a_bar(self):
        time = self.time.copy()
        time[5] += np.timedelta64(90, "D")
        ax = plots.intervals(self.quantile(), None, time)
        np.testing.assert_allclose(spans(ax.collections[1]), [[4, 6]])
        assert ax.lines[1].get_ydata() == [5]
        assert len(plots.intervals(self.quantile(1), None, self.time[:1]).collections) == 2

    def ensemble(self, **roles):
        from bayesens import Ensemble

        frame = pd.DataFrame({
            "rf": np.arange(6.0), "sm": np.arange(6.0) + 0.5, "station": list("bababa"), "date": self.time[[0, 0, 1, 1, 2, 2]],
        })  # fmt: skip
        roles = {"site": "station", "time": "date"} | roles
        return Ensemble.from_frame(frame, members=["rf"], observation="sm", units="mm", **roles)

    def test_panels_have_the_rows_of_their_station_the_axes_and_a_legend_in_common(self):
        panels = plots.intervals_by_station(self.quantile(), self.ensemble(), ["a", "b"])
        assert [panel.get_title(loc="left") for panel in panels] == ["a", "b"]
        for panel, rows in zip(panels, ([1, 3, 5], [0, 2, 4]), strict=True):
            np.testing.assert_array_equal(panel.lines[0].get_ydata(), rows)
            np.testing.assert_array_equal(panel.lines[1].get_ydata(), np.add(rows, 0.5))
            assert panel.get_legend() is None
        assert panels[0].get_ylim() == panels[1].get_ylim()
        figure = panels[0].figure
        assert texts(figure.legends[0].get_texts()) == ["median", "90 % interval", "observation"]
        assert figure.get_supylabel() == "Prediction [mm]"

    def test_panels_in_a_given_figure_without_empty_ones(self):
        figure = plt.figure(figsize=(3.35, 3))
        panels = plots.intervals_by_station(self.quantile(), self.ensemble(), ["a", "b", "a"], columns=2, figure=figure)
        assert figure.axes == list(panels)
        assert plt.get_fignums() == [figure.number]
        figure.canvas.draw()
        assert figure.legends[0].get_window_extent().x1 <= figure.bbox.width

    def test_refusals_of_panels(self):
        with pytest.raises(ValueError, match="has 5 rows and the ensemble 6"):
            plots.intervals_by_station(self.quantile(5), self.ensemble(), ["a"])
        with pytest.raises(ValueError, match="no sites or no times"):
            plots.intervals_by_station(self.quantile(), self.ensemble(time=None), ["a"])
        with pytest.raises(KeyError, match="no station 'c'"):
            plots.intervals_by_station(self.quantile(), self.ensemble(), ["c"])
        with pytest.raises(ValueError, match="wanted a list of one station"):
            plots.intervals_by_station(self.quantile(), self.ensemble(), "a")

    def test_events_are_strips_of_a_row_each_and_unknown_ones_blank(self):
        ax = plots.event_probability([0.1, 0.7, 0.8, 0.2, 0.3, 0.4], [0, 1, 1, np.nan, 0, 1])
        np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.1, 0.7, 0.8, 0.2, 0.3, 0.4])
        ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
        assert ends == [(0.5, 2.5), (4.5, 5.5), (-0.5, 0.5), (3.5, 4.5)]
        assert {bar.get_y() + bar.get_height() < 0 for bar in ax.patches} == {True}

    def test_strips_of_dates_end_at_gaps(self):
        from matplotlib.dates import date2num

        p = xr.DataArray(np.full(6, 0.5), dims="obs", coords={"time": ("obs", self.late)})
        ax = plots.event_probability(p[::-1], np.ones(6))
        day = date2num(self.late)
        ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
        np.testing.assert_allclose(ends, [(day[0] - 0.5, day[2] + 0.5), (day[3] - 0.5, day[5] + 0.5)])
        assert np.isnan(ax.lines[0].get_ydata()).sum() == 1

    @pytest.mark.parametrize(
        ("probability", "event", "text"),
        [([0.5, 1.5], None, "between 0 and 1"), ([np.nan], None, "there must be some"), ([0.5], [2], "event has the value 2"),
         ([0.5], [1, 0], "wanted one length")],
    )  # fmt: skip
    def test_refusals_of_probabilities(self, probability, event, text):
        with pytest.raises(ValueError, match=text):
            plots.event_probability(probability, event)
