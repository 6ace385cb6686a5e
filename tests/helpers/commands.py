"""Commands run in this process, and the table that several tests give them."""

from typer.testing import CliRunner

from bayesens import simulate
from bayesens.app.cli.main import app

__all__ = ["COLUMNS", "fitted_region", "refused", "region_files", "run"]

COLUMNS = [
    "--members",
    "rf,mlr,svr,xgb",
    "--observation",
    "sm",
    "--site",
    "station",
    "--group",
    "network",
    "--time",
    "date",
]


def run(*arguments, code=0, **options):
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], **options)
    assert result.exit_code == code, result.output
    return result


def refused(*arguments):
    """Run a command that ends with one plain message, and return that."""
    result = run(*arguments, code=1)
    assert not result.stdout
    assert "Traceback" not in result.stderr
    return result.stderr[result.stderr.index("Error: ") :]


def region_files(place):
    """Write a region as train.csv and new.csv (two stations that a fit has not seen), and return its new rows."""
    frame = simulate.region(n_sites=9, n_times=20, random_seed=1).frame
    new = frame["station"].isin(["s03", "s06"])
    frame[~new].to_csv(place / "train.csv", index=False)
    frame[new].to_csv(place / "new.csv", index=False)
    return frame[new]


def fitted_region(place):
    """Write a region as train.csv, new.csv and new.parquet, and a fit of each kind by EM, and return their folder."""
    region_files(place).to_parquet(place / "new.parquet")
    for model in ("bma", "climatology"):
        run("fit", place / "train.csv", *COLUMNS, "--model", model, "--method", "em", "--units", "m3 m-3",
            "--out", place / f"{model}.nc")  # fmt: skip
    return place
