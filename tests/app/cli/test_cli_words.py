"""Messages for people who type commands: what the library says, without Python."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from bayesens.app.cli.words import plain_words

ROOT = Path(__file__).resolve().parents[3]
# What no command and no study comes to: functions of the library for notebooks.
NOTEBOOKS = {
    "geo/trajectory.py", "geo/triple_collocation.py", "geo/variogram.py", "members/regressor.py", "members/feature_columns.py",
    "members/domain.py", "members/applicability.py", "ensemble/streaming.py", "ensemble/streaming_sources.py",
    "comparison/loo_table.py", "inference/loo.py", "simulate.py", "worlds.py", "app/report/page.py", "app/report/parts.py",
}  # fmt: skip
PYTHON = re.compile(
    r"\bbe\.\w|pandas|\bpd\.|\bnp\.|numpy|xarray|frame\[|from_frame|from_dataset|\.select\(|\w+=\.\.\.|in pandas"
)


def said(node):
    """The text of a message, X for what stands in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "site" for part in node.values)
    if isinstance(node, ast.BinOp):
        return said(node.left) + said(node.right)
    return ""


@cache
def messages():
    return list(_messages())


def _messages():
    for path in sorted([*(ROOT / "bayesens").rglob("*.py"), *(ROOT / "models").glob("*.py")]):
        if (
            path.as_posix().split("/bayesens/")[-1] in NOTEBOOKS
            or "plots" in path.parts
            or "bayesens/models" in path.as_posix()
        ):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            raised = isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc
            warned = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "warn" and node
            for call in (raised, warned):
                # What is no text, no mapping or no DataFrame comes from Python only.
                if call and call.args and "TypeError" not in ast.unparse(call.func) and (text := said(call.args[0])):
                    yield f"{path.name}:{node.lineno}", text


@pytest.mark.parametrize("study", [False, True], ids=["commands", "study"])
def test_no_message_that_a_command_can_come_to_speaks_python(study):
    found = [
        f"{where}: {plain}" for where, text in messages() if PYTHON.search(plain := plain_words(text, study=study))
    ]
    assert not found, "\n".join(found)
    assert sum(1 for _, text in messages() if PYTHON.search(text)) > 15  # there is something to translate


@pytest.mark.parametrize(("text", "command", "study"), [
    ("column 'rf' is infinite in 3 rows: correct them, or leave the cells empty (in pandas: frame['rf'].replace([np.inf, "
     "-np.inf], np.nan))", "column 'rf' is infinite in 3 rows: correct them, or leave the cells empty", None),
    ("it looks like a code for missing values; read it as missing by missing=-9999 (--missing -9999), or, if the values are "
     "true, say so by missing={'sm': 'none'} (--missing sm=none); in a study: data.missing",
     "it looks like a code for missing values; read it as missing by --missing -9999, or, if the values are true, say so by "
     "--missing sm=none",
     "it looks like a code for missing values; read it as missing by data.missing = [-9999], or, if the values are true, say so "
     'by data.missing = {sm = "none"}'),
    ("convert it by scale={'m': 0.555556}, offset={'m': -17.7778} (--scale m=0.555556 --offset m=-17.7778)",
     "convert it by --scale m=0.555556 --offset m=-17.7778",
     "convert it by data.scale = {m = 0.555556}, data.offset = {m = -17.7778}"),
    ("say which it is: time_format='%d/%m/%Y' or '%m/%d/%Y' (--time-format %d/%m/%Y or %m/%d/%Y)",
     "say which it is: --time-format %d/%m/%Y or %m/%d/%Y", 'say which it is: data.time_format = "%d/%m/%Y" or "%m/%d/%Y"'),
    ("say time_format='excel' (--time-format excel) (in pandas: pd.to_datetime(frame['date'] - 25569, unit='D')), if plain "
     "numbers, time_format='number' (--time-format number)",
     "say --time-format excel, if plain numbers, --time-format number",
     'say data.time_format = "excel", if plain numbers, data.time_format = "number"'),
    ("say decimal=',' (--decimal ,); if these are no decimals, decimal='.' (--decimal .)",
     "say --decimal ,; if these are no decimals, --decimal .",
     'say data.decimal = ","; if these are no decimals, data.decimal = "."'),
    ("a mix; write them so (in pandas: pd.to_datetime(frame['date'], utc=True))", "a mix; write them so", None),
    ("The model asks for the column 'dem', and the table has none; name it with Ensemble.from_frame(..., covariates=['dem', "
     "...]).",
     "The model asks for the column 'dem', and the table has none; name it: --covariates.",
     "The model asks for the column 'dem', and the table has none; name it: data.covariates."),
    ("the estimand 'site' needs a site in every row, and no row has one; give the column (site=...), or choose another estimand",
     "the estimand 'site' needs a site in every row, and no row has one; give the column (--site), or choose another estimand",
     "the estimand 'site' needs a site in every row, and no row has one; give the column (data.site), or choose another "
     "estimand"),
    ("method='em' has no site effects; use method='auto' or 'nuts'.",
     "--method em has no site effects; use --method auto or nuts.",
     'method = "em" has no site effects; use method = "auto" or "nuts".'),
    ("40 folds of 7 sites; wanted at most as many folds: folds=7", "40 folds of 7 sites; wanted at most as many folds: --folds 7",
     "40 folds of 7 sites; wanted at most as many folds: evaluation.folds = 7"),
    ("BMA(correction='joint') has one width; got scale=('mean', 'spread'). Leave scale out, or use correction='own'.",
     'BMA with --option correction=joint has one width; got --option scale=["mean", "spread"]. Leave scale out, or use --option '
     "correction=own.",
     'BMA with correction = "joint" has one width; got scale = ["mean", "spread"]. Leave scale out, or use correction = "own".'),
    ("The fit has not converged: x. Raise tune=500 and draws=1000, or target_accept, or use tighter priors.",
     "The fit has not converged: x. Raise --tune above 500 and --draws above 1000, or use tighter priors.",
     "The fit has not converged: x. Raise evaluation.draws above 1000, or use tighter priors."),
    ("label these rows, drop them, or set site=False.", "label these rows, drop them, or set --option site=false.",
     "label these rows, drop them, or set site = false."),
])  # fmt: skip
def test_words_of_commands_and_of_studies(text, command, study):
    assert plain_words(text) == command
    assert plain_words(text, study=True) == (study or command)


@pytest.mark.parametrize("text", [
    "no column 'site' in the table (140 rows); did you mean 'station'?",
    "--option got 'sigma'; wanted NAME=VALUE, such as group=true",
    "there is no file nope.csv; name one", "10 of 40 rows have no member at all: their predictions are NaN.",
])  # fmt: skip
def test_what_has_no_python_stays_as_it_is(text):
    assert plain_words(text) == text
    assert plain_words(text, study=True) == text
