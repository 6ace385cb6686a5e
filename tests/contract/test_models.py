"""What every model keeps to: a value with a JSON round trip, one density, and the predictive law of its docstring.

A new model needs a line in CASES (its options) and one in FORMULAS of `predictive_formulas` (its log density of y given f, row
by row).
"""

import json
from dataclasses import FrozenInstanceError, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from predictive_formulas import FORMULAS, MEMBERS, POINTS, emos_density, own_density, rows_of
from pymc.blocking import DictToArrayBijection, RaveledVars
from pytensor.compile.mode import Mode

from bayesens import (
    BMA,
    EMOS,
    HBM,
    Climatology,
    Ensemble,
    EqualWeights,
    LinearPool,
    Prior,
    SingleMember,
    models,
)
from bayesens.ensemble.transforms import transform
from bayesens.inference.log_density import compile_target
from bayesens.likelihoods.multilevel.effects import effect_draws
from bayesens.likelihoods.options import options_from_json, options_to_json

pytestmark = pytest.mark.filterwarnings("ignore:.*rows lack some member")
# The row-by-row graphs as they are written, in Python: quick to compile, and nothing is rewritten on the way.
PLAIN = Mode(linker="py", optimizer=None)
WIDE = Prior("StudentT", nu=4, mu=0.1, sigma=0.4)
POSITIVE = Prior("InverseGamma", alpha=3, beta=1)
CASES = {
    "BMA": [
        BMA(),
        BMA(bias="additive", sigma="shared", transform="sqrt", scale=("mean",), site=False,
            sigma_prior=Prior("Gamma", alpha=3, beta=2)),
        BMA(scale=(), sigma_spread=Prior("HalfNormal", sigma=0.25), weight_prior=Prior("Dirichlet", a=[1, 2, 3]),
            site_ratio_prior=POSITIVE, group=False),
        BMA(bias="none", effects="common", weights="equal", scale_slope_prior=WIDE),
        BMA(effects="common", bias_covariates=("lon",), scale=("mean", "lat")),
        BMA(exchangeable=(("a", "c"),), transform="log", center=0.9, unit=0.5, sigma_scale=0.2, site=False),
        BMA(weights="group"),
        BMA(weights="group", transform="sqrt", sigma="shared", bias="additive", bias_covariates=("lat", "lon"),
            weight_logit_prior=Prior("StudentT", nu=4, mu=0, sigma=1),
            weight_spread_prior=Prior("Exponential", lam=2)),
        BMA(weights="group", exchangeable=(("a", "c"),)),
        BMA(kernel="student_t", weights="group", transform="log"),
        BMA(weights="covariates", weight_covariates=("lon", "spread")),
        BMA(weights="space", group=False),
        BMA(weights="covariates", weight_covariates=("lat",), transform="sqrt", exchangeable=(("a", "c"),), scale=()),
        BMA(weights="covariates", weight_covariates=("mean",), kernel="student_t", group=False,
            weight_spread_prior=Prior("Exponential", lam=2)),
        BMA(kernel="student_t", sigma="member"),
        BMA(correction="joint"),
        BMA(correction="joint", bias="additive", sigma="shared", transform="sqrt", bias_prior=WIDE, group=False, site=False,
            sigma_prior=Prior("Gamma", alpha=3, beta=2)),
        BMA(correction="joint", group=True, site=True, sigma_spread=Prior("HalfNormal", sigma=0.25),
            weight_prior=Prior("Dirichlet", a=[1, 2, 3]), slope_prior=Prior("Logistic", mu=1, s=0.1),
            group_sd_prior=Prior("Exponential", lam=2)),
        BMA(correction="joint", bias="none", group=False, effects="source", weights="equal",
            site_sd_prior=Prior("ChiSquared", nu=2)),
        BMA(correction="joint", exchangeable=(("a", "c"),), transform="log", center=0.9, unit=0.5, sigma_scale=0.2, site=False),
        BMA(correction="joint", weights="group", group=False, site=False),
        BMA(correction="joint", weights="group", transform="sqrt", sigma="shared", bias="additive",
            weight_logit_prior=Prior("StudentT", nu=4, mu=0, sigma=1),
            weight_spread_prior=Prior("Exponential", lam=2)),
        BMA(correction="joint", weights="group", exchangeable=(("a", "c"),), group=False, effects="source"),
    ],
    "EqualWeights": [
        EqualWeights(),
        EqualWeights(kernel="student_t", nu_prior=Prior("Exponential", lam=0.2), sigma="shared"),
        EqualWeights(correction="joint", sigma="shared", group=True, site=False, group_sd_prior=POSITIVE),
    ],
    "SingleMember": [
        SingleMember(),
        SingleMember(kernel="student_t", member="b"),
        SingleMember(correction="joint", member="b", group=False, transform="sqrt", slope_prior=WIDE),
    ],
    "Climatology": [
        Climatology(),
        Climatology(group=True, site=True, transform="sqrt", mean_prior=WIDE, sd_prior=POSITIVE),
    ],
    "HBM": [
        HBM(),
        HBM(errors="lkj", group=False, truth_sd_prior=Prior("Weibull", alpha=2, beta=1),
            slope_prior=Prior("Laplace", mu=0.7, b=0.2), error_sd_prior=Prior("Gamma", alpha=3, beta=5),
            bias_site_sd_prior=POSITIVE, correlation_prior=Prior("LKJCorr", eta=1)),
        HBM(errors="independent", site=False, transform="sqrt", truth_mean_prior=WIDE, truth_group_sd_prior=POSITIVE),
        HBM(site=False, group=False, common_prior=Prior("Uniform", lower=0, upper=0.9), bias_prior=WIDE),
    ],
    "LinearPool": [
        LinearPool(),
        LinearPool(bias="additive", transform="sqrt", scale=("mean",), weight_prior=Prior("Dirichlet", a=[1, 2, 3]),
                   site=False),
        LinearPool(bias="none", transform="log", scale=(), center=0.9, unit=0.5, sigma_scale=0.2, sigma_prior=POSITIVE,
                   group=False, site_ratio_prior=POSITIVE),
        LinearPool(bias_covariates=("lon",), scale=("spread", "lat"), group=False, site=False, scale_slope_prior=WIDE),
        LinearPool(kernel="student_t", site=False, nu_prior=Prior("Exponential", lam=0.2)),
        LinearPool(correction="joint"),
        LinearPool(correction="joint", bias="additive", transform="sqrt", weight_prior=Prior("Dirichlet", a=[1, 2, 3]),
                   bias_prior=WIDE),
        LinearPool(correction="joint", bias="none", transform="log", center=0.9, unit=0.5, sigma_scale=0.2,
                   sigma_prior=POSITIVE),
        LinearPool(weights="free", member_moments=()),
        LinearPool(weights="free", intercept_prior=WIDE, coefficient_prior=Prior("Laplace", mu=0, b=0.3)),
    ],
    "EMOS": [
        EMOS(),
        EMOS(member_moments=()),
        EMOS(scale=()),
        EMOS(transform="sqrt", center=1.0, coefficient_prior=WIDE, sd_prior=POSITIVE,
             spread_share_prior=Prior("Beta", alpha=2, beta=3)),
        EMOS(transform="log", scale=("mean", "lat", "lon"), scale_slope_prior=WIDE),
    ],
}  # fmt: skip
SAMPLED = [name for name in models.__all__ if getattr(getattr(models, name), "sampled", True)]
ALL = [(name, i) for name in SAMPLED for i in range(len(CASES.get(name, [None])))]


