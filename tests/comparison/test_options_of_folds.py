"""The settings of held-out runs: declared once, with the same defaults and refusals wherever they are taken."""

import inspect

import pytest

import bayesens as be
from bayesens.comparison.options import DEFAULTS, CompareOptions, FitOptions, HeldOutOptions, whole_workers

OWN = {
    "compare": (be.compare, CompareOptions, "models data estimand"),
    "members_left_out": (
        be.sensitivity.members_left_out,
        HeldOutOptions,
        "model data estimand by metric replicates block level",
    ),
    "shapley": (be.sensitivity.shapley, HeldOutOptions, "model data estimand metric replicates block level"),
    "prior_grid": (
        be.sensitivity.prior_grid,
        HeldOutOptions,
        "model data grid estimand against full reweight likelihood_power replicates block level",
    ),
    "fewer_stations": (
        be.sensitivity.fewer_stations,
        FitOptions,
        "models data by shares replicates validation metric",
    ),
}


def test_every_option_has_a_default_and_stands_in_the_docstring_of_compare():
    assert set(DEFAULTS) == set(CompareOptions.__annotations__)
    text = inspect.getdoc(be.compare)
    assert all(f"\n{name} : " in text or f"\n{name}\n" in text for name in DEFAULTS)


@pytest.mark.parametrize("name", OWN)
def test_help_shows_every_option_with_its_default(name):
    function, options, own = OWN[name]
    found = inspect.signature(function).parameters
    assert list(found) == own.split() + [option for option in DEFAULTS if option in options.__annotations__]
    assert all(found[option].default == DEFAULTS[option] for option in options.__annotations__)
    assert found["draws"].kind is inspect.Parameter.KEYWORD_ONLY
    assert "**" not in str(inspect.signature(function))


@pytest.mark.parametrize("name", OWN)
def test_a_misspelt_option_is_refused_with_the_nearest_one(name):
    function, _, own = OWN[name]
    first, second = own.split()[:2]
    with pytest.raises(
        TypeError, match=rf"{name}\(\) got an unexpected keyword argument 'drawz'. Did you mean 'draws'\?"
    ):
        function(**{first: None, second: None}, drawz=10)
    with pytest.raises(TypeError, match=f"unexpected keyword argument 'qqq'. It has '{first}', '{second}', "):
        function(None, None, qqq=1)


def test_what_is_no_option_of_all_is_refused_where_it_has_no_part():
    with pytest.raises(TypeError, match="unexpected keyword argument 'folds'"):
        be.sensitivity.fewer_stations({}, None, folds=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'part'"):
        be.sensitivity.shapley(be.BMA(), None, estimand="site", part="a")


def test_the_estimand_must_be_named():
    with pytest.raises(TypeError, match=r"missing 1 required keyword-only argument: 'estimand'"):
        be.compare({}, None)


@pytest.mark.parametrize("workers", [0, -1, 1.5])
def test_a_number_of_processes_is_whole(workers):
    with pytest.raises(ValueError, match="workers is the number of processes, 1 for this one alone"):
        whole_workers(workers)
