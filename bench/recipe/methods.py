"""The rows of the table that carry pictures: recipes, each in one or several settings that validation chooses among."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from bench.recipe.material import Scenes
from bench.recipe.use import Unlabelled
from c2c_jax.config import Config, DataConfig, ObjectiveConfig, TranslatorConfig
from c2c_jax.data.arrays import space_of_array, store_of_arrays
from c2c_jax.data.store import Store
from c2c_jax.evaluation.baselines import TrainingCaptions, nearest_caption
from c2c_jax.evaluation.gaps import unit_rows
from c2c_jax.evaluation.oracle import fitted_to_pairs
from c2c_jax.evaluation.translation import Method, method_of
from c2c_jax.models.gap import Gap, over_source_gap, over_target_gap
from c2c_jax.models.layers import unit
from c2c_jax.models.translator import TranslatorSpec, build_translator
from c2c_jax.training.closed_form import caption_means, moments, procrustes, ridge, set_linear

TEMPERATURES = (0.003, 0.01, 0.02, 0.05, 0.1)  # of the nearest captions' softmax
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
NO_ROWS = np.zeros(0, np.int64)  # of the store held out: what is scored is of other splits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One setting of a recipe. methods: one for each translator seed, or a single one where there is no chance in it;
    each carries the vectors of any drawing."""

    setting: str
    methods: tuple[Method, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A row of the table. reads_texts: whether it carries captions too."""

    name: str
    variants: tuple[Variant, ...]
    reads_texts: bool = True


def nearest_captions(store: Store, means: Unlabelled | None = None, name: str = "nearest_caption") -> Recipe:
    """The training captions remembered, at several temperatures; pictures go over the gap by the means, if any."""
    memory = list(TrainingCaptions(store, NO_ROWS))
    gap = means.correct(caption_means(store, NO_ROWS, "unit"), "unit") if means else Gap()

    def at(temperature: float) -> Method:
        def of_texts(source_BS: np.ndarray) -> np.ndarray:
            return nearest_caption(source_BS, memory, temperature)

        def of_images(source_BS: np.ndarray) -> np.ndarray:
            shifted_BS = over_source_gap(gap, "unit", jnp.asarray(source_BS, jnp.float32))
            return np.asarray(unit(over_target_gap(gap, jnp.asarray(of_texts(np.asarray(shifted_BS))))))

        return Method(name=name, of_texts=of_texts, of_images=of_images)

    variants = (Variant(setting=f"temperature={value:g}", methods=(at(value),)) for value in TEMPERATURES)
    return Recipe(name=name, variants=tuple(variants))


def closed_forms(store: Store) -> tuple[Recipe, Recipe]:
    """Ridge, at several weights, and Procrustes, from all captions of the store."""
    spec = TranslatorSpec(
        kind="ridge", source_dim=store.plan.source.dim, target_dim=store.plan.target.dim, width=1, depth=1, heads=1,
        mlp_width=1, dropout=0.0, clamp=0.0, input_norm="unit",
    )  # fmt: skip
    found = moments(store, NO_ROWS, spec)

    def of(kind: str, kernel_SE: np.ndarray, bias_E: np.ndarray) -> tuple[Method, ...]:
        translator = build_translator(dataclasses.replace(spec, kind=kind), rngs=nnx.Rngs(0))
        set_linear(translator, kernel_SE, bias_E)
        return (method_of(kind, translator, Gap()),)

    ridges = (Variant(setting=f"ridge={weight:g}", methods=of("ridge", *ridge(found, weight))) for weight in RIDGES)
    rotation = Variant(setting="", methods=of("procrustes", *procrustes(found)))
    return Recipe(name="ridge", variants=tuple(ridges)), Recipe(name="procrustes", variants=(rotation,))


def label_prompts(picture_CS: Float[np.ndarray, "C S"], sound_CE: Float[np.ndarray, "C E"]) -> Recipe:
    """Zero-shot CLIP, which knows the cells: the sound prompts of the cell whose picture prompts are nearest."""

    def carry(source_BS: np.ndarray) -> np.ndarray:
        nearest_B = np.argmax(unit_rows(source_BS) @ unit_rows(picture_CS).T, axis=1)
        return unit_rows(sound_CE)[nearest_B].astype(np.float32)

    method = Method(name="label_prompts", of_texts=carry, of_images=carry)
    return Recipe(name="label_prompts", variants=(Variant(setting="", methods=(method,)),), reads_texts=False)


def oracle_ridge(pairs: Scenes) -> Recipe:
    """A ridge from unit image to unit audio vectors of training pairs, linear or over kernels by leave-one-out."""
    fitted = fitted_to_pairs(unit_rows(pairs.image_NS), unit_rows(pairs.audio_NE))

    def carry(source_BS: np.ndarray) -> np.ndarray:
        return unit_rows(fitted.carry(unit_rows(source_BS))).astype(np.float32)

    method = Method(name="oracle_ridge", of_texts=carry, of_images=carry)
    return Recipe(name="oracle_ridge", variants=(Variant(setting="", methods=(method,)),), reads_texts=False)


def pair_store(pairs: Scenes, folder: Path) -> Store:
    """The vectors of training pairs as a store, pictures in captions' place: what the oracle's translators train on."""
    ids = space_of_array("pictures", pairs.image_NS), space_of_array("sounds", pairs.audio_NE)
    path = folder / f"pairs-{'-'.join(space.fingerprint[:12] for space in ids)}"
    return store_of_arrays(path, pairs.image_NS, pairs.audio_NE, ids)


def oracle_settings(pairs: int) -> dict[str, Config]:
    """Residual translators of `pairs` pairs, a tenth of them held out, by objectives that take pairs of one cell for
    negatives, that hardly do, and that have none."""
    translator = TranslatorConfig(kind="residual", width=512, start="procrustes")
    objectives = {
        "infonce": ObjectiveConfig(kind="infonce"),
        "infonce, twin_cosine=0.8": ObjectiveConfig(kind="infonce", twin_cosine=0.8),
        "cosine": ObjectiveConfig(kind="cosine"),
    }
    return {
        setting: Config(
            source="", target="", batch_size=256, epochs=30, eval_every=100, checkpoint_every=1000,
            data=DataConfig(holdout=max(pairs // 10, 1)), translator=translator, objective=objective,
        )
        for setting, objective in objectives.items()
    }  # fmt: skip


def of_methods(name: str, found: Iterable[tuple[str, tuple[Method, ...]]], *, reads_texts: bool = True) -> Recipe:
    """A recipe of trained settings: (setting, its methods)."""
    variants = tuple(Variant(setting=setting, methods=methods) for setting, methods in found)
    return Recipe(name=name, variants=variants, reads_texts=reads_texts)