def table(n, sites, seed):
    """Positive rows of unequal sites in three groups, members missing here and there and from a whole site."""
    rng = np.random.default_rng(seed)
    site = rng.choice(len(sites), size=n, p=rng.dirichlet(np.full(len(sites), 3.0)))
    y = 2.5 + 0.4 * rng.normal(size=len(sites))[site] + 0.6 * rng.normal(size=n)
    shared = 0.3 * rng.normal(size=n)
    frame = pd.DataFrame(
        {"y": np.abs(y) + 0.05, "s": np.array(sites)[site], "g": [f"g{int(sites[i][1]) // 2}" for i in site]}
    )
    for k, name in enumerate(MEMBERS):
        frame[name] = np.abs(0.3 + 0.8 * y + shared + (0.2 + 0.1 * k) * rng.normal(size=n)) + 0.05
        frame.loc[rng.random(n) < 0.2, name] = np.nan
    frame.loc[site == 1, "b"] = np.nan
    frame.loc[frame[MEMBERS].isna().all(axis=1), "c"] = frame.y
    frame.loc[[3, 8], MEMBERS] = np.nan  # two rows without any member
    frame.loc[frame.index % 9 == 5, "y"] = np.nan
    place = dict(zip(sites, rng.normal(size=(len(sites), 2)) + [100.0, 40.0]))
    frame["lon"], frame["lat"] = np.array([place[s] for s in frame["s"]]).T
    return frame


