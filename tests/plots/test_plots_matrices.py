"""Matrices of correlations: their numbers, intervals and names, what is refused, and that they can be read on every colour."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr

mpl.use("Agg")
from matplotlib.colors import to_rgb

from bayesens import plots


def texts(labels):
    return [label.get_text() for label in labels]


class TestMatrices:
    def test_lower_triangle_with_its_numbers(self):
        names = ["rf", "mlr", "svr"]
        matrix = pd.DataFrame([[1, 0.8, -0.3], [0.8, 1, np.nan], [-0.3, np.nan, 1]], names, names)
        ax = plots.correlations(matrix)
        assert {(text.get_text(), *text.get_position()) for text in ax.texts} == {("0.80", 0, 0), ("−0.30", 0, 1)}
        assert texts(ax.get_xticklabels()) == ["rf", "mlr"]
        assert texts(ax.get_yticklabels()) == ["mlr", "svr"]
        with pytest.raises(ValueError, match="wanted a square one"):
            plots.correlations(matrix.iloc[:2])
        with pytest.raises(ValueError, match="the largest is 3"):
            plots.correlations(3 * matrix)


class TestCorrelations:
    names = ("rf", "mlr", "svr")
    matrix = pd.DataFrame([[1, 0.8, -0.3], [0.8, 1, 0.0], [-0.3, 0.0, 1]], names, names)

    def test_intervals_stand_below_their_numbers(self):
        ax = plots.correlations(self.matrix, low=self.matrix - 0.1, high=(self.matrix + 0.1).clip(upper=1))
        found = {}
        for text in ax.texts:
            found.setdefault(tuple(int(at) for at in text.xy), []).append(text.get_text())
        assert found == {
            (0, 0): ["0.80", "0.70 to 0.90"], (0, 1): ["−0.30", "−0.40 to −0.20"], (1, 1): ["0.00", "−0.10 to 0.10"],
        }  # fmt: skip

    def test_an_array_is_read_by_its_coordinates_whatever_its_second_dimension_is_called(self):
        array = xr.DataArray(self.matrix, dims=("member", "member_"))
        for one in (array, array.drop_vars("member_")):
            ax = plots.correlations(one)
            assert texts(ax.get_yticklabels()) == ["mlr", "svr"]
            assert [text.get_text() for text in ax.texts] == ["0.80", "−0.30", "0.00"]

    def test_a_name_without_correlations_is_left_out_and_said(self):
        wide = self.matrix.reindex(index=["dem", *self.names], columns=["dem", *self.names])
        wide.loc["dem", "dem"] = 1.0
        ax = plots.correlations(wide)
        assert texts(ax.get_xticklabels()) == ["rf", "mlr"]
        assert ax.get_xlabel() == "No correlation: dem"

    def test_refusals(self):
        with pytest.raises(ValueError, match="both low and high"):
            plots.correlations(self.matrix, low=self.matrix)
        with pytest.raises(ValueError, match="not symmetric"):
            plots.correlations(self.matrix.where(np.tri(3, dtype=bool), 0.5))
        with pytest.raises(ValueError, match="no correlation between any two"):
            plots.correlations(self.matrix.where(np.eye(3, dtype=bool)))
        with pytest.raises(ValueError, match="low and high lack values"):
            plots.correlations(self.matrix, low=self.matrix.iloc[:2, :2], high=self.matrix)
        with pytest.raises(ValueError, match="select down to two"):
            plots.correlations(xr.DataArray(np.zeros((2, 3, 3)), dims=("draw", "member", "member_")))


def relative_luminance(color):
    c = np.array(to_rgb(color))
    return np.dot([0.2126, 0.7152, 0.0722], np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4))


def test_numbers_in_cells_can_be_read_on_every_colour():
    names = [str(i) for i in range(41)]
    values = np.linspace(-1.0, 1.0, 41)
    ax = plots.correlations(pd.DataFrame(np.minimum.outer(values, values), names, names))
    cells = ax.images[0]
    for text in ax.texts:
        column, row = text.get_position()
        luminance = [
            relative_luminance(color)
            for color in (text.get_color(), cells.to_rgba(cells.get_array()[int(row), int(column)]))
        ]
        assert (max(luminance) + 0.05) / (min(luminance) + 0.05) >= 4.5
    assert {text.get_color() for text in ax.texts} == {"white", "black"}
