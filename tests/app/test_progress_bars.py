"""Bars of long computations: where none can be drawn, in a pipe or a notebook without ipywidgets, nothing is said."""

import warnings

import pytest
from rich.console import Console

from bayesens import console


@pytest.mark.parametrize("jupyter", [True, False])
def test_where_no_bar_can_be_drawn_nothing_is_said(monkeypatch, capsys, jupyter):
    class Here(Console):
        def __init__(self, **options):
            super().__init__(**options)
            self.is_jupyter = jupyter

    monkeypatch.setattr("rich.console.Console", Here)
    monkeypatch.setattr(console, "find_spec", lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with console.progress(3, "Fits", shown=True) as advance:
            advance()
            advance(2)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr("rich.console.Console", lambda **options: Console(**options, force_terminal=True))
    with console.progress(2, "Fits", shown=True) as advance:
        advance(2)
    assert "Fits" in capsys.readouterr().err
