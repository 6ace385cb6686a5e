"""Messages of the library in the words of the command line: options and keys of the study file in place of Python.

The library says ``site=...`` and ``method='em'``, which is right in a notebook. Whoever types commands has ``--site`` and
``--method em``, or ``data.site`` and ``method = "em"`` in a study file. Here one becomes the other, so that each message is
written once, where it is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["plain_words"]

COLUMNS = "observation|site|group|time|lon|lat|covariates"
ASKED = {  # arguments of functions: the option of commands, and the key of the study file
    "method": ("--method", "method"), "draws": ("--draws", "evaluation.draws"), "tune": ("--tune", ""),
    "chains": ("--chains", ""), "estimand": ("--estimand", "evaluation.estimands"), "folds": ("--folds", "evaluation.folds"),
    "workers": ("--workers", ""), "random_seed": ("--seed", "study.random_seed"), "levels": ("--levels", ""),
    "quantiles": ("--quantiles", ""), "shares": ("--shares", "sensitivity.stations"), "gap": ("", "evaluation.gap"),
    "buffer": ("--buffer", "evaluation.buffer"), "map_points": ("--map", "map.grid"), "places": ("--places", "evaluation.places"),
    "inner_folds": ("", "members.folds"), "without": ("--without", ""),
    "blocks": ("", "evaluation.blocks"), "blend": ("", "members.blend"), "transform": ("--transform", "transform"),
    "by": ("--by", "evaluation.by"), "units": ("--units", "data.units"), "members": ("--members", "members.columns"),
    "replicates": ("", "evaluation.replicates"), "block": ("", "evaluation.block"),
}  # fmt: skip
OF_MODELS = (
    "sigma|correction|weights|weight_covariates|kernel|scale|own_sd|bias|bias_covariates|series|exchangeable|errors|stretch|unit|"
    r"center|sigma_scale|sigma_floor|member|slope|nu|widths|member_moments|effects|\w+_prior"
)
VALUE = r"""(\.\.\.|'[^']*'|"[^"]*"|\((?:[^()]|\([^()]*\))*\)|\[[^\]]*\]|[\w.+-]*\w)"""
MODEL = r"\b(BMA|HBM|EMOS|IDR|LinearPool|EqualWeights|SingleMember|Climatology)"
BALANCED = r"(?:[^()]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*"

# What is written for both: arguments as Python has them, and then the options in brackets.
READING = "missing|scale|offset|time_format|decimal|separator|sheet"
BOTH = rf"(?<![\w.-])((?:{READING})=[^()]*?) \((--[^()]*)\)"

