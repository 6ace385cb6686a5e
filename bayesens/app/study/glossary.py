"""The glossary: what the words of the report mean, those alone that stand in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bayesens import models
from bayesens.app.report.parts import Listing, Section, Table
from bayesens.app.study.chapters.scores import drawn
from bayesens.app.study.results import StudyResults

__all__ = ["glossary"]

TERMS = {  # beside models, which have their own
    "CRPS": "continuous ranked probability score: the error of a whole predictive distribution, in the units of the "
    "observations; of a prediction without a spread it is the absolute error; lower is better",
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
}


def glossary(results: StudyResults, chapters: Sequence[Section], findings: Sequence[str]) -> Section:
    """What the words of the chapters and findings mean, those alone that stand in them."""
    words = (words for one in chapters for part in one.parts for words in _words(part))
    text = " ".join([*findings, *results.models, *words]).lower()
    every = (getattr(models, name) for name in models.KINDS.values())
    terms = {model.spelled[0]: model.meaning for model in every if model.meaning} | TERMS
    found = {term: meaning.format(drawn=drawn(results)) for term, meaning in terms.items() if term.lower() in text}
    items = tuple(f"{term[0].upper()}{term[1:]}: {meaning}." for term, meaning in found.items())
    return Section("Glossary", (Listing(items),), "glossary")


def _words(part: Any) -> Iterator[str]:
    """The text of a part."""
    if isinstance(part, str):
        yield part
    yield from getattr(part, "items", ())
    yield from (getattr(part, name, "") for name in ("text", "caption", "note"))
    if isinstance(part, Table):
        yield from map(str, part.frame.columns)
