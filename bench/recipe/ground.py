"""Training and test data of recipes: captions, drawings of the test split, and pairs of the training split."""

import dataclasses
import functools
import time
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.progress import Progress

from bench.recipe.geometry import RealGeometry
from bench.recipe.material import Draw, Material, Scenes
from bench.recipe.methods import NO_ROWS, Row, closed_form, oracle_config, oracle_method, pair_store
from bench.runs import trained
from c2c_jax.config import Config, EmbedConfig
from c2c_jax.data.embed import prepare_store
from c2c_jax.data.store import Store
from c2c_jax.evaluation.methods import as_method, nearest_caption_method
from c2c_jax.miniworld.world import SPLITS
from c2c_jax.training.closed_form import caption_means
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.mean_estimates import with_means

UNLABELLED = 1000  # images of the training split that recipes are given


@dataclasses.dataclass(frozen=True, eq=False)
class Ground:
    """The mini world between two spaces, in one geometry. Everything is made at first use and kept in the workdir.

    captions: training captions. seeds: of each recipe. draws: drawings of the test split. pairs: scenes of a drawing.
    training_pairs: that the oracle learns from. geometry: "natural" or "clip". Raises ConfigError for spaces that do
    not fit the geometry.
    """

    material: Material
    workdir: Path
    bar: Progress
    captions: int
    seeds: int
    draws: int
    pairs: int
    training_pairs: int
    geometry: str

    @functools.cached_property
    def natural_store(self) -> Store:
        """The embedded captions."""
        path = self.workdir / f"store-{self.captions}-{self.material.stamp}"
        return prepare_store(self._placed(Config(), path), path)

    @functools.cached_property
    def natural_pairs(self) -> Scenes:
        return self.material.scenes("train", 0, self.training_pairs)

    @functools.cached_property
    def reshaped(self) -> RealGeometry | None:
        return RealGeometry(self.natural_store, self.natural_pairs) if self.geometry == "clip" else None

    @functools.cached_property
    def store(self) -> Store:
        return self.reshaped.store(self.natural_store, self.workdir) if self.reshaped else self.natural_store

    @functools.cached_property
    def oracle_pairs(self) -> Scenes:
        """Pairs of the training split; the images of the first ones serve as unlabelled images."""
        return self._scenes("train", 0, self.natural_pairs)

    @property
    def image_PS(self) -> Float[np.ndarray, "P S"]:
        """Raw vectors of unlabelled images."""
        return self.oracle_pairs.image_NS[:UNLABELLED]

    @functools.cached_property
    def means(self) -> ModalityMeans:
        """Means of the unit vectors of all captions and of the unlabelled images."""
        return with_means(caption_means(self.store, NO_ROWS, "unit"), "unit", self.image_PS)[0]

    @functools.cached_property
    def drawings(self) -> list[Draw]:
        known = set(self.natural_store.captions())
        drawings = []
        for seed in range(self.draws):
            captions = self.material.captions("test", seed, self.pairs, known)
            drawings.append(
                Draw(
                    scenes=self._scenes("test", seed, self.material.scenes("test", seed, self.pairs)),
                    captions=self.reshaped.captions(captions) if self.reshaped else captions,
                )
            )
        return drawings

    def _scenes(self, split: str, seed: int, scenes: Scenes) -> Scenes:
        return self.reshaped.scenes(scenes, SPLITS.index(split), seed) if self.reshaped else scenes

    def _placed(self, config: Config, store: Path) -> Config:
        """A config with these captions and spaces."""
        data = dataclasses.replace(
            config.data, captions=f"miniworld:{self.captions}", drop_duplicates=True, data_dir="", manual_dir="",
            store=str(store),
        )  # fmt: skip
        source, target = self.material.names
        return dataclasses.replace(config, source=source, target=target, data=data, embed=EmbedConfig())

    def trained(self, name: str, config: Config) -> Row:
        """Trains a recipe on the captions and the unlabelled images, with every seed."""
        bundles = self._bundles(name, self._placed(config, self.store.path), self.store, self.image_PS)
        return Row(
            name=name,
            methods=tuple(as_method(name, bundle.translator, bundle.means, bundle.memory) for bundle in bundles),
            kept=tuple(str(bundle.choice) for bundle in bundles) if config.adapt else (),
        )

    def oracle(self) -> Row:
        """Trains the oracle on pairs, with every seed."""
        config = oracle_config(len(self.oracle_pairs.cells_N))
        bundles = self._bundles("oracle_residual", config, pair_store(self.oracle_pairs, self.workdir))
        return Row(name="oracle_residual", methods=tuple(map(oracle_method, bundles)), reads_texts=False)

    def rotation(self) -> Row:
        """The Procrustes rotation between captions."""
        return Row(name="procrustes", methods=(closed_form("procrustes", self.store, self.means),))

    def nearest_captions(self) -> Row:
        """The targets of the nearest training captions."""
        return Row(name="nearest_caption", methods=(nearest_caption_method(self.store, NO_ROWS, self.means),))

    def _bundles(self, name: str, config: Config, store: Store, image_PS: np.ndarray | None = None) -> list[Bundle]:
        """Trains a config with every seed."""
        task, start, bundles = self.bar.add_task(f"training {name}", total=self.seeds), time.perf_counter(), []
        for seed in range(self.seeds):
            bundles.append(trained(dataclasses.replace(config, seed=seed), store, self.workdir / "runs", image_PS))
            self.bar.advance(task)
        self.bar.remove_task(task)
        self.bar.console.print(f"{name}: {self.seeds} trained, {time.perf_counter() - start:.0f} s")
        return bundles
