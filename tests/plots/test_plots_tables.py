"""Figures of scores, differences, importance and bands show the numbers, intervals and names of their tables."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")
from drawn import markers, spans, texts
from matplotlib import pyplot as plt

from bayesens import plots


class TestTables:
    def differences(self):
        return pd.DataFrame({
            "model": ["HBM", "Equal", "HBM"], "reference": "BMA", "estimand": ["site", "site", "time"], "metric": ["crps"] * 3,
            "unit": "percent", "difference": [-2.0, 5.0, 1.0], "low": [-5.0, 3.0, -1.0], "high": [0.5, 7.0, 3.0],
        })  # fmt: skip

    def test_differences_show_intervals_and_which_leave_out_zero(self):
        ax = plots.differences(self.differences())
        segments = np.array(ax.collections[0].get_segments())
        np.testing.assert_allclose(segments[:, :, 0], [[-5, 0.5], [3, 7], [-1, 3]])
        clear, held = markers(ax)
        np.testing.assert_allclose(clear, [[5, 1]])
        np.testing.assert_allclose(held, [[-2, 0], [1, 2]])
        assert texts(ax.get_yticklabels()) == ["HBM (site)", "Equal (site)", "HBM (time)"]
        assert texts(ax.get_legend().get_texts()) == ["within 1 %", "interval leaves out 0", "interval holds 0"]
        with pytest.raises(ValueError, match=r"no differences of 'r' in percent; it has \['crps'\]"):
            plots.differences(self.differences(), metric="r")

    def test_importance_is_ordered_by_its_mean_and_shows_sds(self):
        table = pd.DataFrame({
            "member": ["rf", "rf", "mlr", "mlr"], "covariate": ["dem", "rain", "dem", "rain"], "percent": [5.0, 40.0, 7.0, 20.0],
            "loss": [0.5, 0.5, 1.0, 1.0], "rise_sd_fold": [0.01, 0.1, 0.02, 0.05],
        })  # fmt: skip
        ax = plots.importance(table)
        assert texts(ax.get_yticklabels()) == ["rain", "dem"]
        rf, mlr = markers(ax)
        np.testing.assert_allclose(rf[:, 0], [5, 40])
        assert (np.round(rf[:, 1]) == [1, 0]).all()
        assert (rf[:, 1] < mlr[:, 1]).all()
        np.testing.assert_allclose(np.array(ax.collections[0].get_segments())[:, :, 0], [[3, 7], [20, 60]])

    def test_bands_are_side_by_side_with_their_intervals(self):
        index = pd.MultiIndex.from_product([["Moran's I", "low", "high"], ["0-50 %", "50-100 %"]])
        table = pd.DataFrame(
            {"BMA": [0.9, 0.8, 0.85, 0.75, 0.95, 0.85], "rf": [0.7, 0.6, 0.6, 0.5, 0.8, 0.7]}, index=index
        )
        ax = plots.band_curve(table)
        one, other = markers(ax)
        np.testing.assert_allclose(one[:, 1], [0.9, 0.8])
        assert (one[:, 0] < other[:, 0]).all()
        np.testing.assert_allclose(np.array(ax.collections[1].get_segments())[:, :, 1], [[0.6, 0.8], [0.5, 0.7]])
        with pytest.raises(KeyError):
            plots.band_curve(table, statistic="Geary's C")


class TestMoreTables:
    scores = pd.DataFrame({
        "model": ["BMA"] * 4 + ["HBM"] * 4, "group": ["all", "a", "b", "DJF"] * 2, "by": ["", "net", "net", "season"] * 2,
        "stations": [5, 2, 3, 5] * 2, "crps": [3.0, 1.0, 2.0, 4.0, 3.5, 1.5, 2.5, 4.5],
    }).assign(crps_low=lambda t: t["crps"] - 0.5, crps_high=lambda t: t["crps"] + 1)  # fmt: skip

    def test_scores_by_group_stand_side_by_side_and_the_pooled_ones_last(self):
        ax = plots.scores_by_group(self.scores, by="net", units="mm")
        assert texts(ax.get_yticklabels()) == ["a (2)", "b (3)", "all (5)"]
        bma, hbm = markers(ax)
        np.testing.assert_allclose(bma[:, 0], [3, 1, 2])
        np.testing.assert_array_equal(np.round(bma[:, 1]), [2, 0, 1])
        assert (bma[:, 1] < hbm[:, 1]).all()
        np.testing.assert_allclose(spans(ax.collections[1]), [[3, 4.5], [1, 2.5], [2, 3.5]])
        assert ax.get_xlabel() == "CRPS [mm]"

    def test_what_has_no_units_has_none_and_an_aim_is_a_line(self):
        ax = plots.scores_by_group(self.scores.assign(coverage90=0.8), score="coverage90", units="mm")
        assert ax.get_xlabel() == "Coverage of 90 % intervals"
        assert 0.9 in [line.get_xdata()[0] for line in ax.lines]
        assert not ax.collections

    def test_refusals_of_scores(self):
        with pytest.raises(ValueError, match="several lines of group 'all'; select one estimand"):
            plots.scores_by_group(pd.concat([self.scores, self.scores]))
        with pytest.raises(ValueError, match="no groups by 'region'"):
            plots.scores_by_group(self.scores, by="region")
        with pytest.raises(KeyError, match="no column 'rmse'"):
            plots.scores_by_group(self.scores, score="rmse")

    def test_a_score_table_is_read_as_it_is(self):
        from bayesens import Ensemble, common_rows, score_table

        frame = pd.DataFrame({"rf": [1.0, 2.0, 4.0, 3.0], "sm": [1.5, 2.5, 3.0, 3.0], "net": list("aabb")})
        ensemble = Ensemble.from_frame(frame, members=["rf"], observation="sm", group="net")
        rows = common_rows({}, ensemble, estimand="site", products={"RF": frame["rf"]})
        ax = plots.scores_by_group(score_table(rows, by="group"), score="mae")
        assert texts(ax.get_yticklabels()) == ["a", "b", "all", "macro"]
        np.testing.assert_allclose(markers(ax)[0][:, 0], 0.5)

    def test_differences_without_an_interval_say_so_and_groups_are_named(self):
        table = TestTables().differences().assign(estimand="site", group=["all", "a", "b"])
        table.loc[1, ["low", "high"]] = np.nan
        ax = plots.differences(table)
        assert texts(ax.get_yticklabels()) == ["HBM (all)", "Equal (a)", "HBM (b)"]
        assert texts(ax.get_legend().get_texts())[1:] == ["interval holds 0", "no interval"]
        held, none = markers(ax)
        np.testing.assert_allclose(held, [[-2, 0], [1, 2]])
        np.testing.assert_allclose(none, [[5, 1]])

    def test_intervals_of_morans_i_are_no_intervals_of_another_statistic(self):
        index = pd.MultiIndex.from_tuples([(name, "0-100 %") for name in ("CV", "Moran's I", "low", "high")])
        table = pd.DataFrame({"BMA": [0.3, 0.9, 0.8, 0.95]}, index=index)
        assert not plots.band_curve(table, statistic="CV").collections
        np.testing.assert_allclose(spans(plots.band_curve(table).collections[0]), [[0.8, 0.95]])
        with pytest.raises(KeyError, match="Geary's C"):
            plots.band_curve(table, statistic="Geary's C")

    def test_importance_names_the_column_that_is_not_there(self):
        with pytest.raises(KeyError, match="no column 'loss'"):
            plots.importance(pd.DataFrame({"member": ["rf"], "covariate": ["dem"], "percent": [1.0]}))


class TestLook:
    def test_forty_nine_series_differ(self):
        from bayesens.plots.axes import look

        assert len({look(i)[:2] for i in range(49)}) == 49
        assert len({look(i).color for i in range(7)}) == len({look(i).marker for i in range(7)}) == 7

    def test_more_groups_than_colours_stay_apart(self):
        table = pd.DataFrame({"lon": np.arange(9.0), "lat": 0.0, "net": list("abcdefghi")})
        lines = [line for line in plots.stations(table, group="net").lines if line.get_label() != "_"]
        assert len({(line.get_color(), line.get_marker()) for line in lines}) == 9

    @pytest.mark.parametrize("width", [3.35, 6.9])
    def test_a_legend_stays_inside_the_figure(self, width):
        figure, ax = plt.subplots(figsize=(width, 3), layout="constrained")
        plots.differences(TestTables().differences(), ax=ax)
        figure.canvas.draw()
        # A few points more than estimated are taken from the axes by the layout.
        assert ax.get_legend().get_window_extent().x1 <= figure.bbox.width + 1
        assert ax.xaxis.label.get_window_extent().x1 <= figure.bbox.width + 1
