"""Tables whose errors grow with the value and with a column, and the formula of EMOS whose width follows them."""

import warnings

import numpy as np
import pandas as pd

import bayesens as be

MEMBERS = ["a", "b", "c"]


def skewed(n, seed):
    """Members with errors in proportion to the value; a column that the width follows as well, and one that it does not."""
    rng = np.random.default_rng(seed)
    truth, elevation = np.exp(0.8 * rng.normal(size=n)), rng.normal(size=n)
    frame = pd.DataFrame(truth[:, None] * np.exp(0.3 * rng.normal(size=(n, 3))), columns=MEMBERS)
    frame["y"] = truth * np.exp(0.15 * np.exp(0.5 * elevation) * rng.normal(size=n))
    frame["elevation"], frame["noise"] = elevation, rng.normal(size=n)
    frame["date"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1500, size=n), unit="D")
    return frame


def simulated(n, seed):
    """A world of the model: widths with coefficients .4 of the members' mean and -.3 of elevation."""
    frame, rng = skewed(n, seed), np.random.default_rng(seed + 1000)
    frame[MEMBERS] = 3.0 * rng.gamma(4.0, 0.25, size=n)[:, None] + 0.3 * rng.normal(size=(n, 3))
    frame[MEMBERS] = frame[MEMBERS].clip(0.01)
    x = covariates(frame, frame, ("mean", "elevation"))
    mean = 0.2 + frame[MEMBERS].to_numpy() @ [0.5, 0.3, 0.2]
    frame["y"] = np.abs(mean + 0.3 * np.exp(x @ [0.4, -0.3]) * rng.normal(size=n))
    return frame


def ensemble(frame):
    beside = [name for name in ("elevation", "noise") if name in frame]
    time = "date" if "date" in frame else None
    return be.Ensemble.from_frame(frame, members=MEMBERS, observation="y", covariates=beside, time=time)


def quiet(model, rows, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return be.fit(model, rows, progressbar=False, **({"random_seed": 1} | kwargs))


def covariates(train, new, scale, *, logarithm=True):
    """What widths follow, by hand, (row, covariate)."""
    out = []
    for name in scale:
        raw, start = [], None
        for frame in (train, new):
            day = 2.0 * np.pi * frame["date"].dt.day_of_year.to_numpy() / 365.25 if name.startswith("season") else None
            value = {"season_sin": np.sin, "season_cos": np.cos}[name](day) if day is not None else frame.get(name)
            raw.append(frame[MEMBERS].mean(axis=1).to_numpy() if name == "mean" else np.asarray(value, dtype=float))
        if name == "mean" and logarithm:
            start = 0.25 * np.median(raw[0])
            raw = [np.log(value + start) for value in raw]
        known = raw[0][np.isfinite(raw[0])]
        low, high = ((end - known.mean()) / known.std() for end in (known.min(), known.max()))
        z = (raw[1] - known.mean()) / known.std()
        out.append(np.where(np.isfinite(z), np.clip(z, low, high), 0.0))
    return np.column_stack(out)


def by_hand(p, f, x, center):
    """Mean and standard deviation of the docstring."""
    mean = center + p["intercept"] + (f - center) @ p["linear_weight"]
    return mean, np.sqrt(p["sigma"] ** 2 + p["spread"] ** 2 * f.var(axis=1, ddof=1)) * np.exp(x @ p["scale_slope"])


def point(tree):
    return {str(name): v.values for name, v in tree["posterior"].to_dataset().isel(chain=0, draw=0).data_vars.items()}
