"""What every model keeps to: a value with a JSON round trip, one density, and the predictive law of its docstring.

A new model needs a line in CASES (its options) and one in FORMULAS (its log density of y given f, row by row).
"""

import json
from dataclasses import FrozenInstanceError, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc.blocking import DictToArrayBijection, RaveledVars
from pytensor.compile.mode import Mode
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm, t

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
from bayesens.likelihoods.corrected.row_weights.fields import columns
from bayesens.likelihoods.multilevel.effects import effect_draws
from bayesens.likelihoods.options import options_from_json, options_to_json

pytestmark = pytest.mark.filterwarnings("ignore:.*rows lack some member")
# The row-by-row graphs as they are written, in Python: quick to compile, and nothing is rewritten on the way.
PLAIN = Mode(linker="py", optimizer=None)
POINTS = 20
MEMBERS = ["a", "b", "c"]
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
def rows_of(model, ensemble):
    g = transform(model.transform)
    return (
        g.forward(ensemble.observation),
        g.forward(ensemble.prediction),
        ensemble.labels("group"),
        ensemble.labels("site"),
    )


def place(posterior, level, label):
    """Index of a label among those of the fit, or None."""
    return {str(v): i for i, v in enumerate(posterior[level].values)}.get(label)


def offset(model, posterior, draw, group, site):
    """Shift of the kernel means and the variance that new levels add, (draw,) or (draw, member)."""
    shift, variance = 0.0, 0.0
    for level, label in (("group", group), ("site", site)):
        if getattr(model, level):
            at = place(posterior, level, label)
            if at is None:
                variance = variance + draw[f"offset_{level}_sd"] ** 2
            else:
                shift = shift + draw[f"offset_{level}"][:, at]
    return np.asarray(shift), np.asarray(variance)


def bma_density(model, posterior, draw, y, f, group, site):
    there = np.nonzero(np.isfinite(f))[0]
    if len(there) == 0:
        return np.nan
    shift, extra = offset(model, posterior, draw, group, site)
    if shift.ndim == 1:
        shift = shift[:, None]
    elif shift.ndim == 2:
        shift = shift[:, there]
    slope = draw["slope"][:, there] if model.bias == "linear" else 1.0
    bias = draw["bias"][:, there] if model.bias != "none" else 0.0
    weight = draw["weight"][:, there] if "weight" in draw else np.ones(len(there))
    if model.weights == "group":
        at = place(posterior, "group", group)
        weight = (draw["weight_group"][:, at] if at is not None else posterior["weight_new"].values[0])[:, there]
    mean = model.center - bias + slope * (f[there] - model.center) + shift
    sd = np.sqrt(draw["sigma"][:, there] ** 2 + extra[..., None])
    share = weight / weight.sum(axis=-1, keepdims=True)
    return logsumexp(np.log(share) + norm.logpdf(y, mean, sd), axis=1)


