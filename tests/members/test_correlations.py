"""Correlations of covariates and variance inflation: against pandas, loops by hand and statsmodels."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.outliers_influence import variance_inflation_factor

from bayesens.members.correlations import covariate_correlations, inflation_factors


def table(n_sites=6, n_days=20, seed=1):
    rng = np.random.default_rng(seed)
    site = np.repeat([f"s{i}" for i in range(n_sites)], n_days)
    level = np.repeat(rng.normal(size=n_sites), n_days)
    rain = rng.normal(size=len(site)) + level
    X = pd.DataFrame({"rain": rain, "wet": 0.5 * rain + rng.normal(size=len(site)), "clay": level})
    X.loc[rng.random(len(site)) < 0.1, "rain"] = np.nan
    return X, site


def test_parts_are_those_of_pandas_and_of_a_loop():
    X, site = table()
    product = pd.DataFrame({"cci": X["wet"] + 1.0})
    found = covariate_correlations(X, site=site, products=product).set_index(["first", "second"])
    whole = X.join(product)
    assert len(found) == 6
    for (one, other), line in found.iterrows():
        pair = whole[[one, other]].dropna()
        assert line["n"] == len(pair)
        assert line["pooled"] == pytest.approx(pair[one].corr(pair[other]))
        groups = pair.groupby(site[pair.index])
        with np.errstate(invalid="ignore"):
            own = groups.apply(
                lambda part: part.iloc[:, 0].corr(part.iloc[:, 1]) if (part.nunique() > 1).all() else np.nan
            ).dropna()
        if len(own):
            assert line["within"] == pytest.approx(own.mean())
            assert line["within_sd"] == pytest.approx(own.std())
        else:
            assert np.isnan(line["within"])
        means = groups.mean()
        assert line["between"] == pytest.approx(means[one].corr(means[other]))


def test_inflation_is_that_of_statsmodels():
    X, _ = table()
    found = inflation_factors(X)
    whole = X.dropna()
    design = np.column_stack([np.ones(len(whole)), whole.to_numpy()])
    wanted = [variance_inflation_factor(design, k) for k in range(1, 4)]
    np.testing.assert_allclose(found.to_numpy(), wanted, rtol=1e-10)
    assert found.attrs["n"] == len(whole)
    assert np.isinf(inflation_factors(X.assign(twice=2 * X["rain"]))[["rain", "twice"]]).all()


def test_bad_input():
    X, site = table()
    with pytest.raises(ValueError, match="site is 'station', which is no column of X"):
        covariate_correlations(X, site="station")
    with pytest.raises(ValueError, match=r"site has 3 values and X 120 rows"):
        covariate_correlations(X, site=["a", "b", "c"])
    with pytest.raises(ValueError, match="rows have no station"):
        covariate_correlations(X, site=np.where(np.arange(120) < 4, "", site))
    with pytest.raises(TypeError, match="name"):
        covariate_correlations(X.assign(name="a"), site=site)


def test_offsets_constants_and_few_stations():
    X, site = table()
    far = X.dropna().assign(heat=lambda t: 300.0 + 1e-3 * t["wet"] + 1e-3 * np.sin(np.arange(len(t))))
    design = np.column_stack([np.ones(len(far)), (far - far.mean()).to_numpy()])
    wanted = [variance_inflation_factor(design, k) for k in range(1, 5)]
    np.testing.assert_allclose(inflation_factors(far), wanted, rtol=1e-6)
    flat = X.assign(flat=0.1)
    assert np.isnan(inflation_factors(flat)["flat"])
    np.testing.assert_allclose(inflation_factors(flat).drop("flat"), inflation_factors(X))
    assert inflation_factors(X[["rain"]]).tolist() == [1.0]
    found = covariate_correlations(flat, site=site).set_index(["first", "second"])
    assert found.loc[("rain", "flat"), ["pooled", "within", "between"]].isna().all()
    assert found.loc[("rain", "clay"), "stations"] == 0  # clay does not vary within stations
    two = covariate_correlations(X[site <= "s1"], site=site[site <= "s1"])
    assert two["between"].isna().all()
    assert two["stations"].max() == 2


def test_site_may_be_a_column_and_is_then_no_covariate():
    X, site = table()
    pd.testing.assert_frame_equal(
        covariate_correlations(X.assign(station=site), site="station"), covariate_correlations(X, site=site)
    )


def test_more_bad_input():
    X, site = table()
    with pytest.raises(ValueError, match="other row labels than X"):
        covariate_correlations(X, site=site, products=pd.DataFrame({"cci": [1.0, 2.0]}))
    with pytest.raises(ValueError, match="more than one column called 'wet'"):
        covariate_correlations(X, site=site, products=X[["wet"]])
    with pytest.raises(ValueError, match="there is 1 column to correlate"):
        covariate_correlations(X[["wet"]], site=site)
    with pytest.raises(ValueError, match=r"3 of 3 rows have all 3 covariates; wanted more rows than covariates"):
        inflation_factors(X.dropna().head(3))
