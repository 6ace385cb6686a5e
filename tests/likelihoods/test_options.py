"""Options of models: checked when a model is made, the same after a trip through JSON text."""

import json
from dataclasses import replace

import pytest

from bayesens import BMA, HBM, Climatology, EqualWeights, Prior, SingleMember, models
from bayesens.likelihoods.options import options_from_json, options_to_json

WIDE = Prior("StudentT", nu=3, mu=0, sigma=2)
VARIANTS = [
    *(getattr(models, name)() for name in models.__all__),
    BMA(bias="none", sigma="shared", group=True, effects="source", center=0.2, unit=3.0, bias_prior=WIDE),
    BMA(exchangeable=(("a", "b"), ("c", "d")), sigma_spread=Prior("HalfNormal", sigma=0.25), sigma_scale=0.1),
    BMA(weight_prior=Prior("Dirichlet", a=[1, 2, 3])),
    *(model.preset(name) for model in (BMA, HBM) for name in ("weak", "vague", "sceptical")),
    HBM(errors="lkj", group=False, site=True, transform="sqrt", correlation_prior=Prior("LKJCorr", eta=1)),
    EqualWeights(sigma="shared"),
    SingleMember(member="rf", bias="additive"),
    Climatology(group=True, transform="log", sd_prior=Prior("InverseGamma", alpha=3, beta=1)),
]


@pytest.mark.parametrize("model", VARIANTS, ids=lambda m: type(m).__name__)
def test_options_survive_json_text(model):
    again = options_from_json(type(model), json.loads(json.dumps(options_to_json(model))))
    assert again == model
    assert hash(again) == hash(model)


def test_options_of_another_version_are_refused_by_name():
    with pytest.raises(ValueError, match="BMA has no option kernels, tilt: the fit comes from another version"):
        options_from_json(BMA, options_to_json(BMA()) | {"tilt": 1, "kernels": "t"})


@pytest.mark.parametrize(("build", "error", "text"), [
    (lambda: BMA(bias="linaer"), ValueError,
     r"BMA\(bias=...\) is one of 'linear', 'additive', 'none'; got 'linaer'. Did you mean 'linear'\?"),
    (lambda: BMA(sigma="sharde"), ValueError, r"BMA\(sigma=...\).*Did you mean 'shared'\?"),
    (lambda: BMA(effects=True), ValueError, r"BMA\(effects=...\) is one of 'source', 'common', None; got True"),
    (lambda: HBM(errors="factors"), ValueError, r"HBM\(errors=...\) .*Did you mean 'factor'\?"),
    (lambda: HBM(transform="squareroot"), ValueError, r"HBM\(transform=...\) is one of 'identity', 'sqrt', 'log'"),
    (lambda: EqualWeights(weights="global"), ValueError,
     r"EqualWeights\(weights=...\) is one of 'equal'; got 'global'"),
    (lambda: Climatology(transform="cube"), ValueError, r"Climatology\(transform=...\)"),
    (lambda: BMA(bias_prior=0.3), TypeError,
     r'BMA\(bias_prior=...\) is a Prior such as Prior\("HalfNormal", sigma=0.3\); got 0.3'),
    (lambda: HBM(truth_sd_prior="HalfNormal"), TypeError, r"HBM\(truth_sd_prior=...\) is a Prior.*got 'HalfNormal'"),
    (lambda: BMA(unit=-1.0), ValueError, r"BMA\(unit=...\) must be positive; got -1.0"),
    (lambda: HBM(unit=0), ValueError, r"HBM\(unit=...\) must be positive; got 0"),
    (lambda: BMA(sigma_scale=float("nan")), ValueError, r"BMA\(sigma_scale=...\) must be positive; got nan"),
    (lambda: BMA(sigma_spread=0.0), ValueError, r"BMA\(sigma_spread=...\) must be positive; got 0.0"),
    (lambda: BMA.preset("vauge"), ValueError, "BMA has the presets weak, vague, sceptical; got 'vauge'"),
    (lambda: HBM.preset("strong"), ValueError, "HBM has the presets weak, vague, sceptical; got 'strong'"),
    (lambda: BMA(scale="wide"), (TypeError, ValueError), r"BMA\(scale=...\).*'wide'"),
    (lambda: BMA(unit=float("inf")), ValueError, r"BMA\(unit=...\).*inf"),
    (lambda: BMA(center=float("nan")), (TypeError, ValueError), r"BMA\(center=...\).*nan"),
    (lambda: BMA(center="zero"), (TypeError, ValueError), r"BMA\(center=...\).*'zero'"),
    (lambda: BMA(group="station"), (TypeError, ValueError), r"BMA\(group=...\).*'station'"),
    (lambda: HBM(site="no"), (TypeError, ValueError), r"HBM\(site=...\).*'no'"),
    (lambda: BMA(exchangeable=("ab", "cd")), (TypeError, ValueError), r"BMA\(exchangeable=...\).*'ab'"),
    (lambda: SingleMember(member=3), (TypeError, ValueError), r"SingleMember\(member=...\).*3"),
])  # fmt: skip
def test_a_wrong_option_is_an_error_that_names_the_field_and_what_it_can_be(build, error, text):
    with pytest.raises(error, match=text):
        build()


@pytest.mark.parametrize("build", [
    lambda: BMA(exchangeable=[["a", "b"], ["c"]]),
    lambda: BMA(group=1),
])  # fmt: skip
def test_what_is_accepted_is_hashable_and_equal_to_its_json_twin(build):
    try:
        model = build()
    except (TypeError, ValueError):
        return  # refusing it is as good
    again = options_from_json(type(model), json.loads(json.dumps(options_to_json(model))))
    assert (again, hash(again)) == (model, hash(model))


def test_replace_checks_again():
    with pytest.raises(ValueError, match=r"BMA\(sigma=\.\.\.\)"):
        replace(BMA(), sigma="both")
    with pytest.raises(TypeError, match="kernle"):
        replace(BMA(), kernle="normal")


@pytest.mark.parametrize("model", [HBM(unit=2.0), Climatology(unit=2.0)])
def test_fits_that_call_the_unit_of_the_priors_scale_are_read(model):
    old = {"scale" if key == "unit" else key: value for key, value in options_to_json(model).items()}
    assert options_from_json(type(model), old) == model


def test_the_widths_of_bma_stay_what_scale_names():
    model = BMA(scale=("mean",), unit=2.0)
    assert options_from_json(BMA, options_to_json(model)) == model