def own_density(case, posterior, y, f, group, site, rows_at):
    """The mixture around members whose effects are conditioned on all training rows at once, with dense matrices."""
    model, table = case.model, case.prepared
    draw = {str(n): v.values[0] for n, v in posterior.data_vars.items()}
    members = list(table.members)
    f = f[[MEMBERS.index(m) for m in members]]
    there = np.nonzero(np.isfinite(f))[0]
    if len(there) == 0:
        return np.nan
    known = {level: str(label) in table.levels[level] for level, label in (("site", site), ("group", group))
             if level in table.levels}  # fmt: skip
    if known.get("site"):  # a known site has its group whatever the label says
        known = dict.fromkeys(known, True)
    means, opened, points = [], [], []
    for k in there:
        family = next(fam for fam in table.families if k in fam.members)
        ratio = dict(zip(("site", "group"), family.correction.at))
        mean, left, point = conditioned(case, table, draw, family, k, f[k], group, site, ratio, rows_at)
        means.append(mean)
        opened.append(left)
        points.append(point)
    raw = {"mean": np.mean(points), "spread": np.std(points, ddof=1) if len(points) > 1 else np.nan} | rows_at
    width = draw["scale_slope"] @ standardised(table.widths, raw) if table.widths.names else np.zeros(POINTS)
    weight = draw["weight"] if "weight" in draw else np.ones((POINTS, len(members)))
    if model.weights == "covariates":
        weight = weight * np.exp(np.einsum("c,sck->sk", standardised(table.tilts, raw), draw["weight_slope"]))
    if model.weights == "space":
        waves = columns(table.tilts, standardised(table.tilts, raw)[None])[0]
        weight = weight * np.exp(np.einsum("c,sck->sk", waves, draw["weight_slope"]))
    if model.weights == "group":
        at = place(posterior, "group", group)
        weight = draw["weight_group"][:, at] if at is not None else posterior["weight_new"].values[0]
    share = weight[:, there] / weight[:, there].sum(axis=1, keepdims=True)
    mean, alike = np.stack(means, axis=1), case.history["effects_alike"].values
    new = [level for level, seen in known.items() if not seen]
    if isinstance(model, LinearPool):
        standing = case.history["standing"].values[there]
        stretch = draw.get("stretch", np.ones(POINTS))
        extra = error_of_mean(alike, table.even_sd, draw, share, there, new) * (stretch / draw["sigma"]) ** 2
        extra = extra * gain(draw)
        variance = draw["sigma"] ** 2 * (1.0 + np.average(opened, weights=standing) + extra)
        center = model.center + stretch * ((share * mean).sum(axis=1) - model.center)
        kernel = norm if model.kernel == "normal" else t(draw["nu"])
        sd = np.sqrt(variance) * np.exp(width)
        return kernel.logpdf((y - center) / sd) - np.log(sd)
    extra = added(alike, table.even_sd, draw, share, there, new)[:, None]
    sd = draw["sigma"][:, there] * np.sqrt(extra + np.array(opened)) * np.exp(width)[:, None]
    kernel = norm if model.kernel == "normal" else t(draw["nu"][:, None])
    return logsumexp(np.log(share) + kernel.logpdf((y - mean) / sd) - np.log(sd), axis=1)


def standardised(widths, raw):
    """A row's covariates in standard units, within the range of the training rows, and zero where one is missing."""
    out = []
    for j, name in enumerate(widths.names):
        start = widths.start[j]
        value = np.log(max(raw[name], 0.0) + start) if np.isfinite(start) else raw[name]
        value = np.clip((value - widths.center[j]) / widths.size[j], widths.low[j], widths.high[j])
        out.append(value if np.isfinite(value) else 0.0)
    return np.array(out)


def error_of_mean(alike, even_sd, draw, share, there, levels):
    """Variance that effects of new levels give the members' weighted mean."""
    out = np.zeros(POINTS)
    for i, w in enumerate(share):
        for level in levels:
            sd = (draw[f"offset_{level}_sd"] / draw["residual_sd"] * even_sd)[i, there]
            out[i] += (w * sd) @ alike[("site", "group").index(level)][np.ix_(there, there)] @ (w * sd)
    return out


def added(alike, even_sd, draw, share, there, levels):
    """One and what effects of new levels add to the kernels' variance: their error's, less half of what parts the members."""
    error = error_of_mean(alike, even_sd, draw, share, there, levels)
    sd = [draw[f"offset_{level}_sd"] / draw["residual_sd"] * even_sd for level in levels]
    whole = sum(((share * s[:, there] ** 2).sum(axis=1) for s in sd), np.zeros(POINTS))
    size = (share * draw["sigma"][:, there] ** 2).sum(axis=1)
    return np.maximum(1.0 + gain(draw) * (1.5 * error - 0.5 * whole) / size, 0.25)


def gain(draw):
    """By how much of that the squared scale grows: what keeps 90 % in a t's interval where the effects are small."""
    if "nu" not in draw:
        return 1.0
    return (draw["nu"] + 1.0) / (draw["nu"] + t(draw["nu"]).ppf(0.95) ** 2)


