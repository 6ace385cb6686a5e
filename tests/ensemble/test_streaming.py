"""Sufficient statistics of chunks: the same sums, labels and digest as those of the whole table."""

import datetime
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from chunk_tables import COLUMNS, MEMBERS, ensemble, pieces, streamed, table
from hypothesis import given, settings
from hypothesis import strategies as st

import bayesens as be
from bayesens.ensemble.digest import row_hash
from bayesens.ensemble.streaming_sources import merged
from bayesens.ensemble.sufficient import Root, Tally

BLANK = np.array([""])


def assert_same_sums(one, two, rtol=1e-12):
    """Counts, means and scatter by label, as both hold them."""
    a, b = one.tally, two.tally
    for name in ("site", "group"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist()
    for name in ("n", "cell_pattern", "cell_site", "site_group", "pattern"):
        np.testing.assert_array_equal(getattr(a.statistics, name), getattr(b.statistics, name))
    np.testing.assert_allclose(a.statistics.mean, b.statistics.mean, rtol=rtol, atol=rtol)
    size = np.abs(b.statistics.scatter).max(initial=0.0)
    np.testing.assert_allclose(a.statistics.scatter, b.statistics.scatter, rtol=rtol, atol=rtol * size)
    assert (one.digest, one.n_obs, one.n_observed) == (two.digest, two.n_obs, two.n_observed)
    np.testing.assert_array_equal(one.facts.low, two.facts.low)
    np.testing.assert_array_equal(one.facts.high, two.facts.high)


# ---------------------------------------------------------------------------------------------------------- the merge
def tally(z, site=None):
    code = np.zeros(len(z), dtype=int) if site is None else site
    names = BLANK if site is None else np.array([f"s{i}" for i in range(9)])
    return Tally.of_rows(z, (BLANK, np.zeros(len(z), dtype=int)), (names, code))


@pytest.mark.parametrize("order", ["as a counter carries", "one after the other", "all at once"])
def test_digits_survive_far_from_zero_in_a_thousand_chunks(order):
    """Mean 1e8 and sd 1: sums of squares would have none left. Against two passes in 80 bits."""
    rng = np.random.default_rng(2)
    z = 1e8 + rng.normal(size=(100_000, 3)) @ np.array([[1.0, 0.5, 0.2], [0.0, 0.8, 0.3], [0.0, 0.0, 0.5]])
    parts = [tally(part) for part in np.array_split(z, 1000)]
    if order == "all at once":
        out = parts[0].merge(*parts[1:])
    elif order == "one after the other":
        out = parts[0]
        for part in parts[1:]:
            out = out.merge(part)
    else:
        out = merged(parts, lambda first, *others: first.merge(*others))
    long = z.astype(np.longdouble)
    deviation = long - long.mean(axis=0)
    wanted = (deviation[:, :, None] * deviation[:, None, :]).sum(axis=0)
    np.testing.assert_allclose(out.statistics.scatter[0], wanted.astype(float), rtol=1e-10)
    np.testing.assert_allclose(out.statistics.mean[0], long.mean(axis=0).astype(float), rtol=1e-15)
    assert out.statistics.n.tolist() == [100_000.0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6), st.randoms(use_true_random=False), st.sampled_from([0.0, 1e6])
)
def test_merging_is_associative_and_blind_to_order(sizes, random, offset):
    """Any sizes of chunks (also without rows), any order, any brackets; sites and gaps differ from chunk to chunk."""
    rng = np.random.default_rng(random.randrange(2**32))
    n = sum(sizes)
    z = offset + rng.normal(size=(n, 3))
    z[:, 1:][rng.random((n, 2)) < 0.3] = np.nan
    site = rng.integers(0, 9, n)
    ends = np.cumsum([0, *sizes])
    parts = [tally(z[a:b], site[a:b]) for a, b in pairwise(ends)]
    wanted = tally(z, site)
    random.shuffle(parts)
    while len(parts) > 1:
        i = random.randrange(len(parts) - 1)
        parts[i : i + 2] = [parts[i].merge(parts[i + 1])]
    got, want = parts[0].statistics, wanted.statistics
    assert parts[0].site.tolist() == wanted.site.tolist()
    np.testing.assert_array_equal(got.pattern, want.pattern)
    np.testing.assert_array_equal(got.n, want.n)
    # What n values of this size leave after rounding.
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-14, atol=1e-13)
    np.testing.assert_allclose(got.scatter, want.scatter, atol=1e-10 if offset else 1e-12)


