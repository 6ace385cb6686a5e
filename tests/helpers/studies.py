"""Study files of the members of a simulated region, and their runs."""

import json

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


def run_quietly(folder, text):
    """Write the file of a study beside its table, run it to `out/`, and return what was done and the page."""
    (folder / "study.toml").write_text(text, encoding="utf-8")
    done = run_study(folder / "study.toml", folder / "out", say=lambda _: None, progressbar=False)
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    return done, page.replace("\N{NO-BREAK SPACE}", " ")
