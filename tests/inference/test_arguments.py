"""What comes in the wrong place gets one sentence with the right call."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, Ridge

import bayesens as be
from bayesens.inference.arguments import check_fit_call, check_fitted_call, models_by_name


@pytest.fixture(scope="module")
def ensemble():
    rng = np.random.default_rng(1)
    y = rng.normal(size=60)
    frame = pd.DataFrame(
        {"rf": y + rng.normal(size=60), "svr": y + rng.normal(size=60), "sm": y, "site": np.arange(60) // 10}
    )
    return be.Ensemble.from_frame(frame, members=["rf", "svr"], observation="sm", site="site")


@pytest.fixture(scope="module")
def fit(ensemble):
    return be.fit(be.EqualWeights(site=False), ensemble, method="em")


class Own:
    """A model of a user's own, which bayesens does not know."""

    def resolve(self, data):
        return self

    def predictive(self, posterior, ensemble):
        raise NotImplementedError


@pytest.mark.parametrize(("given", "text"), [
    ("bma", r"got the text 'bma' in place of a model; write be.fit\(be.BMA\(\), ensemble\)"),
    ("linear_pool", r"write be.fit\(be.LinearPool\(\), ensemble\)"),
    ("random forest", r"write be.fit\(be.BMA\(\), ensemble\)"),
    (be.HBM, r"wanted a model, got the class HBM; write HBM\(\)"),
    (None, r"got None in place of a model"),
    ({"BMA": be.BMA()}, r"got a dict in place of a model"),
    (LinearRegression(), r"got a LinearRegression in place of a model"),
    (be.Neighbours(), r"no model .* Write day = be.neighbours\(ensemble\), and fit to that: .* neighbours=True"),
    (be.Neighbours(buffer=1.0), r"be.neighbours\(ensemble, neighbours\), .* products=\[...\], neighbours=neighbours\)"),
])  # fmt: skip
def test_what_is_no_model_is_not_fitted(given, text, ensemble):
    with pytest.raises(TypeError, match=text):
        be.fit(given, ensemble)


def test_swapped_arguments_of_fit(ensemble):
    with pytest.raises(
        TypeError, match=r"takes the model first .* got an Ensemble first; write be.fit\(be.HBM\(\), ensemble\)"
    ):
        be.fit(ensemble, be.HBM())
    with pytest.raises(TypeError, match=r"got a DataFrame first; write be.fit\(model, ensemble\)"):
        be.fit(pd.DataFrame(), Own())
    check_fit_call(Own(), ensemble)


CALLS = {"predict": be.predict, "score": be.score, "draw": be.draw, "loo": be.loo}


@pytest.mark.parametrize("name", CALLS)
def test_functions_of_a_fit_name_the_right_call(name, ensemble, fit):
    call = CALLS[name]
    right = rf"be.{name}\(fit, ensemble\)"
    with pytest.raises(TypeError, match=rf"takes the fit first .* got an Ensemble first; write {right}"):
        call(ensemble, fit)
    with pytest.raises(
        TypeError, match=rf"got the model BMA .* fit = be.fit\(be.BMA\(\), ensemble\), and then {right}"
    ):
        call(be.BMA(), ensemble)
    with pytest.raises(TypeError, match=rf"got the class HBM .* be.fit\(be.HBM\(\), ensemble\), and then {right}"):
        call(be.HBM, ensemble)
    with pytest.raises(
        TypeError, match=rf"got the text 'fit.nc'.* write be.{name}\(be.read_fit\('fit.nc'\), ensemble\)"
    ):
        call("fit.nc", ensemble)
    with pytest.raises(TypeError, match=rf"got a Dataset in place of a fit.*{right}"):
        call(xr.Dataset(), ensemble)
    with pytest.raises(TypeError, match="wanted an Ensemble, got DataFrame"):
        call(fit, pd.DataFrame())


def test_add_and_summary_name_the_right_call(ensemble, fit):
    with pytest.raises(TypeError, match=r"got an Ensemble first; write be.add\(fit, ensemble\)"):
        be.add(ensemble, fit, "log_likelihood")
    with pytest.raises(
        TypeError, match=r"got the text 'a.nc' in place of a fit; write be.summary\(be.read_fit\('a.nc'\)\)"
    ):
        be.summary("a.nc")


@pytest.mark.parametrize(
    "model", [getattr(be.models, name)() for name in be.models.__all__], ids=lambda m: type(m).__name__
)
def test_a_model_has_no_verbs_and_says_so(model):
    name = type(model).__name__
    with pytest.raises(
        AttributeError, match=rf"{name} is a value and has no method 'fit'; write be.fit\(be.{name}\(\), ensemble\)"
    ):
        model.fit  # noqa: B018
    with pytest.raises(AttributeError, match=r"and then be.predict\(fit, ensemble\)"):
        model.predict  # noqa: B018
    with pytest.raises(AttributeError, match=rf"be.compare\(\{{'{name}': be.{name}\(\)\}}, ensemble, ...\)"):
        model.compare  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'nonesuch'"):
        model.nonesuch  # noqa: B018
    assert not hasattr(model, "fit")
    assert clone({"a": model}, safe=False) == {"a": model}


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", min_size=1))
@settings(max_examples=50)
def test_any_name_that_a_model_lacks_is_an_attribute_error(name):
    model = be.BMA()
    if not hasattr(model, name):
        with pytest.raises(AttributeError, match=name):
            getattr(model, name)


