"""Where recipes are trained and judged: captions to learn from, drawings of scenes, training pairs; and rows on it."""

import argparse
import functools
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from bench.recipe.configs import Settings, placed, trained
from bench.recipe.dial import Dial
from bench.recipe.material import Draw, Material, Scenes
from bench.recipe.methods import (
    Recipe,
    closed_forms,
    label_prompts,
    nearest_captions,
    of_methods,
    oracle_ridge,
    oracle_settings,
    pair_store,
)
from bench.recipe.others import BEHIND, OTHERS, other
from bench.recipe.trial import Result, result
from bench.recipe.use import Unlabelled, is_calibrated
from c2c_jax.config import Config
from c2c_jax.data.embed import prepare_store
from c2c_jax.data.store import Store

REFERENCES = ("nearest_caption", "ridge", "procrustes", "label_prompts", "oracle_ridge", "oracle_residual")


class Ground:
    """`captions` captions between two spaces, with a dial turned. All of it is made when it is asked for, and kept in
    the workdir. flags: seeds, draws, pairs, training_pairs, most_settings and workdir are read."""

    def __init__(self, flags: argparse.Namespace, material: Material, captions: int, dial: Dial, bar: Progress):
        self.flags, self.material, self.captions, self.asked, self.bar = flags, material, captions, dial, bar

    @property
    def path(self) -> Path:
        """Of the store."""
        return self.flags.workdir / f"store-{self.captions}-{self.material.stamp}"

    def placed(self, config: Config) -> Config:
        return placed(config, self.material.names, self.captions, self.path)

    @functools.cached_property
    def store(self) -> Store:
        return prepare_store(self.placed(Config()), self.path)

    @functools.cached_property
    def dial(self) -> Dial:
        """As it is turned; a gap is brought about on the first drawing of the validation split."""
        natural = self.material.scenes("validation", 0, self.flags.pairs, Dial())
        return self.asked.set_to(natural.image_NS, natural.seen_NS)

    @functools.cached_property
    def drawings(self) -> dict[str, list[Draw]]:
        """Of validation and test."""
        known = set(self.store.captions())
        return {
            split: [
                self.material.draw(split, seed, self.flags.pairs, self.dial, known) for seed in range(self.flags.draws)
            ]
            for split in ("validation", "test")
        }

    @functools.cached_property
    def pairs(self) -> Scenes:
        """Of the training split: what the oracles learn from, and unlabelled pictures and sounds."""
        return self.material.scenes("train", 0, self.flags.training_pairs, self.dial)

    def trained(self, name: str, settings: Settings, kinds: Sequence[str] = ("",)) -> Recipe:
        """A row of configs that are placed, each with every kind of means; "": with pictures' where the config has them
        put into its bundle, with none elsewhere."""
        return self._trained(name, settings, self.store, kinds)

    def _means(self, kind: str, config: Config) -> Unlabelled | None:
        kind = kind or ("pictures" if is_calibrated(config) else "")
        return Unlabelled.of(kind, self.pairs) if kind else None

    def _trained(self, name: str, settings: Settings, store: Store, kinds: Sequence[str], **told: bool) -> Recipe:
        task = self.bar.add_task(f"training {name}", total=self.flags.seeds * len(settings) * len(kinds))
        found, since = [], time.perf_counter()
        runs = self.flags.workdir / "runs"
        for setting, config in settings.items():
            for kind in kinds:
                advance = functools.partial(self.bar.advance, task)
                methods = trained(name, config, store, self.flags.seeds, runs, advance, self._means(kind, config))
                parts = [setting, f"means={kind}" if len(kinds) > 1 else ""]
                found.append((", ".join(filter(None, parts)), methods))
        self.bar.remove_task(task)
        seconds = time.perf_counter() - since
        self.bar.console.print(f"{name}: {len(settings)} × {self.flags.seeds} trained, {seconds:.0f} s")
        return of_methods(name, found, **told)

    def references(self, names: Sequence[str] = REFERENCES) -> list[Recipe]:
        """What needs no config, and the tools of `others.py`; `nearest_caption_calibrated` has the means of unlabelled
        pictures, and `nearest_caption@0.01` that temperature alone."""
        return [self._reference(name) for name in names]

    def _reference(self, name: str) -> Recipe:
        name, _, temperature = name.partition("@")
        if temperature:
            (variant,) = (
                one for one in nearest_captions(self.store).variants if one.setting.endswith(f"={temperature}")
            )
            return Recipe(name=f"{name}@{temperature}", variants=(variant,))
        match name:
            case "nearest_caption":
                return nearest_captions(self.store)
            case "nearest_caption_calibrated":
                return nearest_captions(self.store, Unlabelled.of("pictures", self.pairs), name)
            case "ridge" | "procrustes":
                return self._closed_forms[name]
            case "label_prompts":
                return label_prompts(*self.material.prompts())
            case "oracle_ridge":
                return oracle_ridge(self.pairs)
            case "oracle_residual":
                settings = dict(list(oracle_settings(len(self.pairs.cells_N)).items())[: self.flags.most_settings])
                store = pair_store(self.pairs, self.flags.workdir)
                return self._trained(name, settings, store, ("",), reads_texts=False)
        if name.removesuffix(BEHIND) in OTHERS:
            return other(name, self)
        raise ValueError(f"no reference {name!r}")

    @functools.cached_property
    def _closed_forms(self) -> dict[str, Recipe]:
        return {recipe.name: recipe for recipe in closed_forms(self.store)}

    def result(self, recipe: Recipe) -> Result:
        return result(recipe, self.drawings["validation"], self.drawings["test"])