def test_a_tally_is_what_pandas_groups():
    frame = table()
    out = streamed(frame, size=70).tally
    rows = frame[frame.y.notna()]
    s, total = out.statistics, np.zeros_like(out.statistics.scatter)
    z = rows[["y", *MEMBERS]]
    gaps = z.notna().apply(tuple, axis=1)
    groups = dict(list(z.groupby([rows.g, rows.s, gaps])))
    assert len(groups) == len(s.n)
    for n, mean, q, unit in zip(s.n, s.mean, s.cell_pattern, s.cell_site):
        part = groups[out.group[unit], out.site[unit], tuple(s.pattern[q].tolist())]
        assert n == len(part)
        np.testing.assert_allclose(mean[s.pattern[q]], part.mean().dropna(), rtol=1e-13)
        total[q] += (part - part.mean()).fillna(0.0).T @ (part - part.mean()).fillna(0.0)
    np.testing.assert_allclose(s.scatter, total, atol=1e-11)


@pytest.mark.parametrize(("group", "site"), [(True, True), (True, False), (False, True), (False, False)])
def test_pooling_over_a_level_is_summing_without_it(group, site):
    frame = table()
    kept = streamed(frame).tally.keep(group=group, site=site)
    whole = frame.assign(**({} if group else {"g": ""}), **({} if site else {"s": ""}))
    wanted = streamed(whole, size=1000).tally
    assert kept.site.tolist() == wanted.site.tolist()
    np.testing.assert_allclose(kept.statistics.mean, wanted.statistics.mean, atol=1e-13)
    np.testing.assert_allclose(kept.statistics.scatter, wanted.statistics.scatter, atol=1e-11)


