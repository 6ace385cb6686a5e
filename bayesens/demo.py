"""The whole job on a simulated soil-moisture region whose truth is known, written to one folder."""

from __future__ import annotations

import json
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens import __version__, demo_figures, simulate
from bayesens.atomic import check_writable, move, remove
from bayesens.columns import listed
from bayesens.ensemble import Ensemble
from bayesens.files import write_fit, write_table
from bayesens.inference import fit
from bayesens.models import BMA, HBM, Climatology, EqualWeights, SingleMember
from bayesens.prediction import predict, score
from bayesens.summary import mean_scores, prediction_table

__all__ = ["Demo", "held_out_stations", "recovery", "run_demo"]

COLUMNS: dict[str, Any] = {
    "members": simulate.REGION_MEMBER, "observation": "sm", "site": "station", "group": "network", "time": "date",
    "lon": "lon", "lat": "lat", "units": "m3 m-3",
}  # fmt: skip
MODELS = {
    "Climatology": Climatology(), "Best member": SingleMember(), "Equal weights": EqualWeights(),
    "BMA": BMA(), "HBM": HBM(),
}  # fmt: skip
SAMPLED = ("BMA", "HBM")
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Demo:
    """What the demo found.

    Attributes
    ----------
    scores : DataFrame
        Mean scores at the stations held out, a line for each model.
    findings : str
        The findings in words.
    units : str
        Of the scores.
    files : tuple of str
        What was written, relative to the folder.
    """

    scores: pd.DataFrame
    findings: str
    units: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class _Results:
    """Everything that tables, figures and words are made from."""

    region: simulate.Simulation
    train: Ensemble
    held_out: Ensemble
    fits: dict[str, xr.DataTree]
    scores: dict[str, xr.Dataset]
    predictions: dict[str, xr.Dataset]
    recovered: pd.DataFrame