# Sentences that name what only Python has, and what stands in their place: for commands, and for a study.
_SENTENCES: tuple[tuple[str, str, str], ...] = (
    (rf",? ?\(?\(in pandas: {BALANCED}\)", "", ""),
    (r"time_format \(--time-format\)", "--time-format", "data.time_format"),
    (r"; in a study: data\.missing", "", ""),
    (r", e\.g\. frame\.rename\(columns=str\)", "", ""),
    (r": (?:frame|products)\.re(?:set_index|index)\([^()]*(?:\([^()]*\))?[^()]*\)", ": make it a column", ": make it a column"),
    (r": membership\.div\(.*\)$", "", ""),
    (r"\bname (?:it|one|their column) with (?:be\.)?Ensemble\.from_frame\(\.\.\., covariates=\[.*?, \.\.\.\]\)",
     "name it: --covariates", "name it: data.covariates"),
    (r"(name (?:it|one|their column)) with (?:be\.)?Ensemble\.from_frame\(\.\.\., (\w+)=\.\.\.\)", r"\1: --\2", r"\1: data.\2"),
    (r"(name (?:it|one|their column)) with (?:be\.)?Ensemble\.from_frame\([^()]*\)", r"\1", r"\1"),
    (r"; wanted region=\.\.\. for the rows", "; wanted a region for the rows", "; wanted map.group, a variable of regions"),
    (r": \w+\.reindex\(X\.index\), or \w+\.to_numpy(?:\(\))? where the rows do correspond", "", ""),
    (r": oznet\(path=\.\.\.\) or the environment variable", ": the environment variable", ": the environment variable"),
    (r"; pass rng=numpy\.random\.default_rng\(seed\)", "", ""),
    (r", keep x and y as covariates, or pass places=\{.*?\}", ", or planar x and y: --places x,y",
     ", or planar coordinates: evaluation.places"),
    (r", or pass places=\.\.\. of the table in the coordinates of the map", "", ""),
    (r"; give step=\.\.\., or round the times", "; round the times", "; round the times"),
    (r"; give the step between rows, step=\.\.\.|, cell=\.\.\.| \(np\.nanmean\)| \(xarray's [^()]*\)", "", ""),
    (r", and score an Ensemble of some rows with be\.score", "", ""),
    (r"turn the column with pandas\.to_datetime", "write them as 2021-07-30", "write them as 2021-07-30"),
    (r"; make one with be\.Ensemble\.from_frame\(.*\)$", "", ""),
    (r"wanted one: pass observation='\.\.\.' to Ensemble\.from_frame or from_dataset", "name its column: --observation",
     "name its column: data.observation"),
    (r"wanted be\.Members\(estimators, X, y, \.\.\.\), whose members are trained anew (inside each fold|on what is left)",
     r"wanted members that are trained anew \1 (a study does it: bayesens init)",
     r"wanted members.train, which trains them anew \1"),
    (r"fit to be\.cross_fit\(\.\.\.\) of the same members, or pass allow_insample=True to see what goes wrong",
     "cross-fit them first (a study does it: bayesens init)", "cross-fit them first: members.train"),
    (r"; or pass be\.cross_fit\(\.\.\.\)", "", ""),
    (r" with ensemble\.select\(\.\.\.\)", "", ""),
    (r" \(attrs\['optima'\]\)", " (bayesens describe shows them)", ""),
    (r", or select='best' to take it", "", ""),
    (r", or target_accept, or use tighter priors", ", or use tighter priors", ", or use tighter priors"),
    (r"Raise tune=(\d+) and draws=(\d+)", r"Raise --tune above \1 and --draws above \2", r"Raise evaluation.draws above \2"),
    (r"; pass it as model=", "; it can be read in Python only", "; it can be read in Python only"),
    (r"; wanted a fit, the xarray\.DataTree that fit returns", "; wanted a fit, as bayesens fit writes it", ""),
    (r" \(predictive=\.\.\. or threshold_crps\)", "", ""),
    (r"give (?:the (?:ensemble|data)|Members) (site|group|time)=\.\.\.(?: with datetimes)?", r"name the column: --\1",
     r"name the column: data.\1"),
    (r"units='\.\.\.' \(--units\)", "--units", "data.units"),
    (r": xarray\.decode_cf\(dataset\)", "", ""),
    (r"read it by (?:be\.)?Ensemble\.from_long\(.*?\) \(--long (.+?):VALUE\)", r"name its columns (--long \1:VALUE)",
     r'name its columns (data.long = "\1:VALUE")'),
    # Maps as files.
    (r"; wanted region=\.\.\. for the cells", "; name their variable: --region", "; wanted map.group, a variable of regions"),
    (r", or say packed=\{name: \(scale, offset\)\}", "", ""),
    (r"give it a wider packed=\{.*?\)\}", "leave --packed out to keep all", "leave packed out to keep all"),
    (r"; chunk the grid finer, to [\d,]+ cells or fewer, before it is predicted, or allow", "; allow", "; allow"),
    (r"\b(overwrite|resume|packed)=True\b", r"--\1", r"\1 = true"),
    (r"""\b(crs|memory)=["']([^"']+)["']""", r"--\1 \2", r'\1 = "\2"'),
    (r"\bdims=\(rows, columns\)", "--dims rows,columns", 'dims = ["rows", "columns"]'),
    (r"\b(crs|fit)= was", r"--\1 was", r"\1 was"),
    (r"^(crs|dims|memory|scheduler|workers) is ", r"--\1 is ", r"\1 is "),
    (r"convert it first, or", "convert it first, or", "convert it first, or"),
    (r"drop them, or give block=None", "drop them, or fill them in", "drop them, or fill them in"),
    (r", or replicates=0", "", ", or evaluation.replicates = 0"),
    (r"\. Blocks of time serve as well: time=\.\.\., and a length for block", ". Blocks of time serve as well: --time",
     ". Blocks of time serve as well: data.time"),
    (r": dataset\.(?:rename|assign_coords)\(.*?\)\)?", "", ""),
    (r"use method='optimum'", "leave weights out of --what", "leave weights out"),
    (r"; for one variable a member pass members=\[\.\.\.\] and another prediction=",
     "; or name the members' variables: --members", "; or name the members' variables: members.columns"),
    # Neighbours and recalibration.
    (r"wanted be\.Members\(\{\}, frame, y, \.\.\., products=\[\.\.\.\], neighbours=True\)", "wanted --neighbours",
     "wanted members.neighbours"),
    (r"(?<=\w )of X\b", "of the table", "of the table"),
    (r"\bX has no column", "the table has no column", "the table has no column"),
    (r"[:;] see be\.recalibrate for a map of all|: the pit of be\.score|, as be\.recalibrate makes them", "", ""),
    (r"\b(?:those )?of be\.compare(?: or be\.score)?", "of a comparison", "of a comparison"),
    (r"members=\[\.\.\.\] to name one variable each", "--members to name one variable each",
     "members.columns to name one variable each"),
)  # fmt: skip