def test_models_come_in_a_list_or_a_dict(ensemble):
    options = {"estimand": "site", "folds": 3, "method": "em", "progressbar": False}
    listed = be.compare(
        [be.EqualWeights(), be.Climatology(), be.OnMembers(be.SingleMember(), ["rf"])], ensemble, **options
    )
    assert listed["model"].values.tolist() == ["EqualWeights", "Climatology", "SingleMember"]
    named = be.compare({"EqualWeights": be.EqualWeights(), "Climatology": be.Climatology(),
                        "SingleMember": be.OnMembers(be.SingleMember(), ["rf"])}, ensemble, **options)  # fmt: skip
    xr.testing.assert_identical(listed["crps"], named["crps"])


@pytest.mark.parametrize(("models", "error", "text"), [
    ([be.BMA(), be.BMA(sigma="shared")], ValueError, "2 models of the kind BMA, and names must differ; give names"),
    ([], ValueError, "got no model; wanted at least one"),
    ({}, ValueError, "got no model; wanted at least one"),
    (be.BMA(), TypeError, "got the model BMA in place of models by their names; write be.compare"),
    ("bma,hbm", TypeError, "got the text 'bma,hbm' in place of models by their names"),
    (["bma", "hbm"], (TypeError, ValueError), "names must differ|got the text 'bma'"),
    ({"BMA": "bma"}, TypeError, "got the text 'bma' under the name 'BMA' in place of a model"),
    ([be.Neighbours()], TypeError, "are a member, and no model that combines members"),
    ({"BMA": be.BMA}, TypeError, r"wanted a model, got the class BMA; write BMA\(\)"),
    ([be.BMA], TypeError, r"wanted a model, got the class BMA; write BMA\(\)"),
    (3, TypeError, "got an int in place of models"),
])  # fmt: skip
def test_models_that_are_none(models, error, text, ensemble):
    with pytest.raises(error, match=text):
        be.compare(models, ensemble, estimand="site")


def test_swapped_arguments_of_compare(ensemble):
    with pytest.raises(TypeError, match=r"takes the models first .* got an Ensemble first; write be.compare"):
        be.compare(ensemble, {"BMA": be.BMA()}, estimand="site")


@given(st.dictionaries(st.text(min_size=1), st.just(be.BMA()), min_size=1, max_size=4))
def test_names_that_are_given_stay(models):
    assert models_by_name(models) == models


@given(
    st.one_of(st.none(), st.integers(), st.text(), st.lists(st.integers()), st.dictionaries(st.text(), st.integers()))
)
def test_nothing_else_passes_for_a_model_a_fit_or_models(given):
    with pytest.raises(TypeError):
        check_fit_call(given, None)
    with pytest.raises(TypeError):
        check_fitted_call("predict", given)
    with pytest.raises((TypeError, ValueError)):
        models_by_name(given)


class TestRegressor:
    X = np.random.default_rng(1).normal(size=(60, 2))
    y = X @ [1.0, -1.0] + np.random.default_rng(2).normal(size=60)

    def test_a_dict_is_the_same_as_a_list(self):
        members = {"mlr": LinearRegression(), "ridge": Ridge(alpha=2.0)}
        options = {"method": "em", "random_state": 0}
        one = be.EnsembleRegressor(members, **options)
        other = be.EnsembleRegressor(list(members.items()), **options)
        np.testing.assert_array_equal(
            one.fit(self.X, self.y).predict(self.X), other.fit(self.X, self.y).predict(self.X)
        )
        assert {k: v for k, v in one.get_params().items() if k != "estimators"}.keys() == {
            k: v for k, v in other.get_params().items() if k != "estimators"
        }.keys()

    def test_parameters_of_a_dict_are_set_and_the_dict_of_the_caller_stays(self):
        members = {"mlr": LinearRegression(), "ridge": Ridge(alpha=2.0)}
        model = be.EnsembleRegressor(members, method="em")
        copy = clone(model).set_params(ridge__alpha=5.0, mlr="drop")
        assert copy.get_params()["ridge__alpha"] == 5.0
        assert list(copy.fit(self.X, self.y).named_estimators_) == ["ridge"]
        assert members["ridge"].alpha == 2.0
        assert model.estimators is members
        model.set_params(mlr="drop")
        assert list(members) == ["mlr", "ridge"]
        assert members["mlr"] != "drop"
        with pytest.raises(ValueError, match="svr"):
            model.set_params(svr=Ridge())

    @pytest.mark.parametrize(("estimators", "text"), [
        ([LinearRegression()], r"holds LinearRegression\(\) at place 0, which is no pair of a name and a regressor"),
        ({"mlr": LinearRegression}, "holds the class LinearRegression under the name 'mlr' in place of a regressor"),
        ({"mlr": "linear"}, "holds 'linear' under the name 'mlr' in place of a regressor"),
        (LinearRegression(), "estimators is of type LinearRegression; wanted names with regressors"),
        ("rf", "estimators is of type str; wanted names with regressors"),
    ])  # fmt: skip
    def test_members_that_are_none(self, estimators, text):
        with pytest.raises(TypeError, match=text):
            be.EnsembleRegressor(estimators).fit(self.X, self.y)

    def test_a_model_that_is_none(self):
        with pytest.raises(
            TypeError, match=r"got the text 'hbm' .*write be.EnsembleRegressor\(estimators, model=be.HBM\(\)\)"
        ):
            be.EnsembleRegressor({"mlr": LinearRegression()}, model="hbm").fit(self.X, self.y)