def ensemble_of(frame):
    with pytest.warns(UserWarning, match="missing in 2 of"):
        return Ensemble.from_frame(frame, members=MEMBERS, observation="y", site="s", group="g", lon="lon", lat="lat")


@pytest.fixture(scope="module")
def ensemble():
    return ensemble_of(table(40, ["s0", "s1", "s2", "s3", "s4"], seed=1))


@pytest.fixture(scope="module")
def held_out():
    """Rows of known and of new sites, the latter in a known group and in a new one."""
    return ensemble_of(table(40, ["s0", "s1", "s5", "s8"], seed=2))


def suited(model, ensemble):
    """The rows that a model can be trained on: one that fills in nothing needs all members."""
    if not getattr(model, "needs_all_members", False):
        return ensemble
    return ensemble.select(rows=ensemble.available.all(axis=1) | ~ensemble.available.any(axis=1))


class Case:
    """A resolved model, its fused density, and draws of its parameters at random points."""

    def __init__(self, model, ensemble):
        self.asked, self.ensemble = model, ensemble
        self.model = model.resolve(ensemble)
        self.target = compile_target(model.build(ensemble))
        self.layout = DictToArrayBijection.map(self.target.model.initial_point(random_seed=0)).point_map_info
        rng = np.random.default_rng(3)
        self.x = self.target.start + 0.4 * rng.standard_normal((POINTS, len(self.target.start)))
        self.unconstrained, jacobian = self.target.unconstrained(self.x)
        self.fused = self.target.logp(self.x) - jacobian
        self.posterior = self.target.expand(self.x[None])[0]
        self.draw = {str(n): v.values[0] for n, v in self.posterior.data_vars.items()}
        self.effects = {}  # of places, under these draws

    def completed(self):
        """The draws as a fit has them."""
        posterior = self.posterior
        if hasattr(self.model, "coordinates"):
            posterior = posterior.assign_coords(self.model.coordinates(self.ensemble))
        if hasattr(self.model, "complete"):
            posterior = self.model.complete(posterior, self.ensemble, np.random.default_rng(4))
        return posterior

    def own(self):
        """Whether the model's members are corrected by themselves."""
        return getattr(self.model, "correction", "joint") == "own"

    def predictive(self, posterior, rows):
        """Of new rows; HBM's, given its drawn effects."""
        return self.model.predictive(posterior, rows, *([self.history] if self.own() else []))

    @cached_property
    def history(self):
        """What a fit keeps of its training rows."""
        return self.model.history(self.ensemble)

    @cached_property
    def prepared(self):
        """The training rows as the model has them."""
        return self.model.prepare(self.ensemble)

    def values(self, i):
        """Unconstrained values of one point by name."""
        return DictToArrayBijection.rmap(RaveledVars(self.unconstrained[i], self.layout))


@pytest.fixture(scope="module", params=ALL, ids=[f"{name}-{i}" for name, i in ALL])
def case(request, ensemble):
    name, i = request.param
    return Case(CASES[name][i], suited(CASES[name][i], ensemble))


# -------------------------------------------------------------------------------------------------------------- a value
@pytest.fixture(params=[m for each in CASES.values() for m in each], ids=lambda m: type(m).__name__)
def model(request):
    return request.param


def test_every_model_has_cases_and_a_formula():
    assert set(CASES) == set(FORMULAS) == set(SAMPLED)


def test_a_model_is_frozen_hashable_and_equal_to_its_copy(model):
    with pytest.raises(FrozenInstanceError):
        model.transform = "log"
    twin = replace(model)
    assert twin == model
    assert hash(twin) == hash(model)
    assert eval(repr(model), {c.__name__: c for c in (type(model), Prior)}) == model