def plain_words(text: str, *, study: bool = False) -> str:
    """Say a message of the library without Python; in a study keys of its file are meant in place of options.

    Examples
    --------
    >>> plain_words("HBM has no fit by EM; use method='auto' or 'nuts'.")
    'HBM has no fit by EM; use --method auto or nuts.'
    >>> plain_words("HBM has no fit by EM; use method='auto' or 'nuts'.", study=True)
    'HBM has no fit by EM; use method = "auto" or "nuts".'
    >>> plain_words("a member ties; use sigma='shared' (in pandas: frame['a'].round(2)).")
    'a member ties; use --option sigma=shared.'
    """
    for pattern, command, key in _SENTENCES:
        text = re.sub(pattern, key if study else command, text)
    text = re.sub(BOTH, _reading(study), text)
    text = re.sub(rf"{MODEL}\(\)", r"\1", text)
    text = re.sub(rf"{MODEL}\((\w+)=\.\.\.\)", r"option \2 of \1", text)
    text = re.sub(rf"{MODEL}\((\w+=(?:[^()]|\([^()]*\))*)\)", r"\1 with \2", text)
    text = re.sub(r"\b(method|estimand)='([\w-]+)' or '([\w-]+)'", _either(study), text)
    text = re.sub(rf"(?<![\w.-])({COLUMNS})=\.\.\.", r"data.\1" if study else r"--\1", text)
    text = re.sub(r"(?<![\w.-])(site|group|log_likelihood)=(True|False|None)\b", _of_model(study), text)
    text = re.sub(rf"(?<![\w.-])({'|'.join(ASKED)})={VALUE}", _argument(study), text)
    if "--option" not in text:  # such a message is written for the command line already
        text = re.sub(rf"(?<![\w.-])({OF_MODELS})={VALUE}", _of_model(study), text)
    text = re.sub(r"\b([Tt])he ensemble\b", r"\1he table", text)
    return re.sub(r"\(\)(?=[;,. ]|$)", "", text) if "()" in text and "Write ()" not in text else text


def _reading(study: bool) -> Callable[[re.Match[str]], str]:
    """How a table is read: the options as they stand in brackets, or the keys of [data]."""

    def said(match: re.Match[str]) -> str:
        if not study:
            return match[2]
        text = re.sub(rf"\b({READING})=", r"data.\1 = ", match[1])
        text = re.sub(r"data\.missing = (-?[\d.][\w.+-]*)", r"data.missing = [\1]", text)
        text = re.sub(r"\{'([\w-]+)': ", r"{\1 = ", text)
        return re.sub(r"\{('[^']*'): ", r"{\1 = ", text).replace("'", '"')

    return said


def _either(study: bool) -> Callable[[re.Match[str]], str]:
    def said(match: re.Match[str]) -> str:
        name, one, other = match.groups()
        option, key = ASKED[name]
        return f'{key} = "{one}" or "{other}"' if study else f"{option} {one} or {other}"

    return said


def _argument(study: bool) -> Callable[[re.Match[str]], str]:
    def said(match: re.Match[str]) -> str:
        name, value = match.groups()
        option, key = ASKED[name]
        if value == "...":
            return key or name if study else option or name
        if study:
            return f"{key or name} = {_toml(value)}"
        if value.startswith("["):  # names, which a comma separates
            value = value[1:-1].replace("'", "").replace(", ", ",")
        return f"{option} {_bare(value)}" if option else f"{name} {_bare(value)}"

    return said


def _of_model(study: bool) -> Callable[[re.Match[str]], str]:
    def said(match: re.Match[str]) -> str:
        name, value = match.groups()
        if value == "...":
            return name
        return f"{name} = {_toml(value)}" if study else f"--option {name}={_bare(value)}"

    return said


def _bare(value: str) -> str:
    """A value as one types it behind an option."""
    if value in ("True", "False"):
        return value.lower()
    if value.startswith("("):  # a tuple is a list to the command line
        return "[" + value[1:-1].rstrip(", ").replace("'", '"') + "]"
    return value.strip("'\"")


def _toml(value: str) -> str:
    if value in ("True", "False"):
        return value.lower()
    if value.startswith("("):
        return "[" + value[1:-1].rstrip(", ").replace("'", '"') + "]"
    return value.replace("'", '"')