def run_demo(
    out: str | os.PathLike[str],
    *,
    random_seed: int = 1,
    draws: int = 1000,
    tune: int = 500,
    n_times: int = 60,
    say: Callable[[str], None] = print,
) -> Demo:
    """Simulate a region, fit every model without some stations, score them there, and write it all to a folder.

    Parameters
    ----------
    out : str or path
        A folder that does not exist, is empty, or holds a former demo and nothing else. It appears when all is done.
    random_seed : int
        Of the region, of the choice of stations, and of the draws.
    draws, tune : int
        Draws of each chain, kept and thrown away.
    n_times : int
        Dates of the region, six days apart.
    say : callable
        Gets a line of text at each step.

    Returns
    -------
    Demo

    Raises
    ------
    OSError, ValueError
        If the folder cannot be written, or holds anything else.

    Examples
    --------
    >>> run_demo(".")
    Traceback (most recent call last):
    ...
    ValueError: ... is the folder that you are in, or above it; name a new one, such as bayesens-demo
    """
    with _folder(Path(out)) as folder:
        results = _results(random_seed, draws, tune, n_times, say)
        say("Writing tables and figures ...")
        scores = _score_table(results.scores)
        findings = _findings(results, scores)
        _write(folder, results, scores)
        text = README.format(findings=findings, seed=random_seed, version=__version__, out=Path(out))
        (folder / "README.txt").write_text(text, encoding="utf-8")
        files = (*_files(folder), "demo.json")
        settings = {
            "bayesens_demo": __version__,
            "random_seed": random_seed,
            "draws": draws,
            "tune": tune,
            "files": files,
        }
        (folder / "demo.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return Demo(scores, findings, COLUMNS["units"], files)


# ------------------------------------------------------------------------------------------------------------ the work
def _results(random_seed: int, draws: int, tune: int, n_times: int, say: Callable[[str], None]) -> _Results:
    region = simulate.region(n_times=n_times, random_seed=random_seed)
    held = region.frame["station"].isin(held_out_stations(region.frame, random_seed=random_seed))
    train, held_out = (Ensemble.from_frame(region.frame[rows], **COLUMNS) for rows in (~held, held))
    say(f"Simulated {len(region.frame)} rows at {region.frame['station'].nunique()} stations; "
        f"{len(held_out.levels('site'))} of them are held out.")  # fmt: skip
    fits, scores, predictions = {}, {}, {}
    for name, model in MODELS.items():
        sampled = name in SAMPLED
        say(f"Fitting {name} to {len(train)} rows" + (" (compiles first) ..." if sampled else " ..."))
        fits[name] = fit(
            model, train, method="auto" if sampled else "em", draws=draws, tune=tune, random_seed=random_seed,
            log_likelihood=False, progressbar=sys.stderr.isatty(),
        )  # fmt: skip
        with warnings.catch_warnings():  # stations that no fit has seen are what the demo is about
            warnings.filterwarnings("ignore", message=".* that the fit has not seen")
            scores[name] = score(fits[name], held_out, levels=LEVELS, random_seed=random_seed)
            predictions[name] = predict(fits[name], held_out)
    return _Results(region, train, held_out, fits, scores, predictions, recovery(fits["HBM"], region))


def held_out_stations(frame: pd.DataFrame, *, random_seed: int, share: float = 0.25) -> list[str]:
    """Choose about a share of the stations of every network, at least one, at random.

    Parameters
    ----------
    frame : DataFrame
        With the columns ``station`` and ``network``.
    random_seed : int
        Equal seeds choose alike.
    share : float
        Of the stations of each network.

    Returns
    -------
    list of str

    Examples
    --------
    >>> frame = pd.DataFrame({"station": ["a", "b", "c", "d", "e"], "network": ["n"] * 4 + ["m"]})
    >>> held = held_out_stations(frame, random_seed=1)
    >>> len(held), "e" in held
    (2, True)
    """
    rng = np.random.default_rng(random_seed)
    stations = frame.drop_duplicates("station").groupby("network")["station"]
    return sorted(
        str(name)
        for _, names in stations
        for name in rng.choice(names.to_numpy(), size=max(1, int(share * len(names) + 0.5)), replace=False)
    )


def recovery(tree: xr.DataTree, region: simulate.Simulation) -> pd.DataFrame:
    """Compare what HBM estimates with what the region was made of.

    HBM describes the members given the observation, and the region those given the truth behind it. The sensor's error
    lowers slopes by the reliability r of the observations within stations, and adds slope slope' Var(truth) (1 - r) to
    the covariance of the errors; the true values here include both. A bias is taken at the centre of the fit.

    Parameters
    ----------
    tree : DataTree
        A fit of HBM to rows of the region.
    region : Simulation
        From `simulate.region`.

    Returns
    -------
    DataFrame
        ``parameter``, ``member``, ``network`` (of biases by network), ``true``, posterior ``median``, ``q05``, ``q95``,
        and whether the interval holds the true value (``inside``).
    """
    truth, posterior = region.truth, tree["posterior"].to_dataset()
    center = json.loads(tree.attrs["bayesens_options"])["center"]
    within = float(region.frame.groupby("station")["truth"].var().mean())
    reliability = within / (within + truth["observation_sd"] ** 2)
    bias = truth["bias"] + (truth["slope"] - 1) * (center - truth["center"])
    spread = np.diag(truth["error_sd"])
    slope = truth["slope"].to_numpy()
    covariance = spread @ truth["error_corr"].to_numpy() @ spread
    covariance = covariance + np.outer(slope, slope) * within * (1 - reliability)
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(sd, sd)
    lines = []
    for k, member in enumerate(simulate.REGION_MEMBER):
        own = posterior.sel(member=member)
        lines += [
            _compared("bias", member, bias[member], own["bias"]),
            _compared("slope", member, reliability * slope[k], own["slope"]),
            _compared("error_sd", member, sd[k], own["error_sd"]),
        ]
        for network, shift in truth["bias_group"][member].items():
            draws = own["bias"] + own["bias_group"].sel(group=network)
            lines.append(_compared("bias_network", member, bias[member] + shift, draws, network=str(network)))
        for j, other in enumerate(simulate.REGION_MEMBER[:k]):
            draws = own["residual_corr"].sel(member_=other)
            lines.append(_compared("error_corr", f"{other}, {member}", correlation[k, j], draws))
    return pd.DataFrame(lines).sort_values("parameter", kind="stable", ignore_index=True)


def _compared(parameter: str, member: str, true: float, draws: xr.DataArray, network: str = "") -> dict[str, Any]:
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95])
    return {"parameter": parameter, "member": member, "network": network, "true": true, "median": middle, "q05": low,
            "q95": high, "inside": bool(low <= true <= high)}  # fmt: skip


