"""What fits of a comparison warned of: said once, with models and folds, and marked wherever their scores stand."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import bayesens as be
from bayesens.app.study.chapters.scores import _pooled, _verdict
from bayesens.comparison.folds.news import convergence_warning, not_converged, seen_members, without_convergence
from bayesens.comparison.ladder import ladder_effects, ladder_words
from bayesens.comparison.tables import paired_differences, score_table
from bayesens.messages import warn

CHAINS = "The fit has not converged: R-hat is 1.200 for bias (wanted at most 1.01). Raise tune=500."


@pytest.fixture(scope="module")
def ensemble():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=240)
    frame = pd.DataFrame({name: truth + 0.5 * rng.normal(size=240) for name in "abc"})
    frame = frame.assign(y=truth + 0.2 * rng.normal(size=240), site=[f"s{i % 12:02d}" for i in range(240)])
    return be.Ensemble.from_frame(frame, members=list("abc"), observation="y", site="site")


def compared(ensemble, monkeypatch, news, models=None, **options):
    """A comparison whose fit of a model in its n-th fold gives a warning; and what the user hears."""
    from bayesens.comparison.folds import runs as module

    fit, count = module.fit, {}

    def warning_fit(model, *args, **kwargs):
        name = type(model).__name__
        count[name] = count.get(name, 0) + 1
        for text in news.get((name, count[name]), ()):
            warn(text)
        return fit(model, *args, **kwargs)

    monkeypatch.setattr(module, "fit", warning_fit)
    models = models or {"Equal weights": be.EqualWeights(), "BMA": be.BMA(sigma="shared")}
    options = {"estimand": "site", "folds": 3, "method": "em", "random_seed": 1, "progressbar": False} | options
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = be.compare(models, ensemble, **options)
    return rows, [str(one.message) for one in caught if one.category is UserWarning]


def study_of(rows):
    """What the report's chapters look at of a study's results."""
    held = {"site": SimpleNamespace(rows=rows, apart={})}
    return SimpleNamespace(held=held, study=SimpleNamespace(methods={}))


def test_folds_that_did_not_converge_are_told_once_and_marked_everywhere(ensemble, monkeypatch):
    rows, heard = compared(ensemble, monkeypatch, {("BMA", 1): [CHAINS], ("BMA", 3): [CHAINS]})
    assert heard == [convergence_warning({"BMA": ["fold 1 of 3", "fold 3 of 3"]})]
    assert heard[0].startswith("Fits of this comparison have not converged: BMA in folds 1, 3 of 3. ")
    assert json.loads(rows.attrs["not_converged"]) == {"BMA": ["fold 1 of 3", "fold 3 of 3"]}
    table = paired_differences(rows, "Equal weights", replicates=20, random_seed=1)
    assert set(table["not_converged"]) == {"BMA in 2 of 3 folds"}
    assert table["verdict"].str.endswith(" (not converged)").all()
    back = paired_differences(rows, "BMA", replicates=20, random_seed=1)  # the reference may be the one
    assert set(back["not_converged"]) == {"BMA in 2 of 3 folds"}
    scores = score_table(rows, replicates=20, random_seed=1)
    assert scores.set_index("model")["not_converged"].to_dict() == {"Equal weights": "none", "BMA": "2 of 3 folds"}
    study = study_of(rows)
    assert _pooled(study, scores)["not converged"].tolist() == ["none", "2 of 3 folds"]
    line = table[table["metric"] == "crps"].iloc[0].to_dict()
    assert _verdict(study, line).endswith("(not converged: BMA in 2 of 3 folds).")
    effects = ladder_effects(rows, replicates=20, random_seed=1)
    assert effects["not_converged"].tolist() == ["BMA in 2 of 3 folds"]
    assert "Not converged: BMA in 2 of 3 folds. What is said of these rungs may change" in ladder_words(effects)


def test_the_words_of_a_marked_verdict_keep_their_meaning():
    """A mark must not hide from the words of the ladder what helps and what hurts."""
    table = pd.DataFrame({
        "effect": ["weights", "HBM or BMA", "mixture"], "before": ["Equal weights", "BMA with effects", "BMA"],
        "after": ["BMA", "HBM", "Linear pool"], "unit": "percent", "difference": [-4.0, 3.0, 0.1], "low": [-5.0, 2.0, -1.0],
        "high": [-3.0, 4.0, 1.0], "verdict": ["better", "worse (not converged)", "not told apart"],
        "not_converged": ["none", "HBM in 1 of 5 folds", "none"],
    })  # fmt: skip
    text = ladder_words(table)
    assert text.startswith(
        "With the same group and site effects, HBM against BMA: +3.0 % (+2.0 to +4.0): worse (not converged). "
    )
    assert "What helps, the largest first: weights (Equal weights to BMA, -4.0 % (-5.0 to -3.0))." in text
    assert (
        "What hurts, the largest first: HBM or BMA (BMA with effects to HBM, +3.0 % (+2.0 to +4.0), not converged)."
        in text
    )
    assert text.endswith(
        "Not converged: HBM in 1 of 5 folds. What is said of these rungs may change with fits that have."
    )


def test_a_comparison_that_converged_has_no_mark(ensemble, monkeypatch):
    rows, heard = compared(ensemble, monkeypatch, {("BMA", 1): ["Something else is odd."]})
    assert heard == []
    assert json.loads(rows.attrs["warned"]) == {"BMA: Something else is odd.": ["fold 1 of 3"]}
    table = paired_differences(rows, "Equal weights", replicates=20, random_seed=1)
    assert set(table["not_converged"]) == {"none"}
    assert not table["verdict"].str.contains("converged").any()
    assert "not converged" not in _pooled(study_of(rows), score_table(rows, replicates=20, random_seed=1))


def test_a_model_that_is_not_in_the_rows_leaves_no_mark(ensemble, monkeypatch):
    rows, _ = compared(ensemble, monkeypatch, {("BMA", 2): [CHAINS]})
    assert without_convergence(rows) == {"BMA": "1 of 3 folds"}
    assert without_convergence(rows.sel(model=["Equal weights"])) == {}
    assert without_convergence(rows.isel(obs=slice(0, 50))) == {"BMA": "1 of 3 folds"}


def test_kept_folds_are_told_of_again(ensemble, monkeypatch, tmp_path):
    _, heard = compared(ensemble, monkeypatch, {("BMA", 1): [CHAINS]}, cache=tmp_path)
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="have not converged: BMA in fold 1 of 3") as caught:
        be.compare({"Equal weights": be.EqualWeights(), "BMA": be.BMA(sigma="shared")}, ensemble, estimand="site", folds=3,
                   method="em", random_seed=1, cache=tmp_path, progressbar=False)  # fmt: skip
    assert [str(one.message) for one in caught] == heard


def test_what_counts_as_not_converged():
    """The sampler, EM and the approximation each say it in their own words; see inference.py."""
    news = {
        ("A", CHAINS): ["fold 2 of 2", "fold 1 of 2"],
        ("A", "EM stopped after 5 passes before it converged; members may be near copies."): ["fold 1 of 2"],
        ("B", "The approximation around the optimum should not be trusted (Pareto k 1.20)."): ["fold 2 of 2"],
        ("C", "EM found 2 optima; the standard start's has log likelihood 1."): ["fold 1 of 2"],
    }
    assert not_converged(news) == {"A": ["fold 1 of 2", "fold 2 of 2"], "B": ["fold 2 of 2"]}


def test_members_that_have_seen_the_rows_are_told_once(ensemble, monkeypatch):
    text = "Member 'b' has seen these rows, it seems: its residuals are {} of those of the others. Cross-fit it."
    news = {("BMA", k): [text.format(0.01 * k), CHAINS] for k in (1, 2, 3)}
    news |= {("EqualWeights", k): [text.format(0.02 * k)] for k in (1, 2)}
    rows, heard = compared(ensemble, monkeypatch, news)
    seen = [one for one in heard if "has seen" in one]
    assert len(heard) == 2  # and one of convergence
    assert len(seen) == 1
    assert seen[0].startswith("Member 'b' has seen these rows, it seems: its residuals are 0.0")
    assert "Equal weights in fold 1 of 3" in seen[0]
    assert seen[0].count("Member") == 1
    assert sum("has seen" in one for one in json.loads(rows.attrs["warned"])) == 5


def test_two_members_that_have_seen_the_rows_are_both_named():
    found = seen_members({("A", "Member 'a' has seen x."): ["fold 1 of 2"], ("A", "Member 'b' has seen y."): ["fold 2 of 2"],
                          ("A", "2 rows are of stations that the fit has not seen"): ["fold 1 of 2"]})  # fmt: skip
    assert found == "Member 'a' has seen x. (A in fold 1 of 2) Member 'b' has seen y. (A in fold 2 of 2)"


@pytest.mark.slow
def test_a_sampler_of_few_draws_is_heard_through_compare(ensemble):
    """Case: HBM with 40 draws a chain was called better, without a word."""
    with pytest.warns(UserWarning, match=r"have not converged: HBM in folds? .*of 2") as caught:
        rows = be.compare({"EW": be.EqualWeights(), "HBM": be.HBM(group=False)}, ensemble, estimand="site", folds=2, draws=40,
                          random_seed=1, progressbar=False, method={"HBM": "nuts", "EW": "em"})  # fmt: skip
    assert len([one for one in caught if one.category is UserWarning]) == 1
    table = paired_differences(rows, "EW", replicates=100)
    assert table["verdict"].str.endswith("(not converged)").all()
