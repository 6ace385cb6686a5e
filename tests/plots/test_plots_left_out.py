"""What the figures of members and stations show: positions, intervals, labels, refusals. How they look is for eyes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr

mpl.use("Agg")
from matplotlib import pyplot as plt

from bayesens.plots.subsets import learning_curve, left_out, shapley
from bayesens.sensitivity.station_curves import power_law, reduction_table


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def drawn(ax):
    """Points with a marker that are in the figure, by their marker and fill."""
    lines = [line for line in ax.lines if line.get_marker() not in ("None", None) and len(line.get_xdata())]
    return {(line.get_marker(), line.get_markerfacecolor()): line.get_xydata() for line in lines}


def texts(labels):
    return [label.get_text() for label in labels]


LOSSES = pd.DataFrame({
    "left_out": ["rf", "mlr", "svr"], "metric": "crps", "unit": "percent", "difference": [4.0, 0.5, 2.0],
    "low": [1.0, -1.0, np.nan], "high": [7.0, 2.0, np.nan], "error_correlation": [0.91, -0.25, np.nan],
})  # fmt: skip
SHARED = pd.DataFrame({
    "member": ["rf", "mlr"], "value": [0.02, 0.01], "low": [0.01, -0.01], "high": [0.03, 0.03], "alone": [0.025, 0.02],
    "last": [0.015, 0.0], "metric": "crps", "units": "m3 m-3",
})  # fmt: skip


def result(curves, n=(40, 36, 32, 28, 24), by="station"):
    """A result as `fewer_stations` gives it, each station's score 1 to 1.2 times the curve of its model."""
    n, factor = np.array(n), np.linspace(1, 1.2, 8)
    part = np.stack(
        [np.broadcast_to(curve(n.astype(float))[:, None, None] * factor, (len(n), 6, 8)) for curve in curves.values()]
    )
    over = ("model", "share" if by == "station" else "removed", "replicate")
    levels = 1 - n / n[0] if by == "station" else ["", *"abcd"]
    return xr.Dataset(
        {"station_crps": ((*over, "station"), part), "station_coverage90": ((*over, "station"), part),
         "rows": ("station", np.full(8, 5)), "n_stations": (over[1:], np.repeat(n[:, None], 6, axis=1))},
        {"model": list(curves), over[1]: levels, "replicate": np.arange(6), "station": list("stuvwxyz")},
        {"by": by, "metric": "crps", "units": "m3 m-3"},
    )  # fmt: skip


class TestLeftOut:
    def test_rows_are_losses_with_their_intervals(self):
        ax = left_out(LOSSES)
        found = drawn(ax)
        np.testing.assert_array_equal(found["o", "#0072B2"], [[4.0, 0]])
        np.testing.assert_array_equal(found["o", "white"], [[0.5, 1]])
        np.testing.assert_array_equal(found["X", "0.6"], [[2.0, 2]])
        segments = ax.collections[0].get_segments()
        np.testing.assert_array_equal(segments[0], [[1.0, 0], [7.0, 0]])
        assert texts(ax.get_yticklabels()) == ["rf (r = .91)", "mlr (r = -.25)", "svr"]
        assert ax.get_xlabel() == "CRPS, change when left out [%]"
        assert ax.get_ylim()[0] > ax.get_ylim()[1]

    def test_the_region_of_equivalence_is_for_percent_alone(self):
        band = [patch for patch in left_out(LOSSES, equivalent=2.0).patches if patch.get_label() == "within 2 %"]
        assert (band[0].get_x(), band[0].get_width()) == (-2.0, 4.0)
        ax = left_out(LOSSES.assign(unit="absolute", metric="log_score"))
        assert not [patch for patch in ax.patches if "within" in patch.get_label()]
        assert ax.get_xlabel() == "Log score, change when left out"

    def test_a_failed_fit_is_an_empty_row(self):
        ax = left_out(LOSSES.assign(difference=[4.0, np.nan, 2.0], low=np.nan, high=np.nan))
        np.testing.assert_array_equal(drawn(ax)["X", "0.6"][:, 1], [0, 2])
        assert len(ax.get_yticklabels()) == 3

    def test_it_draws_where_it_is_told_and_refuses_other_tables(self):
        own = plt.subplots()[1]
        assert left_out(LOSSES, ax=own) is own
        with pytest.raises(KeyError, match="no column 'error_correlation' in the table"):
            left_out(LOSSES.drop(columns="error_correlation"))


