"""Every number of a config has bounds, and what lies beyond them is refused before anything is made."""

import math

import pytest

from c2c_jax.bounds import BOUNDS, check_bounds, fields_of
from c2c_jax.cli.recipe import read_config
from c2c_jax.config import Config
from c2c_jax.errors import ConfigError
from tests.fixtures.programs import ROOT

NUMBERS = {path: kind for path, kind, _ in fields_of(Config()) if kind in (int, float)}


def changed(path: str, value: object) -> Config:
    config = Config()
    *nodes, name = path.split(".")
    node = config
    for one in nodes:
        node = getattr(node, one)
    setattr(node, name, value)
    return config


def test_every_number_has_bounds_and_recipes_lie_within():
    assert set(BOUNDS) == set(NUMBERS)
    check_bounds(Config())
    for recipe in sorted((ROOT / "configs").glob("*.py")):
        read_config(str(recipe), [])


@pytest.mark.parametrize("path", NUMBERS)
def test_what_lies_beyond(path):
    bad = [-2, 10**12, 10**5000, "7", None, True, [], {}]
    bad += [1.5] if NUMBERS[path] is int else [math.nan, math.inf, -math.inf]
    for value in bad:
        with pytest.raises(ConfigError, match=f"config.{path} is .*; it must be") as caught:
            check_bounds(changed(path, value))
        assert len(str(caught.value)) < 150


@pytest.mark.parametrize("path", NUMBERS)
def test_bounds_themselves(path):
    bounds, kind = BOUNDS[path], NUMBERS[path]
    step = 1 if kind is int else 1e-3
    low, high = (bounds.ge, bounds.gt), (bounds.le, bounds.lt)
    good = [low[0] if low[0] is not None else step] + [high[0] if high[0] is not None else high[1] - step]
    for value in map(kind, good):
        if path not in ("translator.width", "translator.depth"):
            check_bounds(changed(path, value))
    for value in (low[0] - step if low[0] is not None else low[1], high[0] + step if high[0] is not None else high[1]):
        with pytest.raises(ConfigError, match=f"config.{path} is"):
            check_bounds(changed(path, kind(value)))


def test_other_types_and_sizes_together():
    for path, value in (("source", 5), ("pictures.calibrate", 1), ("data", None), ("select_by", None)):
        with pytest.raises(ConfigError, match=f"config.{path} is {value}; it must be of type"):
            check_bounds(changed(path, value))
    config = changed("translator.width", 2**14)
    config.translator.depth = 3
    with pytest.raises(ConfigError, match="exceed 536,870,912 parameters"):
        check_bounds(config)


@pytest.mark.parametrize("value", ["1" + "0" * 5000, "abc", "1.5", "", "nan"])
def test_flags_are_refused_in_one_line(value):
    with pytest.raises(ConfigError, match="seed") as caught:
        read_config(str(ROOT / "configs" / "mlp.py"), [f"--config.seed={value}"])
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