def corrected_by(model, table, coefficients, k, f, x):
    """What a member's regression makes of its value, without effects."""
    bias = coefficients.get("bias", np.zeros(len(table.members)))[..., k]
    slope = coefficients["slope"][..., k] if model.bias == "linear" else 1.0
    out = model.center - bias + slope * (f - model.center)
    if model.bias_covariates:
        out = out + coefficients["covariate_slope"][..., k, :] @ (x - table.covariate_center)
    return out


def conditioned(case, table, draw, family, k, f, group, site, ratio, rows_at):
    """Mean of a new row of a member under each draw, what is open of its effects, and the mean at the typical coefficients."""
    x_new = np.array([rows_at[name] for name in case.model.bias_covariates])
    key = tuple(family.members), group, site
    if key not in case.effects:  # rows of a place have the same
        case.effects[key] = effects_of_a_place(case, table, draw, family, group, site, ratio)
    left, point, of_draws, of_point = case.effects[key]
    mean = corrected_by(case.model, table, draw, k, f, x_new) + of_draws
    return mean, left, float(np.squeeze(corrected_by(case.model, table, point, k, f, x_new) + of_point))


def effects_of_a_place(case, table, draw, family, group, site, ratio):
    """What is open of the effects, the typical coefficients, and the effects' means under each draw and under those."""
    model, rows = case.model, table.rows
    from bayesens.likelihoods.corrected.posterior import point_correction

    point = {n: v[0, 0] for n, (_, v) in point_correction(table, model.recipe(table.members)).items()}
    x_all = np.column_stack([case.ensemble.dataset[name].values[rows.index] for name in model.bias_covariates]) if (
        model.bias_covariates) else np.zeros((len(rows.y), 0))  # fmt: skip
    label = {level: case.ensemble.labels(level)[rows.index] for level in ("site", "group")}
    line = [(i, j) for i in range(len(rows.y)) for j in family.members if rows.available[i, j]]
    weight = np.array([1.0 / sum(rows.available[i, m] for m in family.members) for i, _ in line])
    own_group = dict(zip(label["site"], label["group"])).get(site, group) if "site" in table.levels else group
    z = {level: np.array([label[level][i] for i, _ in line]) for level in label}
    same = {"site": z["site"] == site, "group": z["group"] == own_group}
    between, cross, prior = np.zeros((len(line), len(line))), np.zeros(len(line)), 0.0
    for level in table.levels:
        r2 = ratio[level] ** 2
        between += r2 * np.equal.outer(z[level], z[level])
        cross += r2 * same[level]
        prior += r2 * same[level].any()
    smoother = np.linalg.solve(between + np.diag(1.0 / weight), cross)

    def mean(coefficients):
        fitted = np.array([corrected_by(model, table, coefficients, j, rows.f[i, j], x_all[i]) for i, j in line])
        return smoother @ (np.array([rows.y[i] for i, _ in line])[:, None] - fitted.reshape(len(line), -1))

    return prior - smoother @ cross, point, mean(draw), mean(point)


def single_density(model, posterior, draw, y, f, group, site):
    return bma_density(model, posterior, draw, y, f[[MEMBERS.index(model.member)]], group, site)


def climatology_density(model, posterior, draw, y, f, group, site):
    shift, extra = offset(model, posterior, draw, group, site)
    return norm.logpdf(y, draw["mean"] + shift, np.sqrt(draw["sd"] ** 2 + extra))


def hbm_level(truth_sd, slope, sd, correlation):
    """Covariance of (y, f) from y = truth and f = slope * truth + error."""
    loading = np.r_[1.0, slope]
    out = truth_sd**2 * np.outer(loading, loading)
    out[1:, 1:] += np.diag(sd) @ correlation @ np.diag(sd)
    return out


