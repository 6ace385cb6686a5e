"""What the fits of a comparison warned of: which folds did not converge, and members that look as if they had seen the rows.

A comparison makes many fits, and each may warn. Two kinds of warnings change what its tables mean, so they are said aloud,
once, and stand beside every result; all of them are kept in ``attrs["warned"]``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import xarray as xr

__all__ = [
    "ALL_CONVERGED",
    "MARK",
    "News",
    "convergence_warning",
    "not_converged",
    "seen_members",
    "unmarked",
    "without_convergence",
]

# A sampler whose chains disagree, EM stopped too early, importance weights of infinite variance: none of them has converged.
UNCONVERGED = (
    "The fit has not converged",
    "EM stopped after",
    "The approximation around the optimum should not be trusted",
)
MARK = " (not converged)"
ALL_CONVERGED = "none"  # of a column of folds that have not; an empty cell would read as missing from a file
News = Mapping[tuple[str, str], Sequence[str]]


def not_converged(news: News) -> dict[str, list[str]]:
    """Folds in which a model has not converged.

    Parameters
    ----------
    news : mapping of (model, text) to sequence of str
        The folds in which a model's fit gave a warning.

    Returns
    -------
    dict of str to list of str

    Examples
    --------
    >>> not_converged({("HBM", "The fit has not converged: ..."): ["fold 2 of 3"], ("HBM", "other"): ["fold 1 of 3"]})
    {'HBM': ['fold 2 of 3']}
    """
    found: dict[str, list[str]] = {}
    for (model, text), folds in news.items():
        if text.startswith(UNCONVERGED):
            mine = found.setdefault(model, [])
            mine += [fold for fold in folds if fold not in mine]
    return {model: sorted(folds, key=_number) for model, folds in found.items()}


def convergence_warning(found: Mapping[str, Sequence[str]]) -> str:
    """Name models and folds in one warning.

    Parameters
    ----------
    found : mapping of str to sequence of str
        From `not_converged`.

    Returns
    -------
    str
        Empty where all fits converged.

    Examples
    --------
    >>> convergence_warning({"HBM": ["fold 2 of 3", "fold 3 of 3"]})[:70]
    'Fits of this comparison have not converged: HBM in folds 2, 3 of 3. Wh'
    """
    if not found:
        return ""
    named = "; ".join(f"{model} in {_folds(folds)}" for model, folds in found.items())
    return (
        f"Fits of this comparison have not converged: {named}. What is said of these models may change with fits that have: "
        "raise draws, or choose another method; attrs['warned'] has the words of each fit."
    )


def seen_members(news: News) -> str:
    """Say in one warning which members look as if they had seen the rows.

    Parameters
    ----------
    news : mapping of (model, text) to sequence of str
        As in `not_converged`.

    Returns
    -------
    str
        Empty where there is none.

    Examples
    --------
    >>> seen_members({("BMA", "Member 'rf' has seen these rows."): ["fold 1 of 2", "fold 2 of 2"]})
    "Member 'rf' has seen these rows. (BMA in folds 1, 2 of 2)"
    """
    said: dict[str, tuple[str, list[str]]] = {}
    for (model, text), folds in news.items():
        if text.startswith("Member") and "has seen" in text:
            # Numbers in the rest of the text differ from fold to fold; the member does not.
            first = said.setdefault(text.partition("has seen")[0], (text, []))
            first[1].append(f"{model} in {_folds(folds)}")
    return " ".join(f"{text} ({_shortened(where)})" for text, where in said.values())


def without_convergence(rows: xr.Dataset) -> dict[str, str]:
    """How many folds of each model have not converged, in words.

    Parameters
    ----------
    rows : Dataset
        From `compare`; others have none.

    Returns
    -------
    dict of str to str
        Of the models that have such folds.

    Examples
    --------
    >>> without_convergence(xr.Dataset(attrs={"not_converged": '{"HBM": ["fold 2 of 3"]}'}))
    {'HBM': '1 of 3 folds'}
    """
    found: dict[str, list[str]] = json.loads(rows.attrs.get("not_converged", "{}"))
    there = rows["model"].values.tolist() if "model" in rows.coords else list(found)
    return {model: f"{len(folds)} of {_total(folds[0])} folds" for model, folds in found.items() if model in there}


def unmarked(verdict: str) -> str:
    """Take the mark off a verdict.

    Parameters
    ----------
    verdict : str
        Of `paired_differences`.

    Returns
    -------
    str

    Examples
    --------
    >>> unmarked("better" + MARK)
    'better'
    """
    return str(verdict).removesuffix(MARK)


def _folds(folds: Sequence[str]) -> str:
    numbers = ", ".join(str(_number(fold)) for fold in sorted(folds, key=_number))
    return f"fold{'s' * (len(folds) > 1)} {numbers} of {_total(folds[0])}"


def _number(fold: str) -> int:
    """Of ``"fold 2 of 5"``."""
    return int(fold.split()[1])


def _total(fold: str) -> str:
    return fold.split()[-1]


def _shortened(where: Sequence[str], most: int = 3) -> str:
    more = f" and {len(where) - most} more" if len(where) > most else ""
    return "; ".join(where[:most]) + more
