"""Tables of a report: cells say the values of the frame, cover every column once, mark the best, and hold intervals."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_pages import product_frame, rows_of, score_frame, shown

from bayesens.app.report.page import Table, with_interval
from bayesens.app.report.tables import lay_out


def covered(rows):
    """Which cells rows of Cell cover, by the algorithm of HTML: each goes to the first free place."""
    place = {}
    for i, row in enumerate(rows):
        j = 0
        for cell in row:
            while (i, j) in place:
                j += 1
            for a in range(cell.rows):
                for b in range(cell.columns):
                    assert (i + a, j + b) not in place, "two cells overlap"
                    place[i + a, j + b] = cell.text
    return place


# ---------------------------------------------------------------------------------------------------------------- tables
class TestTables:
    def test_the_page_holds_the_numbers_of_the_frame(self):
        frame = score_frame().drop(columns=["estimand", "n"])
        head, *rows = rows_of(shown(Table(frame, "c", digits=6)))
        assert head == list(frame.columns)
        assert [row[0] for row in rows] == list(frame["model"])
        back = [[np.nan if text == "–" else float(text.replace("−", "-")) for text in row[1:]] for row in rows]
        np.testing.assert_allclose(back, frame.iloc[:, 1:].to_numpy(), atol=5.1e-7, rtol=0)

    def test_merged_headings_cover_every_column_once(self):
        frame = product_frame()
        grid = lay_out(frame, heads=2)
        place = covered(grid.head)
        assert set(place) == {(i, j) for i in range(3) for j in range(frame.shape[1] + 1)}
        assert [[place[i, j + 1] for i in range(3)] for j in range(frame.shape[1])] == [list(c) for c in frame.columns]
        assert place[0, 0] == place[2, 0] == "network"
        assert sum(grid.spans) == frame.shape[1] + 1
        assert grid.spans == (1, 2, 6, 6, 6, 6, 6, 6)

    @settings(max_examples=100, deadline=None)
    @given(
        columns=st.lists(st.tuples(*[st.sampled_from(["", "a", "b"])] * 3), min_size=1, max_size=7),
        labels=st.lists(st.tuples(*[st.sampled_from(["u", "v"])] * 3), min_size=0, max_size=7),
        heads=st.integers(0, 4),
        shows_index=st.booleans(),
    )
    def test_cells_cover_any_table_once(self, columns, labels, heads, shows_index):
        frame = pd.DataFrame([[f"{i}{j}" for j in range(len(columns))] for i in range(len(labels))], dtype=object,
                             columns=pd.MultiIndex.from_tuples(columns))  # fmt: skip
        if shows_index and labels:
            frame.index = pd.MultiIndex.from_tuples(labels, names=["one", "two", "three"])
        heads = min(heads, len(columns) + 3 * bool(shows_index and labels))
        grid = lay_out(frame, heads=heads)
        width = sum(cell.columns for cell in grid.head[0])
        assert set(covered(grid.head)) == {(i, j) for i in range(3) for j in range(width)}
        assert not grid.spans or sum(grid.spans) == width
        values = []
        for body in grid.bodies:
            place = covered(body)
            assert set(place) == {(i, j) for i in range(len(body)) for j in range(width)}
            values += [place[i, width - 1] for i in range(len(body)) if body[i][0].style != "panel stub"]
        if heads < len(columns) and labels:
            assert values == [f"{i}{len(columns) - 1}" for i in range(len(labels))]

    def test_panels_stand_over_their_rows(self):
        frame = pd.DataFrame({"metric": ["R", "R", "MAE", "MAE"], "net": list("abab"), "x": [0.5, 0.6, 0.1, 0.2]})
        assert rows_of(shown(Table(frame, "c"))) == [
            ["net", "x"], ["R"], ["a", "0.500"], ["b", "0.600"], ["MAE"], ["a", "0.100"], ["b", "0.200"]
        ]  # fmt: skip
        assert rows_of(shown(Table(frame[::2], "c")))[1] == ["R", "a", "0.500"]  # no panel of a single row

    @pytest.mark.parametrize(
        ("values", "digits", "texts"),
        [
            ([0.0367, 0.05, 0.1], None, ["0.0367", "0.0500", "0.1000"]),
            ([1234.5, 20000.25], None, ["1234", "20,000"]),
            ([1.0, 2.0, np.nan], None, ["1", "2", "–"]),
            ([-0.0004, 0.5], 3, ["0.000", "0.500"]),
            ([-0.25, np.inf], 1, ["−0.2", "∞"]),
            ([0.123, 0.9], ".0%", ["12%", "90%"]),
            ([1.25, -2.0], "{:.1f} mm", ["1.2 mm", "−2.0 mm"]),
            ([2019, 123456], 3, ["2019", "123,456"]),
            ([2019, 123456], {"x": 1}, ["2019.0", "123,456.0"]),
            ([True, False], None, ["yes", "no"]),
            (pd.to_datetime(["2020-01-02", None]), None, ["2020-01-02", "–"]),
            (pd.Categorical(["a", None]), None, ["a", "–"]),
            (pd.array([1, None], dtype="Int64"), None, ["1", "–"]),
            (["a", None, ""], None, ["a", "–", ""]),
        ],
    )
    def test_what_values_look_like(self, values, digits, texts):
        grid = lay_out(pd.DataFrame({"x": values}), digits=digits, heads=0)
        assert [row[0].text for row in grid.bodies[0]] == texts

    def test_numbers_stand_to_the_right_and_text_to_the_left(self):
        frame = pd.DataFrame(
            {"r": [0.5], "said": ["0.04 [0.03, 0.05]"], "share": ["12 %"], "year": ["2016-2019"], "t": ["a 1"]}
        )
        frame = pd.concat([frame, pd.DataFrame({name: [""] for name in ("said", "share", "year", "t")})])
        grid = lay_out(frame.reset_index(drop=True), heads=0)
        head, body = grid.head[0], grid.bodies[0]
        assert [cell.style for cell in body[0]] == ["number", "number", "number", "", ""]
        assert [cell.style for cell in head] == ["right", "right", "right", "", ""]
        assert (body[0][1].text, body[0][1].more) == ("0.04", "[0.03, 0.05]")

    def test_missing_values_say_so(self):
        seen = shown(Table(pd.DataFrame({"x": [1.0, np.nan]}), "c"))
        assert ({"title": "missing", "role": "img", "aria-label": "missing"}, "–") in seen.all("span")

    def test_columns_of_one_name_have_the_same_digits(self):
        columns = pd.MultiIndex.from_product([["BMA", "HBM"], ["rmse", "n"]])
        seen = shown(Table(pd.DataFrame([[0.0512, 12, 0.102, 1500]], columns=columns), "c"))
        assert rows_of(seen)[-1] == ["0.0512", "12", "0.1020", "1500"]

    def test_best_in_each_panel_and_what_reads_the_same(self):
        frame = pd.DataFrame({"net": list("aabb"), "model": list("xyxy"), "rmse": [1.0, 2.0, 0.50, 0.501],
                              "bias": [-0.1, 0.2, np.nan, 3.0], "r": [0.1, 0.9, 0.5, 0.2]})  # fmt: skip
        best = {"rmse": "min", "r": "max", "bias": "zero", "absent": "min"}
        grid = lay_out(frame, digits=2, highlight=best)
        bold = [[cell.text for cell in row if "best" in cell.style] for body in grid.bodies for row in body]
        assert bold == [[], ["1.00", "−0.10"], ["0.90"], [], ["0.50", "0.50"], ["0.50"]]

    def test_best_along_the_rows_of_a_panel(self):
        grid = lay_out(with_interval(product_frame(), "estimate", "low", "high", digits=3), highlight={"RMSE": "min"})
        frame = product_frame().xs("estimate", axis=1, level=2).loc["RMSE"].round(3)
        bold = [[j for j, cell in enumerate(row[3:]) if "best" in cell.style] for row in grid.bodies[1][1:]]
        for (_, row), where in zip(frame.iterrows(), bold, strict=True):
            expected = [j for j, (_, band) in enumerate(frame.columns) if row.iloc[j] == row.xs(band, level=1).min()]
            assert where == expected
        assert not [cell for row in (*grid.bodies[0], *grid.bodies[2]) for cell in row if "best" in cell.style]
        assert not [cell for row in grid.bodies[1][1:] for cell in row[:3] if "best" in cell.style]

    def test_source_is_offered_and_stays_below_the_report(self):
        frame = pd.DataFrame({"x": [1]})
        links = shown(Table(frame, "c", source="tables/a b#1?.csv")).all("a")
        assert links[-1] == ({"href": "tables/a%20b%231%3F.csv", "download": None}, "tables/a b#1?.csv")
        for away in (
            "http://x.example/a.csv",
            "//x/a",
            "/etc/a",
            "../a",
            "a/../../b",
            "javascript:x",
            "a\\b",
            "",
            "a\nb",
        ):
            with pytest.raises(ValueError, match="a path below the report"):
                Table(frame, "c", source=away)

    def test_a_table_may_stand_in_its_file_alone(self):
        seen = shown(Table(pd.DataFrame(), "c", source="tables/x.csv", whole=pd.DataFrame({"x": [1]})))
        assert rows_of(seen) == []
        assert seen.all("a")[-1][0]["href"] == "tables/x.csv"

    def test_refusals(self):
        with pytest.raises(ValueError, match="highlight takes 'min', 'max', 'zero'; got 'lowest'"):
            Table(pd.DataFrame({"x": [1]}), "c", highlight={"x": "lowest"})
        with pytest.raises(TypeError, match=r"made from a pandas\.DataFrame; got Series"):
            Table(pd.Series([1]), "c")
        with pytest.raises(ValueError, match="has no columns; leave it out"):
            Table(pd.DataFrame(), "c")
        with pytest.raises(ValueError, match="head_columns is a number from 0 to 2 here; got 5"):
            Table(pd.DataFrame({"x": [1]}), "c", head_columns=5)

    def test_a_table_without_rows_has_its_head(self):
        assert rows_of(shown(Table(pd.DataFrame({"x": [], "y": []}), "c"))) == [["x", "y"]]


class TestIntervals:
    frame = pd.DataFrame({"model": ["a", "b", "c"], "r": [0.5, -0.25, np.nan], "r_low": [0.4, np.nan, 0.1],
                          "r_high": [0.62, np.nan, 0.2], "n": [3, 4, 5]})  # fmt: skip

    def test_three_columns_become_one(self):
        made = with_interval(self.frame, "r", digits=2)
        assert list(made.columns) == ["model", "r", "n"]
        assert rows_of(shown(Table(made, "c")))[1:] == [
            ["a", "0.50 (0.40 to 0.62)", "3"], ["b", "−0.25", "4"], ["c", "–", "5"]
        ]  # fmt: skip
        assert made["r"].astype(float).round(2).tolist()[:2] == [0.5, -0.25]

    def test_digits_follow_the_width(self):
        frame = pd.DataFrame({"r": [0.5, 0.6], "r_low": [0.4981, 0.5983], "r_high": [0.5017, 0.6019]})
        assert [str(v) for v in with_interval(frame, "r")["r"]] == [
            "0.5000 (0.4981 to 0.5017)",
            "0.6000 (0.5983 to 0.6019)",
        ]

    def test_columns_of_several_levels_lose_the_one_that_says_nothing(self):
        frame = product_frame()
        made = with_interval(frame, "estimate", "low", "high", digits=3)
        assert list(made.columns)[:3] == [("number", "all", "rows"), ("number", "mid", "rows"), ("RF", "all", "")]
        alone = with_interval(frame.drop(columns="number", level=0), "estimate", "low", "high")
        assert list(alone.columns)[:2] == [("RF", "all"), ("RF", "mid")]
        assert alone.columns.names == ["model", "band"]
        low, high = (frame["BMA", "mid", end].iloc[5] for end in ("low", "high"))
        assert str(made["BMA", "mid", ""].iloc[5]).endswith(f"({low:.3f} to {high:.3f})")

    def test_refusals(self):
        with pytest.raises(KeyError, match="no column 'rr' in the table \\(3 rows\\); did you mean 'r'"):
            with_interval(self.frame, "rr")
        with pytest.raises(KeyError, match="no column 'n_low', 'n_high' in the table, beside 'n'"):
            with_interval(self.frame, "n")