class TestShapley:
    def test_values_stand_with_what_a_member_gains_alone_and_costs_last(self):
        ax = shapley(SHARED)
        found = drawn(ax)
        np.testing.assert_array_equal(found["o", "#0072B2"], [[0.02, 0]])
        np.testing.assert_array_equal(found["o", "white"], [[0.01, 1]])
        np.testing.assert_array_equal(found["|", "0.35"], [[0.025, 0], [0.02, 1]])
        np.testing.assert_array_equal(found["x", "0.35"], [[0.015, 0], [0.0, 1]])
        assert set(texts(ax.get_legend().get_texts())) == {
            "alone", "when left out of all", "Shapley value, interval leaves out 0", "Shapley value, interval holds 0",
        }  # fmt: skip
        assert ax.get_xlabel() == "CRPS, fall when a member joins [m³ m⁻³]"
        with pytest.raises(KeyError, match="no column 'value'"):
            shapley(SHARED.drop(columns="value"))


class TestLearningCurve:
    def test_dots_bars_and_fitted_curve(self):
        data = result({"BMA": lambda n: 1 + 8 / n})
        ax = learning_curve(data, random_seed=1)
        xy = next(iter(drawn(ax).values()))
        np.testing.assert_allclose(xy, [[n, 1.1 * (1 + 8 / n)] for n in (40, 36, 32, 28, 24)])
        table = reduction_table(data, random_seed=1)
        ends = np.array(ax.collections[0].get_segments())[:, :, 1]
        np.testing.assert_allclose(ends, 1.1 * 1.2 * (1 + table[["low", "high"]].to_numpy() / 100))
        n, fitted = max((line.get_xydata() for line in ax.lines), key=len).T
        np.testing.assert_allclose(fitted, 1.1 * (1 + 8 / n), rtol=1e-4)
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("Stations learnt from", "CRPS [m³ m⁻³]")

    def test_models_differ_in_all_and_a_flat_curve_has_a_dotted_line(self):
        ax = learning_curve(result({"BMA": lambda n: 1 + 8 / n, "HBM": lambda n: 1.3 + 0 * n}))
        named = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
        assert list(named) == ["BMA", "HBM"]
        assert (
            len({line.get_color() for line in named.values()})
            == len({line.get_marker() for line in named.values()})
            == 2
        )
        assert [line.get_linestyle() for line in named.values()] == ["-", ":"]
        assert max(len(line.get_xdata()) for line in ax.lines if line.get_linestyle() == ":") == 5

    def test_a_table_is_drawn_as_it_is_with_a_law_that_is_given(self):
        data = result({"BMA": lambda n: 1 + 8 / n})
        table, law = reduction_table(data, random_seed=1), power_law(data, replicates=20)
        assert max(len(line.get_xdata()) for line in learning_curve(table, units="K").lines) == 5
        ax = learning_curve(table, law=law, units="K")
        assert max(len(line.get_xdata()) for line in ax.lines) == 60
        assert ax.get_ylabel() == "CRPS [K]"

    def test_coverage_has_no_units_and_groups_no_curve(self):
        ax = learning_curve(result({"BMA": lambda n: 0.9 - 1 / n}), metric="coverage90")
        assert ax.get_ylabel() == "Coverage of 90 % intervals"
        groups = result({"BMA": lambda n: 1 + 8 / n}, by="group").assign_coords(group=("station", list("aabbccdd")))
        with pytest.raises(ValueError, match="groups were removed, and there is no curve"):
            learning_curve(groups)
        with pytest.raises(KeyError, match="no column 'model', 'removed', 'n_stations', 'score' in the table"):
            learning_curve(LOSSES)
