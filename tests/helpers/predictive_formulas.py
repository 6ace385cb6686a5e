"""Densities of an observation given the members, one posterior draw and one row at a time, as docstrings of models have them."""

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm, t

from bayesens import LinearPool
from bayesens.ensemble.transforms import transform
from bayesens.likelihoods.corrected.row_weights.fields import columns

__all__ = ["FORMULAS", "MEMBERS", "POINTS", "emos_density", "own_density", "rows_of"]

MEMBERS = ["a", "b", "c"]
POINTS = 20  # draws


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