def test_options_survive_json_text(model, ensemble):
    for each in (model, model.resolve(suited(model, ensemble))):
        again = options_from_json(type(each), json.loads(json.dumps(options_to_json(each))))
        assert again == each
        assert hash(again) == hash(each)


def test_every_prior_can_be_replaced(model):
    other = Prior("HalfCauchy", beta=3)
    for item in fields(model):
        if item.name.endswith("_prior"):
            variant = replace(model, **{item.name: other})
            assert getattr(variant, item.name) == other
            assert variant != model


def test_resolving_fills_in_what_the_data_say_and_is_idempotent(model, ensemble):
    ensemble = suited(model, ensemble)
    resolved = model.resolve(ensemble)
    assert resolved.resolve(ensemble) == resolved
    # Resolved by other rows, nothing changes either: predictions of new tables use the centre of the fit.
    assert resolved.resolve(ensemble.select(rows=np.nonzero(ensemble.observed)[0][:20])) == resolved
    assert not [item.name for item in fields(resolved) if getattr(resolved, item.name) is None]
    kept = [item.name for item in fields(model) if getattr(model, item.name) is not None]
    assert [getattr(resolved, name) for name in kept] == [getattr(model, name) for name in kept]


def test_an_unknown_likelihood_is_an_error(model, ensemble):
    with pytest.raises(ValueError, match="likelihood is 'fused' or 'rows'; got 'row'"):
        model.build(ensemble, likelihood="row")


# --------------------------------------------------------------------------------------------------------- one density
def test_fused_density_is_the_row_by_row_one(case):
    """Up to a constant, less the density of the effects where the fused form has them integrated out."""
    rows = case.asked.build(case.ensemble, likelihood="rows")
    logp = rows.compile_logp(mode=PLAIN)
    extra = [v.name for v in rows.value_vars if v.name not in case.values(0)]
    assert {v.name for v in rows.value_vars} >= set(case.values(0))
    assert all(np.isfinite(case.fused))
    difference = []
    for value, log_effects, i in effects_at(case, extra):
        assert set(value) == set(extra)
        difference.append(logp(case.values(i) | value) - log_effects - case.fused[i])
    assert len(difference) >= POINTS
    assert np.ptp(difference) <= 1e-8 * max(1.0, np.abs(case.fused).max() / 1e3)


def effects_at(case, extra):
    """Values of the effects that only the row-by-row form has, and their log density: two draws at every point."""
    if not extra:
        yield from (({}, 0.0, i) for i in range(POINTS))
        return
    moments = case.model.moments(case.draw)
    parts = [moments[name] for name in ("mean", "within", "site", "group")]
    for seed in (5, 6):
        drawn = effect_draws(*parts, data=case.model.statistics(case.ensemble), rng=np.random.default_rng(seed))
        for i in range(POINTS):
            value = {}
            for level, effect in zip(("group", "site"), drawn):
                if f"truth_{level}" in extra:
                    truth, member = effect[i, :, 0], effect[i, :, 1:]
                    value[f"truth_{level}"] = truth
                    value[f"bias_{level}"] = member - truth[:, None] * case.draw[f"slope_{level}"][i]
            yield value, drawn[2][i], i


def test_gradient_of_the_fused_density_is_that_of_finite_differences(case):
    x = case.x[0]
    logp, gradients = case.target.logp_and_gradient(np.stack([x, case.x[1]]))
    gradient = gradients[0]
    value, compiled = case.target.functions.one(x)
    assert value == pytest.approx(logp[0], rel=1e-12)
    np.testing.assert_allclose(compiled, gradient, rtol=1e-8, atol=1e-8 * np.abs(gradient).max())
    for j in range(len(x)):
        step = 1e-5 * np.eye(len(x))[j]
        up, down = case.target.logp(np.stack([x + step, x - step]))
        assert gradient[j] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-4)


def test_weights_lie_on_the_simplex_and_exchangeable_members_share_all_parameters(case):
    names = [n for n in ("weight", "bias", "slope", "sigma") if n in case.draw]
    if "weight" in names:
        np.testing.assert_allclose(case.draw["weight"].sum(axis=-1), 1.0, rtol=1e-12)
    for one, *others in getattr(case.model, "exchangeable", ()):
        for name in names:
            values = case.posterior[name]
            for other in others:
                np.testing.assert_array_equal(values.sel(member=one), values.sel(member=other))
        if "weight" in names:
            total = case.posterior["weight_exchangeable"].sel(exchangeable=one)
            np.testing.assert_allclose(
                case.posterior["weight"].sel(member=[one, *others]).sum("member"), total, rtol=1e-12
            )


