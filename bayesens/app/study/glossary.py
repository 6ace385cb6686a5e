"""The glossary: what the words of the report mean, those alone that stand in it."""

from __future__ import annotations

from collections.abc import Sequence

from bayesens import models
from bayesens.app.study.chapters.chapter import Chapter, Points, Remark, Sheet
from bayesens.app.study.chapters.scores import drawn
from bayesens.app.study.results import StudyResults

__all__ = ["glossary"]

TERMS = {  # beside models, which have their own
    "CRPS": "continuous ranked probability score: the error of a whole predictive distribution, in the units of the "
            "observations; "
            "of a prediction without a spread it is the absolute error; lower is better",
    "log score": "minus the logarithm of the density that was given to the observation; lower is better",
    "RMSE": "root mean squared error of the predictive mean",
    "MAE": "mean absolute error of the predictive mean",
    "PIT": "probability integral transform: the probability that a prediction gave to values below the observation",
    "coverage": "share of observations inside the intervals",
    "held out": "kept from a model while it was fitted, and predicted afterwards",
    "90 % interval": "of a prediction: holds the observation nine times in ten; of a score or a difference: what is left open "
                     "by resampling {drawn}",
    "not told apart": "the interval of the difference holds zero: these rows do not say which is better, nor that they are equal",
    "equal for practical purposes": "the whole interval of the difference lies within ±1 %",
}  # fmt: skip


def glossary(results: StudyResults, chapters: Sequence[Chapter], findings: Sequence[str]) -> Chapter:
    """Write the chapter.

    Parameters
    ----------
    results : StudyResults
    chapters : sequence of Chapter
        All others.
    findings : sequence of str

    Returns
    -------
    Chapter
    """
    text = " ".join([*findings, *results.models, *(words for one in chapters for words in _words(one))]).lower()
    every = (getattr(models, name) for name in models.KINDS.values())
    terms = {model.spelled[0]: model.meaning for model in every if model.meaning} | TERMS
    found = [
        f"{term}: {meaning.format(drawn=drawn(results))}." for term, meaning in terms.items() if term.lower() in text
    ]
    return Chapter("Glossary", (Points(tuple(item[0].upper() + item[1:] for item in found)),), "glossary")


def _words(chapter: Chapter) -> list[str]:
    """The text of a chapter."""
    out = []
    for part in chapter.parts:
        if isinstance(part, str):
            out.append(part)
        elif isinstance(part, Remark):
            out.append(part.text)
        elif isinstance(part, Points):
            out += part.items
        elif isinstance(part, Sheet):
            out += [part.caption, part.note, *map(str, (part.frame if part.shown is None else part.shown).columns)]
        else:
            out.append(part.caption)
    return out
