"""Which score foretells pictures: the correlations, and what they are taken over."""

import dataclasses

import numpy as np
import pytest

from bench.recipe.methods import Recipe, Variant
from bench.recipe.selection import SCORES, TRUTHS, WAYS, correlations, points, table
from c2c_jax.config import AugmentConfig, Config, MemoryConfig, PicturesConfig
from c2c_jax.data.arrays import space_of_array, store_of_arrays
from c2c_jax.data.store import Store
from c2c_jax.evaluation.translation import Method
from tests.bench.test_recipe import draw, scenes


def test_rank_correlations_by_hand():
    """ρ = 1 − 6 Σd² / (n (n² − 1)) over ranks: of 1 2 3 4 against 2 1 3 4, 1 − 12/60 = 0.8."""
    truths = [f"{truth} {way}" for truth in TRUTHS for way in WAYS]
    values = {score: [0.1, 0.2, 0.3, 0.9] for score in SCORES} | {truth: [20, 10, 30, 40] for truth in truths}
    values[truths[0]] = [4, 3, 2, 1]
    found = correlations([{name: of[run] for name, of in values.items()} for run in range(4)])
    assert found.pop("runs") == 4 and len(found) == len(SCORES) * len(truths)
    for name, figure in found.items():
        assert figure == pytest.approx(-1 if name.endswith(truths[0]) else 0.8)
    assert "-1.00" in str(table({**found, "runs": 4}).cells)


@dataclasses.dataclass
class Ground:
    """Four captions, four pictures, and translators that carry each to itself, or with a memory to its opposite."""

    store: Store
    asked: list[int]
    pairs = scenes()
    drawings = {"validation": [draw()], "test": [draw()]}

    def trained(self, name, settings):
        (config,) = settings.values()
        self.asked.append(config.memory.captions)
        sign = -1 if config.memory.captions else 1
        method = Method(name=name, of_texts=np.asarray, of_images=lambda x: sign * np.asarray(x))
        return Recipe(name=name, variants=(Variant(setting="", methods=(method, method)),))


def test_every_training_comes_once(tmp_path):
    """Configs that train the same translator are one point a seed, whatever memory and pictures are beside it."""
    eye = np.eye(4, dtype=np.float32)
    spaces = space_of_array("pictures", eye), space_of_array("sounds", eye)
    ground = Ground(store_of_arrays(tmp_path / "store", eye, eye, spaces), [])
    same = [Config(), Config(memory=MemoryConfig(captions=9)), Config(pictures=PicturesConfig(files="some"))]
    rows = {"a": {str(n): config for n, config in enumerate(same)}, "b": {"": Config(augment=AugmentConfig(noise=0.5))}}
    found = list(points(ground, rows, MemoryConfig(captions=70)))
    assert [(point["name"], point["seed"]) for point in found] == [("a 0", 0), ("a 0", 1), ("b", 0), ("b", 1)]
    assert ground.asked == [0, 70, 0, 70]
    for point in found:
        assert point["agreement@1"] == point["transfer"] == point["cell alone"] == 1
        assert point["agreement@1 behind the memory"] == 0 and point["cell memory"] < 1