# ----------------------------------------------------------------------------------------------------- what comes of it
def _score_table(scores: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    wanted = ["crps", "log_score", "rmse", "bias", "coverage_50", "width_50", "coverage_90", "width_90"]
    table = pd.concat({name: mean_scores(each) for name, each in scores.items()}, names=["model"]).droplevel(1)
    return table[wanted]


def _difference(scores: Mapping[str, xr.Dataset], one: str, other: str, *, n: int = 4000) -> tuple[float, float, float]:
    """CRPS of one model against another's in percent, and its 90 % interval from resampling whole stations."""
    mean = pd.DataFrame({name: scores[name]["crps"].groupby("site").mean().to_pandas() for name in (one, other)})
    pick = np.random.default_rng(0).integers(len(mean), size=(n, len(mean)))
    total = mean.to_numpy()[pick].sum(axis=1)
    low, high = np.quantile(100 * (total[:, 0] / total[:, 1] - 1), [0.05, 0.95])
    return 100 * (mean[one].sum() / mean[other].sum() - 1), low, high


def _findings(results: _Results, scores: pd.DataFrame) -> str:
    """Say what the numbers say, and no more."""
    stations = len(results.held_out.levels("site"))
    lines = [f"At {stations} stations that no model was fitted to ({len(results.held_out)} rows):"]
    for one, other in (("BMA", "Best member"), ("HBM", "BMA")):
        percent, low, high = _difference(results.scores, one, other)
        clear = "" if low > 0 or high < 0 else "; the stations here do not tell the two apart"
        lines.append(f"- CRPS of {one} against {other}: {percent:+.1f} % (90 % interval over stations {low:+.1f} to "
                     f"{high:+.1f} %; lower is better){clear}.")  # fmt: skip
    for name in SAMPLED:
        line = scores.loc[name]
        lines.append(f"- {name}'s 90 % intervals hold {100 * line['coverage_90']:.0f} % of the observations and are "
                     f"{line['width_90']:.3f} m3 m-3 wide.")  # fmt: skip
    known = results.recovered
    held = ", ".join(f"{part['inside'].sum()} of {len(part)} of {name}" for name, part in known.groupby("parameter"))
    lines.append(f"- HBM's 90 % intervals hold {known['inside'].sum()} of {len(known)} known true values: {held}.")
    lines.append("- BMA's weights have no true value here: the region was not made by drawing one member a row.")
    return "\n".join(fill(line, 110, subsequent_indent="  ") for line in lines)


def _write(folder: Path, results: _Results, scores: pd.DataFrame) -> None:
    for name in ("fits", "figures"):
        (folder / name).mkdir()
    for name, tree in results.fits.items():
        write_fit(tree, folder / "fits" / f"{_file(name)}.nc")
    for name, rows in {"train": results.train, "held_out": results.held_out}.items():
        write_table(rows.to_frame(), folder / f"{name}.csv")
    for name in SAMPLED:
        table = prediction_table(results.predictions[name], results.held_out)
        table.insert(list(table).index("mean"), "sm", results.held_out.observation)
        write_table(table, folder / f"predictions_{_file(name)}.csv")
    write_table(scores, folder / "scores.csv")
    write_table(results.recovered, folder / "recovered.csv")
    figures = demo_figures.draw(
        fits={name: results.fits[name] for name in SAMPLED}, scores=results.scores, table=scores,
        predictions={name: results.predictions[name] for name in SAMPLED},
        observation=results.held_out.require_observation(), recovered=results.recovered, units=COLUMNS["units"],
    )  # fmt: skip
    for name, figure in figures.items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=150, bbox_inches="tight")


def _file(name: str) -> str:
    return name.lower().replace(" ", "_")


README = """\
Demo of bayesens {version}, random seed {seed}

A simulated soil-moisture region: 28 stations in 3 networks, and 4 members (rf, mlr, svr, xgb) that see the truth with
biases, slopes below one and errors correlated at 0.7. A quarter of the stations were held out; every model was fitted
to the others and scored at these.

What was found
--------------
{findings}
One region is one draw: another seed gives other numbers (bayesens demo --seed 2).

Tables
------
train.csv, held_out.csv   observations (sm) and members, the rows fitted and the rows predicted
scores.csv                mean scores at the stations held out; log_score is -log density; lower is better
predictions_*.csv         mean, sd, its parts and quantiles for each row held out
recovered.csv             true values, and what HBM estimates of them with 90 % intervals

Figures
-------
intervals.png    predictions through time at the station that HBM predicts best, and at the one it predicts worst
scores.png       mean CRPS by model
coverage.png     share of observations inside central intervals, against the share promised
pit.png          probability integral transforms, flat where calibrated; the band takes rows as independent, and
                 rows of one station are not
weights.png      BMA's weights, and the linear weights that follow from HBM, which may be negative
recovered.png    HBM's estimates and the true values
biases.png       HBM's biases in each network and the true ones (member minus observation)

Fits
----
fits/*.nc are complete (ArviZ and xarray read them), without the pointwise log likelihood, which be.add adds.

    bayesens describe {out}/fits/hbm.nc
    bayesens score {out}/fits/hbm.nc {out}/held_out.csv --by group
    bayesens fit {out}/train.csv --members rf,mlr,svr,xgb --observation sm --site station --group network --model hbm \\
        --out hbm.nc
"""


# ---------------------------------------------------------------------------------------------------------- the folder
@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """Give a hidden folder beside ``out``, and move it into place if all went well."""
    _check_folder(out)
    target = Path(os.path.realpath(out))
    aside = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    try:
        aside.mkdir()
        yield aside
        _check_folder(out)  # minutes have passed
        move(aside, target)
    except BaseException:
        remove(aside)
        raise


def _check_folder(out: Path) -> None:
    """Refuse a folder that cannot be written, or that holds what no demo wrote."""
    target = Path(os.path.realpath(out))
    if target == Path.cwd() or target in Path.cwd().parents:
        raise ValueError(f"{out} is the folder that you are in, or above it; name a new one, such as bayesens-demo")
    if not target.exists():
        check_writable(target)
        return
    if not target.is_dir():
        raise NotADirectoryError(f"{out} is a file; the demo writes a folder: name a new one")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write {out}: no permission to write in {target.parent}; name another folder")
    if foreign := sorted(set(_files(target)) - _written(target)):
        raise FileExistsError(f"{out} holds {len(foreign)} files that no demo wrote, {listed(foreign, limit=3)}; "
                              "name a new folder, or move them away")  # fmt: skip


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _written(folder: Path) -> set[str]:
    """Files that a former demo lists as its own."""
    try:
        return set(json.loads((folder / "demo.json").read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()
