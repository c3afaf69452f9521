"""Where recipes are trained and judged: captions to learn from, drawings of scenes, training pairs; and rows on it."""

import argparse
import functools
import time

import numpy as np
from jaxtyping import Float
from rich.progress import Progress

from bench.recipe.configs import Settings, bundles, placed
from bench.recipe.geometry import Geometry, geometry_of
from bench.recipe.material import Draw, Material, Scenes
from bench.recipe.methods import (
    NO_ROWS,
    Recipe,
    Variant,
    closed_forms,
    label_prompts,
    nearest_captions,
    of_pairs,
    oracle_ridge,
    oracle_settings,
    pair_store,
)
from bench.recipe.trial import Result, result
from c2c_jax.config import Config
from c2c_jax.data.embed import prepare_store
from c2c_jax.data.store import Store
from c2c_jax.evaluation.methods import method_of
from c2c_jax.miniworld.world import SPLITS
from c2c_jax.training.closed_form import caption_means
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import Gap
from c2c_jax.translator.means import with_means

REFERENCES = ("nearest_caption", "ridge", "procrustes", "label_prompts", "oracle_ridge", "oracle_residual")
UNLABELLED = 1000  # pictures of the training split that recipes are given


class Ground:
    """Captions between two spaces, in one geometry. All of it is made when it is asked for, and kept in the workdir.
    flags: captions, seeds, draws, pairs, training_pairs, geometry and workdir are read. Raises ConfigError for spaces
    that cannot be given the geometry."""

    def __init__(self, flags: argparse.Namespace, material: Material, bar: Progress):
        self.flags, self.material, self.bar = flags, material, bar

    def placed(self, config: Config) -> Config:
        """The config on these captions."""
        return placed(config, self.material.names, self.flags.captions, self.store.path)

    @functools.cached_property
    def natural_store(self) -> Store:
        """The captions, embedded."""
        path = self.flags.workdir / f"store-{self.flags.captions}-{self.material.stamp}"
        return prepare_store(placed(Config(), self.material.names, self.flags.captions, path), path)

    @functools.cached_property
    def natural_pairs(self) -> Scenes:
        return self.material.scenes("train", 0, self.flags.training_pairs)

    @functools.cached_property
    def geometry(self) -> Geometry:
        return geometry_of(self.flags.geometry, self.natural_store, self.natural_pairs)

    @functools.cached_property
    def store(self) -> Store:
        return self.geometry.store(self.natural_store, self.flags.workdir)

    @functools.cached_property
    def pairs(self) -> Scenes:
        """Of the training split: what the oracles learn from, and the first of them unlabelled pictures."""
        return self.geometry.scenes(self.natural_pairs, SPLITS.index("train"), 0)

    @functools.cached_property
    def picture_PS(self) -> Float[np.ndarray, "P S"]:
        """Raw vectors of unlabelled pictures."""
        return self.pairs.image_NS[:UNLABELLED]

    @functools.cached_property
    def gap(self) -> Gap:
        """Means of unit vectors: of all captions, and of the unlabelled pictures."""
        return with_means(caption_means(self.store, NO_ROWS, "unit"), "unit", self.picture_PS)[0]

    @functools.cached_property
    def drawings(self) -> dict[str, list[Draw]]:
        """Of validation and test."""
        known, count = set(self.natural_store.captions()), self.flags.pairs
        return {
            split: [
                Draw(
                    scenes=self.geometry.scenes(self.material.scenes(split, seed, count), SPLITS.index(split), seed),
                    captions=self.geometry.captions(self.material.captions(split, seed, count, known)),
                )
                for seed in range(self.flags.draws)
            ]
            for split in ("validation", "test")
        }

    def trained(self, name: str, settings: Settings) -> Recipe:
        """A row of configs that are placed, trained with the unlabelled pictures."""
        variants = []
        for setting, found in self._bundles(name, settings, self.store, self.picture_PS).items():
            methods = tuple(method_of(name, one.translator, one.gap, one.memory) for one in found)
            kept = tuple(str(one.choice) for one in found) if settings[setting].adapt else ()
            variants.append(Variant(setting=setting, methods=methods, kept=kept))
        return Recipe(name=name, variants=tuple(variants))

    def _bundles(
        self, name: str, settings: Settings, store: Store, picture_PS: np.ndarray | None
    ) -> dict[str, list[Bundle]]:
        """The bundles of every setting, one for each seed."""
        task = self.bar.add_task(f"training {name}", total=self.flags.seeds * len(settings))
        advance, since = functools.partial(self.bar.advance, task), time.perf_counter()
        found = {
            setting: bundles(config, store, self.flags.seeds, self.flags.workdir / "runs", advance, picture_PS)
            for setting, config in settings.items()
        }
        self.bar.remove_task(task)
        seconds = time.perf_counter() - since
        self.bar.console.print(f"{name}: {len(settings)} × {self.flags.seeds} trained, {seconds:.0f} s")
        return found

    def references(self) -> list[Recipe]:
        """What needs no config."""
        ridge, procrustes = closed_forms(self.store, self.gap)
        return [
            nearest_captions(self.store, self.gap),
            ridge,
            procrustes,
            label_prompts(*self.geometry.prompts(*self.material.prompts()), self.gap),
            oracle_ridge(self.pairs),
            self._oracle_residual("oracle_residual"),
        ]

    def _oracle_residual(self, name: str) -> Recipe:
        store = pair_store(self.pairs, self.flags.workdir)
        found = self._bundles(name, oracle_settings(len(self.pairs.cells_N)), store, None)
        variants = (
            Variant(setting=setting, methods=tuple(of_pairs(name, one) for one in of_setting))
            for setting, of_setting in found.items()
        )
        return Recipe(name=name, variants=tuple(variants), reads_texts=False)

    def result(self, recipe: Recipe) -> Result:
        """A row's figures."""
        return result(recipe, self.drawings["validation"], self.drawings["test"], self.gap.mean("target_text"))