def test_roots_merge_to_the_root_of_all_rows():
    rng = np.random.default_rng(3)
    rows = 1e4 + rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3))
    parts = [Root.of_rows(part) for part in np.split(rows, [0, 1, 3, 100])]
    out = parts[2].merge(*parts[:2], *parts[3:])
    np.testing.assert_allclose(out.mean, rows.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(out.triangle.T @ out.triangle, 499 * np.cov(rows.T), rtol=1e-9)


def test_parts_are_merged_in_pairs_of_the_same_size():
    depth = merged([1] * 1000, lambda *parts: max(parts) + (len(parts) > 1))
    assert depth <= 11
    assert merged([None, None], max) is None


# ------------------------------------------------------------------------------------------------------ constructors
def from_ensembles(frame, folder):
    return be.SufficientStatistics.from_ensembles(ensemble(part) for part in pieces(frame, 90))


def from_parquet_file(frame, folder):
    frame.assign(unread="x").to_parquet(folder / "t.parquet", row_group_size=64)
    return be.SufficientStatistics.from_parquet(folder / "t.parquet", **COLUMNS, batch_rows=77, progressbar=False)


def from_parquet_folder(frame, folder):
    for i, part in enumerate(pieces(frame, 130)):
        part.astype({"s": "category"}).to_parquet(folder / f"{i}.parquet")
    return be.SufficientStatistics.from_parquet(str(folder), **COLUMNS, progressbar=False)


def from_parquet_partitions(frame, folder):
    frame.to_parquet(folder, partition_cols=["g"])
    return be.SufficientStatistics.from_parquet(folder, **COLUMNS, progressbar=False)


def from_dask(frame, folder):
    dd = pytest.importorskip("dask.dataframe")
    return be.SufficientStatistics.from_dask(dd.from_pandas(frame, npartitions=11), **COLUMNS)


@pytest.mark.parametrize(
    "make", [from_ensembles, from_parquet_file, from_parquet_folder, from_parquet_partitions, from_dask]
)
def test_every_way_gives_the_sums_of_the_whole(make, tmp_path):
    frame = table()
    whole = be.SufficientStatistics.from_ensembles([ensemble(frame)])
    shuffled = frame.sample(frac=1.0, random_state=4, ignore_index=True)
    assert_same_sums(make(frame, tmp_path), whole)
    assert_same_sums(streamed(shuffled, size=7), whole)
    assert_same_sums(streamed(frame[:100]).merge(streamed(frame[100:])), whole)
    y = frame.y.dropna()
    assert whole.mean == pytest.approx(y.mean(), rel=1e-14)
    assert whole.sd == pytest.approx(y.std(ddof=0), rel=1e-14)
    assert repr(whole) == (
        "<SufficientStatistics: 600 rows (564 observed), 12 sites, 3 groups, 3 members: a, b, c; transform='identity'>"
    )


def test_chunks_without_rows_or_without_observations_are_taken():
    frame = table()
    parts = [frame[:0], frame[:40].assign(y=np.nan), frame[40:], frame[:0]]
    got = be.SufficientStatistics.from_frames(parts, **COLUMNS)
    whole = frame.assign(y=frame.y.where(frame.index >= 40))
    assert_same_sums(got, be.SufficientStatistics.from_ensembles([ensemble(whole)]))
    with pytest.raises(ValueError, match="no rows in any chunk; wanted at least one row"):
        be.SufficientStatistics.from_frames([frame[:0]], **COLUMNS)


@pytest.mark.parametrize("transform", ["sqrt", "log"])
def test_rows_are_transformed_before_they_are_summed(transform):
    frame = table()
    g = {"sqrt": np.sqrt, "log": np.log}[transform]
    numbers = ["y", *MEMBERS]
    got, wanted = streamed(frame, transform=transform), streamed(frame.assign(**g(frame[numbers])))
    np.testing.assert_allclose(got.tally.statistics.scatter, wanted.tally.statistics.scatter, atol=1e-12)
    assert got.facts.high[0] == frame.y.max()
    assert got.digest == streamed(frame).digest
    with pytest.raises(
        ValueError, match=rf"summed with transform='{transform}' and the model has transform='identity'"
    ):
        be.fit(be.HBM(), got, log_likelihood=False)
    with pytest.raises(ValueError, match=r"chunk 2 \(from row 200 of all\): Column 'b' has 1 of 100 values .*: row 5"):
        streamed(frame.assign(b=frame.b.where(frame.index != 205, -1.0)), size=100, transform=transform)


def test_units_come_from_the_tables(tmp_path):
    frame = table()
    frame.attrs["units"] = "m3 m-3"
    frame.to_parquet(tmp_path / "t.parquet")
    assert streamed(frame).units == "m3 m-3"
    assert from_parquet_file(frame, tmp_path).units == "m3 m-3"
    assert streamed(frame, units="mm").units == "mm"


def test_the_progress_bar_counts_rows_and_can_be_turned_off(tmp_path, capsys):
    table().to_parquet(tmp_path / "t.parquet")
    be.SufficientStatistics.from_parquet(tmp_path / "t.parquet", **COLUMNS)
    assert "600/600" in capsys.readouterr().err
    be.SufficientStatistics.from_parquet(tmp_path / "t.parquet", **COLUMNS, progressbar=False)
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------------------------- labels
DAY = datetime.date(2021, 7, 30)
LABELS = {
    "text": (["007", "A1"], ["B", None]),
    "whole numbers, gaps in one": ([7, 9], [7.0, None]),
    "missing throughout one": ([7, 9], [None, None]),
    "text, missing throughout one": (["x", "y"], [None, None]),
    "numbers with fractions in one": ([7.0, 9.0], [7.5, 9.0]),
    "nullable": (pd.array([7, None], dtype="Int64"), pd.array([9, 7], dtype="Int64")),
    "categories": (pd.Categorical(["u", "v"]), pd.Categorical(["v", None])),
    "categories of numbers": (pd.Categorical([7, 9]), pd.Categorical([9, 11])),
    "categories in one": (pd.Categorical(["u", "v"]), ["v", "w"]),
    "dates": ([DAY, None], [DAY, datetime.date(1999, 1, 1)]),
    "times": (pd.to_datetime(["2021-07-30 00:00", "2021-07-30 12:00"]), pd.to_datetime(["2021-07-30", None])),
    "units of time": (pd.to_datetime(["2021-07-30"] * 2).as_unit("s"), pd.to_datetime(["2021-07-30"] * 2).as_unit("ns")),
    "zones": (pd.to_datetime(["2021-07-30"] * 2, utc=True), pd.to_datetime(["2021-07-30", None], utc=True)),
    "booleans, gaps in one": ([True, False], [True, None]),
}  # fmt: skip


@pytest.mark.parametrize("way", ["frames", "parquet", "dask"])
@pytest.mark.parametrize("name", LABELS)
def test_labels_are_those_that_an_ensemble_of_the_whole_would_have(name, way, tmp_path):
    parts = [pd.DataFrame({"a": [1.0, 2.0], "y": [1.5, 2.5], "s": pd.Series(values)}) for values in LABELS[name]]
    roles = {"members": ["a"], "observation": "y", "site": "s"}
    if way == "frames":
        got = be.SufficientStatistics.from_frames(parts, **roles)
    elif way == "parquet":
        for i, part in enumerate(parts):
            part.to_parquet(tmp_path / f"{i}.parquet")
        got = be.SufficientStatistics.from_parquet(tmp_path, **roles, progressbar=False)
    else:
        dd = pytest.importorskip("dask.dataframe")
        lazy = dd.from_map(parts.__getitem__, [0, 1], meta=parts[0], enforce_metadata=False)
        got = be.SufficientStatistics.from_dask(lazy, **roles)
    whole = be.Ensemble.from_frame(pd.concat(parts, ignore_index=True), **roles)
    wanted, n = np.unique(whole.labels("site"), return_counts=True)
    assert got.tally.site.tolist() == wanted.tolist()
    assert got.tally.statistics.n.tolist() == n.tolist()


@pytest.mark.parametrize(
    ("one", "two", "kinds"),
    [(["A1", "B"], [7, 9], "numbers .*text"), (["2021-07-30"] * 2, pd.to_datetime(["2021-07-30"] * 2), "text .*times")],
)
def test_labels_that_are_text_in_some_chunks_only_are_refused(one, two, kinds):
    parts = [pd.DataFrame({"a": [1.0, 2.0], "y": [1.5, 2.5], "s": values}) for values in (one, two)]
    with pytest.raises(
        ValueError, match=rf"column 's' holds {kinds} in others.* read it as text .*dtype=\{{'s': str\}}"
    ):
        be.SufficientStatistics.from_frames(parts, members=["a"], observation="y", site="s")


# ------------------------------------------------------------------------------------------------------------- digest
def test_the_digest_is_that_of_the_rows():
    frame = table()
    digest = streamed(frame).digest
    assert digest == streamed(frame.sample(frac=1, random_state=1), size=600).digest
    assert digest == streamed(frame[frame.y.notna()]).digest
    assert digest == streamed(frame.assign(g=frame.g.astype("category")), size=13).digest
    at = frame.y.first_valid_index()
    changes = [
        frame.assign(a=frame.a.where(frame.index != at, np.nextafter(frame.a[at], 9.0))),
        frame.assign(s=frame.s.where(frame.index != at, "s11" if frame.s[at] != "s11" else "s10"), g="g0"),
        frame.assign(a=frame.b, b=frame.a),
        frame[1:2].reindex([*frame.index, 1]).fillna(frame),
        frame.drop(index=at),
    ]
    digests = {streamed(change).digest for change in changes}
    digests |= {streamed(frame, units="m").digest, streamed(frame, site=None).digest}
    assert len(digests | {digest}) == 8


def test_hashes_of_rows_do_not_cancel():
    """Two rows that swap a value or a label are other rows; zero and its negative are one."""
    none = []
    assert row_hash(np.array([[1.0, 2.0], [3.0, 4.0]]), none) != row_hash(np.array([[1.0, 4.0], [3.0, 2.0]]), none)
    assert row_hash(np.array([[0.0], [0.0]]), none) != row_hash(np.array([[1.0], [1.0]]), none)
    assert row_hash(np.array([[0.0]]), none) == row_hash(np.array([[-0.0]]), none)