def hbm_density(model, posterior, draw, y, f, group, site):
    """The joint normal of (y, f), less that of f."""
    out = []
    full = {str(n): v.values[0] for n, v in posterior.data_vars.items()}
    at = {
        level: place(posterior, level, label)
        for level, label in (("group", group), ("site", site))
        if getattr(model, level)
    }
    there = np.nonzero(np.isfinite(f))[0]
    for i in range(POINTS):
        d = {name: value[i] for name, value in full.items()}
        covariance = hbm_level(d["truth_sd"], d["slope"], d["error_sd"], d.get("residual_corr", np.eye(3)))
        truth, member = d["truth_mean"], model.center + d["bias"] + d["slope"] * (d["truth_mean"] - model.center)
        for level, index in at.items():
            if index is None:
                covariance += hbm_level(d[f"truth_{level}_sd"], d[f"slope_{level}"], d[f"bias_{level}_sd"],
                                        d.get(f"bias_{level}_corr", np.eye(3)))  # fmt: skip
            else:
                effect = d[f"truth_{level}"][index]
                truth, member = truth + effect, member + effect * d[f"slope_{level}"] + d[f"bias_{level}"][index]
        pick = np.r_[0, 1 + there]
        mean = np.r_[truth, member][pick]
        both = multivariate_normal(mean, covariance[np.ix_(pick, pick)]).logpdf(np.r_[y, f[there]])
        alone = (
            multivariate_normal(mean[1:], covariance[np.ix_(pick[1:], pick[1:])]).logpdf(f[there])
            if len(there)
            else 0.0
        )
        out.append(both - alone)
    return np.array(out)


def pool_density(model, posterior, draw, y, f, group, site):
    there = np.nonzero(np.isfinite(f))[0]
    if len(there) == 0:
        return np.nan
    if model.weights == "free":
        if (given := members_given(model, f)) is None:
            return np.nan
        f, left = given
        w = draw["linear_weight"]
        mean = model.center + draw["intercept"] + w @ (f - model.center)
        return norm.logpdf(y, mean, np.sqrt(draw["sigma"] ** 2 + np.sum(w @ left * w, axis=1)))
    slope = draw["slope"][:, None] if model.bias == "linear" else 1.0
    bias = draw["bias"][:, there] if model.bias != "none" else 0.0
    corrected = model.center - bias + slope * (f[there] - model.center)
    weight = draw["weight"][:, there]
    return norm.logpdf(y, (weight * corrected).sum(axis=1) / weight.sum(axis=1), draw["sigma"])


def members_given(model, f):
    """Mean and covariance of all members given those that a row has, or None."""
    there, moments = np.isfinite(f), np.array(model.member_moments)
    if there.all():
        return f, np.zeros((len(f), len(f)))
    if not there.any() or not len(moments):
        return None
    mean, covariance = moments[:, 0], moments[:, 1:]
    slope = np.linalg.solve(covariance[np.ix_(there, there)], covariance[there])
    left = covariance - covariance[:, there] @ slope
    return np.where(there, f, mean + (f[there] - mean[there]) @ slope), left


def emos_density(model, posterior, draw, y, f, rows_at):
    if (given := members_given(model, f)) is None:
        return np.nan
    f, left = given
    w, contrast = draw["linear_weight"], np.eye(len(f)) - 1.0 / len(f)
    mean = model.center + draw["intercept"] + w @ (f - model.center)
    spread = (f @ contrast @ f + np.trace(contrast @ left)) / (len(f) - 1)
    sd = np.sqrt(draw["sigma"] ** 2 + np.sum(w @ left * w, axis=1) + draw["spread"] ** 2 * spread)
    for j, (name, start, center, size, low, high) in enumerate(model.widths):
        value = np.mean(f) if name == "mean" else rows_at[name]
        value = value if start is None else np.log(max(value, 0.0) + start)
        sd = sd * np.exp(draw["scale_slope"][:, j] * np.clip((value - center) / size, low, high))
    return norm.logpdf(y, mean, sd)


FORMULAS = {
    "BMA": bma_density, "EqualWeights": bma_density, "SingleMember": single_density, "Climatology": climatology_density,
    "HBM": hbm_density, "LinearPool": pool_density, "EMOS": emos_density,
}  # fmt: skip


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
