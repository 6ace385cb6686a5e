"""Sufficient statistics of chunks refuse what an ensemble of the whole table refuses, and say in which chunk it stands."""

import sys
import warnings

import numpy as np
import pytest
from chunk_tables import COLUMNS, MEMBERS, ensemble, pieces, streamed, table

import bayesens as be

BAD = {
    "infinite": ({"b": np.inf}, ValueError, r"chunk 1 \(from row 50 of all\): column 'b' is infinite in 50 of 50 rows"),
    "text": ({"b": "n/a"}, TypeError, r"chunk 1 .*column 'b' \(50 rows\) has dtype .*wanted numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_named_with_column_count_and_chunk(name):
    change, error, text = BAD[name]
    first, second, *rest = pieces(table(), 50)
    with pytest.raises(error, match=text):
        be.SufficientStatistics.from_frames([first, second.assign(**change), *rest], **COLUMNS)


def test_columns_roles_and_chunks_are_checked():
    frame = table()
    with pytest.raises(KeyError, match=r"chunk 1 .*no column 'c' in the table \(50 rows\)"):
        be.SufficientStatistics.from_frames([frame[:50], frame[50:100].drop(columns="c")], **COLUMNS)
    with pytest.raises(ValueError, match="named both as a member and as the observation"):
        streamed(frame, observation="a")
    with pytest.raises(TypeError, match="observation=None; wanted the name of one column"):
        streamed(frame, observation=None)
    with pytest.raises(TypeError, match=r"got one DataFrame; wanted an iterable of them: from_frames\(\[frame\]\)"):
        be.SufficientStatistics.from_frames(frame, **COLUMNS)
    with pytest.raises(TypeError, match="got one Ensemble; wanted an iterable"):
        be.SufficientStatistics.from_ensembles(ensemble(frame))
    with pytest.raises(TypeError, match=r"ensemble 0 .*got DataFrame; wanted an Ensemble"):
        be.SufficientStatistics.from_ensembles([frame])
    with pytest.raises(ValueError, match="Unknown transform 'cube'"):
        streamed(frame, transform="cube")
    with pytest.raises(ValueError, match=r"different members: \('a', 'b', 'c'\) and \('a', 'b'\)"):
        streamed(frame).merge(streamed(frame.assign(a=1.0), members=["a", "b"]))
    with pytest.raises(ValueError, match=r"different levels: .*'group', .* and "):
        streamed(frame).merge(streamed(frame, group=None))
    with pytest.raises(ValueError, match="different units: 'cm', 'm'; convert"):
        streamed(frame, units="m").merge(streamed(frame, units="cm"))
    with pytest.raises(ValueError, match=r"got levels\('time'\)"):
        streamed(frame).levels("time")


def test_a_site_in_two_groups_is_found_across_chunks():
    frame = table()
    frame.loc[500:, "g"] = frame.g[500:].where(frame.s[500:] != "s01", "g2")
    with pytest.raises(
        ValueError, match=r"'s' and 'g' \(600 rows\): 1 site\(s\) .*'s01' in 'g1', 'g2'; wanted each site"
    ):
        streamed(frame)


def test_rows_without_any_member_are_counted_once_for_all_chunks():
    frame = table()
    frame.loc[[3, 300], MEMBERS] = np.nan
    with pytest.warns(UserWarning, match="are missing in 2 of 600 rows") as found:
        streamed(frame)
    assert len(found) == 1


TRAINING = {
    "constant member": lambda f: f.assign(b=3.0),
    "constant observation": lambda f: f.assign(y=f.y.where(f.y.isna(), 2.0)),
    "no observation": lambda f: f.assign(y=np.nan),
    "member missing where observed": lambda f: f.assign(b=f.b.where(f.y.isna())),
    "leaked observation": lambda f: f.assign(b=f.y * (1.0 + 1e-8)),
    "too few rows": lambda f: f[1:8],
    "one row": lambda f: f[1:2],
    "copies": lambda f: f.assign(b=2.0 * f.c - 5.0),
    "linear combination": lambda f: f.assign(b=0.25 * f.a + 0.5 * f.c + 1.0),
    "labels missing": lambda f: f.assign(s=f.s.where(f.s != "s03")),
}


@pytest.mark.parametrize("name", TRAINING)
def test_statistics_refuse_what_the_ensemble_of_their_rows_refuses_in_the_same_words(name):
    frame = TRAINING[name](table())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, parts = ensemble(frame), streamed(frame, size=5)
    with pytest.raises(ValueError) as wanted:
        be.fit(be.HBM(), whole)
    with pytest.raises(ValueError) as got:
        be.fit(be.HBM(), parts, log_likelihood=False)
    assert str(got.value) == str(wanted.value)


@pytest.mark.parametrize("rows", [slice(0, 100), slice(500, None)])
def test_what_is_wrong_with_one_chunk_alone_is_not_refused(rows):
    """A member that is constant, missing or the observation in the first or the last chunk only."""
    frame = table()
    for value in (3.0, np.nan, frame.y):
        changed = frame.assign(b=frame.b.where(~frame.index.isin(frame.index[rows]), value))
        assert streamed(changed, size=100).check_training(n_parameters=50) is None


@pytest.mark.parametrize("size", [1e-5, 1e-9, 1e-11])
def test_a_combination_is_told_by_the_digits_of_the_rows(size):
    """The scatter itself would lose a remainder below 1e-8; the root keeps it down to 1e-10, as the rows do."""
    frame = table().dropna(ignore_index=True)
    frame["b"] = frame.a + frame.c + size * np.random.default_rng(5).normal(size=len(frame))
    assert streamed(frame, size=9).dependent_members() == ([] if size > 1e-10 else MEMBERS)


def test_a_level_without_a_column_is_refused():
    with pytest.raises(ValueError, match="has site effects but the ensemble has no site column"):
        be.HBM(site=True).coordinates(streamed(table(), site=None))


def test_parquet_files_are_checked(tmp_path):
    frame = table()
    options = COLUMNS | {"progressbar": False}
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*nonesuch"):
        be.SufficientStatistics.from_parquet(tmp_path / "nonesuch", **options)
    with pytest.raises(ValueError, match="has no Parquet files"):
        be.SufficientStatistics.from_parquet(tmp_path, **options)
    frame.to_parquet(tmp_path / "0.parquet")
    frame.drop(columns="b").to_parquet(tmp_path / "1.parquet")
    with pytest.raises(KeyError, match=r"no column 'b' in .*1.parquet \(600 rows\)"):
        be.SufficientStatistics.from_parquet(tmp_path, **options)
    (tmp_path / "1.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"cannot read .*1.parquet as Parquet"):
        be.SufficientStatistics.from_parquet(tmp_path, **options)
    with pytest.raises(ValueError, match="batch_rows must be a whole number of at least 1; got 0"):
        be.SufficientStatistics.from_parquet(tmp_path / "0.parquet", **options, batch_rows=0)


def test_dask_is_asked_for_and_given_its_own_tables(monkeypatch):
    with pytest.raises(TypeError, match=r"got DataFrame; wanted a dask.dataframe .*from_frames\(\[frame\]\)"):
        be.SufficientStatistics.from_dask(table(), **COLUMNS)
    dd = pytest.importorskip("dask.dataframe")
    frame = table()
    with pytest.raises(ValueError, match=r"partition 1: column 'b' is infinite in \d+ of \d+ rows"):
        be.SufficientStatistics.from_dask(
            dd.from_pandas(frame.assign(b=frame.b.where(frame.index < 300, np.inf)), npartitions=2), **COLUMNS
        )
    with pytest.raises(KeyError, match="no column 'z' in the dask dataframe"):
        be.SufficientStatistics.from_dask(dd.from_pandas(frame, npartitions=2), **COLUMNS | {"site": "z"})
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(ImportError, match=r"needs dask, which is not installed; run: pip install 'bayesens\[dask\]'"):
        be.SufficientStatistics.from_dask(frame, **COLUMNS)


def test_a_misspelt_keyword_is_named():
    with pytest.raises(TypeError, match=r"from_frames\(\) got .* 'transfrom'. Did you mean 'transform'"):
        be.SufficientStatistics.from_frames([], members=["a"], observation="y", transfrom="log")
