"""Tables of members whose skill differs by station, with gross errors in some of the observations."""

import numpy as np
import pandas as pd

import bayesens as be

WEIGHTS = {
    "weights of all rows": be.BMA(site=False, group=False), "weights by group": be.BMA(site=False, weights="group"),
    "weights by covariates": be.BMA(site=False, group=False, weights="covariates", weight_covariates=("lon", "lat")),
    "weights by place": be.BMA(site=False, group=False, weights="space"),
}  # fmt: skip


def gross_errors(seed, share=0.12, members="abcd", sites=25, times=40):
    """An ensemble of stations in five groups; the share of its observations has errors with a standard deviation of 2.5."""
    rng = np.random.default_rng(seed)
    lon, lat, n = rng.uniform(0.0, 4.0, sites), rng.uniform(44.0, 47.0, sites), sites * times
    truth, columns = rng.normal(size=n), {}
    gross = rng.random(n) < share
    for name in members:
        offset = 0.4 * rng.normal(size=sites)
        sd = 0.35 * np.exp(0.7 * rng.normal(size=sites))
        columns[name] = truth + offset.repeat(times) + sd.repeat(times) * rng.normal(size=n)
    y = truth + np.where(gross, 2.5 * rng.normal(size=n), 0.0)
    station, group = ([f"{letter}{i % most:02d}" for i in range(sites)] for letter, most in (("s", sites), ("g", 5)))
    frame = pd.DataFrame({"station": np.repeat(station, times), "g": np.repeat(group, times), "y": y, **columns,
                          "lon": lon.repeat(times), "lat": lat.repeat(times)})  # fmt: skip
    return be.Ensemble.from_frame(
        frame, members=list(members), observation="y", site="station", group="g", lon="lon", lat="lat"
    )


def density_of(model, rows):
    """The resolved model and its compiled log density."""
    from bayesens.inference.log_density import compile_target

    data = model.prepare(rows)
    model = model.resolve(data)
    return model, compile_target(model.build(data))
