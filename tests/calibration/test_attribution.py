"""Attribution in worlds with known truth: the committed long run, a small run, and a twin that must fail."""

import importlib.util
import json
from pathlib import Path

import pytest

from bayesens.worlds import WORLDS

FILE = Path(__file__).parent / "attribution.py"


@pytest.fixture(scope="module")
def attribution():
    spec = importlib.util.spec_from_file_location("attribution", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def effects(**size):
    """Effects with intervals one wide on either side."""
    none = dict.fromkeys(("weights", "mixture", "effects", "joint", "levels", "dependence", "HBM or BMA"), 0.0)
    return {name: [value, value - 1, value + 1] for name, value in (none | size).items()}


def test_what_is_right(attribution):
    right = attribution.right
    assert right("dependence", effects(dependence=-60.0, joint=30.0))
    assert not right("dependence", effects(dependence=-20.0, joint=30.0))
    assert not right("dependence", effects(dependence=60.0, joint=30.0))  # the right change, the wrong way
    assert right("offsets", effects(levels=-60.0, effects=-50.0))
    assert not right("mixture", effects(mixture=0.9))  # not clear
    assert right("mixture", effects(mixture=30.0) | {"HBM or BMA": [40.0, 39.0, 41.0]})
    assert right("exchangeable", effects(joint=1.9))  # 0.9 to 2.9 is not beyond 1
    assert not right("exchangeable", effects(joint=-2.1))


@pytest.mark.skipif(
    not FILE.with_name("attribution.json").exists(), reason="`make calibration` has not written its result"
)
def test_long_run_attributes(attribution):
    """40 pairs; what the committed file says of each is what its effects say."""
    result = json.loads(FILE.with_name("attribution.json").read_text())
    records = result["records"]
    assert {(r["world"], r["seed"]) for r in records} == {(name, seed) for name in WORLDS for seed in range(10)}
    assert result["right"] == attribution.count(records)
    assert result["right"]["all"] >= 36
    assert attribution.count(records, "twin")["all"] < 36
    assert not any(r["failed"] for r in records)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["offsets", "dependence"])
def test_small_run_attributes_and_the_twin_does_not(attribution, name):
    """12 stations and 16 times: the right effect is more than 40 %, and nothing else comes near it."""
    record = attribution.pair(name, 0, sites=12, times=16, folds=2)
    assert attribution.right(name, record["effects"])
    assert not attribution.right(name, record["twin"])


@pytest.mark.calibration
def test_long_run(attribution):
    attribution.main()
    test_long_run_attributes(attribution)
