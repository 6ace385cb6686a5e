"""The chapters of a study's report, one a file: each is written from the results, and knows nothing of the others."""

from __future__ import annotations

from bayesens.app.study.chapters.chapter import Chapter, Drawing, Points, Remark, Sheet

__all__ = ["Chapter", "Drawing", "Points", "Remark", "Sheet"]
