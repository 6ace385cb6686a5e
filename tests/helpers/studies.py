"""Study files of the members of a simulated region, and their runs."""

import json
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from matplotlib.figure import Figure

from bayesens.app.study.run import run_study

DATA = {"table": "t.csv", "observation": "sm", "site": "station", "group": "network", "time": "date", "units": "m3 m-3"}


def key(name):
    return name if name.isidentifier() else json.dumps(name)


def study_text(*, products, models, **evaluation):
    """A study of three members by EM: models by their commands' names, the settings of the evaluation."""
    parts = {"data": DATA, "members": {"columns": ["rf", "mlr", "xgb"]}, "products": products}
    parts |= {f"models.{key(name)}": {"model": model} for name, model in models.items()}
    parts |= {"evaluation": {"method": "em"} | evaluation}
    return "\n".join(
        line
        for part, values in parts.items()
        for line in (f"[{part}]", *(f"{key(name)} = {json.dumps(value)}" for name, value in values.items()), "")
    )


@contextmanager
def undrawn(but=()):
    """Figures are made and not drawn, but for some as SVG: half of a small study's time goes there, and few tests look at one."""
    empty, draw = '<svg xmlns="http://www.w3.org/2000/svg" width="1pt" height="1pt"/>', Figure.savefig

    def savefig(figure, path, **options):
        path = Path(path)  # hidden, and with something behind its name, until it is whole
        if path.suffix == ".svg" and any(path.name.startswith(f".{name}-") for name in but):
            draw(figure, path, **options)
        else:
            path.write_text(empty, encoding="utf-8")

    with patch.object(Figure, "savefig", savefig):
        yield


def run_quietly(folder, text, *, drawn=()):
    """Write the file of a study beside its table, run it to `out/`, and return what was done and the page."""
    (folder / "study.toml").write_text(text, encoding="utf-8")
    with undrawn(but=drawn):
        done = run_study(folder / "study.toml", folder / "out", say=lambda _: None, progressbar=False)
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    return done, page.replace("\N{NO-BREAK SPACE}", " ")