@pytest.mark.parametrize("errors", ["factor", "lkj", "independent"])
def test_error_correlations_are_those_of_the_docstring_at_every_level(ensemble, errors):
    """R = r 1 1' + (1 - r) R0 for a common factor, R0 alone for lkj, by draws from the prior."""
    model = HBM(errors=errors).build(ensemble)
    for name in ("residual", "bias_group", "bias_site"):
        assert (f"{name}_corr" in model.named_vars) == (errors != "independent")
        if errors == "independent":
            continue
        wanted = [model[f"{name}_corr"], model[f"{name}_rest"]]
        wanted += [model[f"{name}_common"]] if errors == "factor" else []
        for _ in range(3):
            correlation, root, *common = pm.draw(wanted, mode=PLAIN)
            rest, r = root @ root.T, common[0] if common else 0.0
            np.testing.assert_allclose(correlation, r + (1.0 - r) * rest, atol=1e-12)
            np.testing.assert_allclose(np.diag(correlation), 1.0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------- p(y | f), by hand
@pytest.mark.parametrize("which", ["training rows", "known and new sites and groups"])
def test_predictive_is_the_formula_of_the_docstring(case, ensemble, held_out, which):
    rows = ensemble if which == "training rows" else held_out
    posterior = case.completed()
    z, f, group, site = rows_of(case.model, rows)
    got = case.predictive(posterior, rows).log_likelihood(z)
    formula = FORMULAS[type(case.model).__name__]
    if case.own():
        for i in np.nonzero(rows.observed)[0]:
            rows_at = {name: float(rows.dataset[name].values[i]) for name in ("lon", "lat")}
            expected = own_density(case, posterior, z[i], f[i], str(group[i]), str(site[i]), rows_at)
            np.testing.assert_allclose(got[:, i], np.broadcast_to(expected, POINTS), rtol=1e-7, atol=1e-7)
        return
    for i in np.nonzero(rows.observed)[0]:
        at = {name: float(rows.dataset[name].values[i]) for name in ("lon", "lat")}
        at = (at,) if formula is emos_density else (str(group[i]), str(site[i]))
        expected = formula(case.model, posterior, case.draw, z[i], f[i], *at)
        np.testing.assert_allclose(got[:, i], np.broadcast_to(expected, POINTS), rtol=1e-9, atol=1e-9)


def test_predictive_needs_no_labels_where_all_levels_are_new(case, held_out):
    posterior = case.completed()
    table = held_out.select(rows=held_out.observed)
    bare, label = Ensemble(table.dataset.drop_vars(["site", "group"])), ("obs", np.full(table.n_obs, "new"))
    new = Ensemble(table.dataset.assign_coords(site=label, group=label))
    z = transform(case.model.transform).forward(table.observation)
    one, other = (case.predictive(posterior, rows).log_density(z) for rows in (bare, new))
    np.testing.assert_array_equal(one, other)


def test_predictive_of_a_row_without_members(case, ensemble):
    """NaN where a model needs a member; the climatology of the level where it does not."""
    posterior = case.completed()
    moments = case.predictive(posterior, ensemble).moments()
    empty = ~ensemble.available.any(axis=1)
    if type(case.model).__name__ in ("HBM", "Climatology"):
        assert np.all(np.isfinite(moments.mean) & (moments.variance > 0.0))
    else:
        assert np.all(np.isnan(moments.mean[empty]))


def test_draws_survive_a_posterior_with_several_chains(case, held_out):
    posterior = case.completed()
    flat = posterior.isel(chain=0, drop=True)
    chains = xr.concat([flat.isel(draw=slice(0, 10)), flat.isel(draw=slice(10, 20)).assign_coords(draw=np.arange(10))],
                       dim="chain", join="override", coords="minimal", compat="override")  # fmt: skip
    chains = chains.assign_coords(chain=[0, 1])
    z = transform(case.model.transform).forward(held_out.observation)
    one, other = (case.predictive(p, held_out).log_likelihood(z) for p in (posterior, chains))
    np.testing.assert_array_equal(one, other)
