"""The rows of the table that carry pictures: recipes, each in one or several settings that validation chooses among."""

import dataclasses
import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from bench.recipe.material import Scenes
from c2c_jax.config import Config, DataConfig, ObjectiveConfig, TranslatorConfig
from c2c_jax.data.arrays import space_of_array, store_of_arrays
from c2c_jax.data.store import Store
from c2c_jax.evaluation.oracle import fitted_to_pairs
from c2c_jax.evaluation.translation import Method, method_of
from c2c_jax.io.vectors import unit_rows
from c2c_jax.retrieval.nearest_captions import TrainingCaptions, nearest_caption
from c2c_jax.retrieval.scoring import centred_array, unit_mean
from c2c_jax.training.closed_form import moments, procrustes, ridge, set_linear
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import Gap, uncentred
from c2c_jax.translator.kinds import TranslatorSpec, build_translator

TEMPERATURES = (0.003, 0.01, 0.02, 0.05, 0.1)  # of the nearest captions' softmax
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
NO_ROWS = np.zeros(0, np.int64)  # of the store held out: what is scored is of other splits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One setting of a recipe. methods: one for each translator seed, or a single one where there is no chance in it;
    each translates the vectors of any drawing. kept: what each seed's run chose of its candidates, in words."""

    setting: str
    methods: tuple[Method, ...]
    kept: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A row of the table. reads_texts: whether it translates captions too."""

    name: str
    variants: tuple[Variant, ...]
    reads_texts: bool = True


def nearest_captions(store: Store, gap: Gap | None = None) -> Recipe:
    """The training captions remembered, at several temperatures. gap: means that all vectors are centred by; None: they
    are used as they are."""
    memory = list(TrainingCaptions(store, NO_ROWS, gap))

    def carry(source_BS: np.ndarray, temperature: float, modality: str) -> np.ndarray:
        if gap is None:
            return nearest_caption(source_BS, memory, temperature)
        target_BE = nearest_caption(centred_array(source_BS, gap.mean(modality)), memory, temperature)
        return np.asarray(uncentred(jnp.asarray(target_BE), gap.mean("target_text")))

    def at(temperature: float) -> Method:
        of_texts, of_images = (
            functools.partial(carry, temperature=temperature, modality=modality)
            for modality in ("source_text", "source_image")
        )
        return Method(name="nearest_caption", of_texts=of_texts, of_images=of_images)

    variants = (Variant(setting=f"temperature={value:g}", methods=(at(value),)) for value in TEMPERATURES)
    return Recipe(name="nearest_caption", variants=tuple(variants))


def closed_forms(store: Store, gap: Gap | None = None) -> tuple[Recipe, Recipe]:
    """Ridge, at several weights, and Procrustes, from all captions of the store. gap: as for `nearest_captions`."""
    spec = TranslatorSpec.from_json(dict(
        kind="ridge", source_dim=store.plan.source.dim, target_dim=store.plan.target.dim, width=1, depth=1, heads=1,
        mlp_width=1, dropout=0.0, clamp=0.0, input_norm="unit" if gap is None else "centred",
    ))  # fmt: skip
    gap = gap or Gap()
    found = moments(store, NO_ROWS, spec, gap)

    def of(kind: str, kernel_SE: np.ndarray, bias_E: np.ndarray) -> tuple[Method, ...]:
        translator = build_translator(dataclasses.replace(spec, kind=kind), rngs=nnx.Rngs(0))
        set_linear(translator, kernel_SE, bias_E)
        return (method_of(kind, translator, gap),)

    ridges = (Variant(setting=f"ridge={weight:g}", methods=of("ridge", *ridge(found, weight))) for weight in RIDGES)
    rotation = Variant(setting="", methods=of("procrustes", *procrustes(found)))
    return Recipe(name="ridge", variants=tuple(ridges)), Recipe(name="procrustes", variants=(rotation,))


def label_prompts(picture_CS: Float[np.ndarray, "C S"], sound_CE: Float[np.ndarray, "C E"], gap: Gap) -> Recipe:
    """Zero-shot CLIP, which knows the cells: the sound prompts of the cell whose picture prompts are nearest, all
    centred by the means of pictures and captions."""
    prompt_CS = unit_rows(centred_array(picture_CS, gap.mean("source_text")))

    def carry(source_BS: np.ndarray) -> np.ndarray:
        nearest_B = np.argmax(unit_rows(centred_array(source_BS, gap.mean("source_image"))) @ prompt_CS.T, axis=1)
        return unit_rows(sound_CE)[nearest_B].astype(np.float32)

    method = Method(name="label_prompts", of_texts=carry, of_images=carry)
    return Recipe(name="label_prompts", variants=(Variant(setting="", methods=(method,)),), reads_texts=False)


def oracle_ridge(pairs: Scenes) -> Recipe:
    """A ridge between centred image and audio vectors of training pairs, linear or over kernels by leave-one-out."""
    image_S, audio_E = unit_mean([pairs.image_NS]), unit_mean([pairs.audio_NE])
    fitted = fitted_to_pairs(
        unit_rows(centred_array(pairs.image_NS, image_S)), unit_rows(centred_array(pairs.audio_NE, audio_E))
    )

    def carry(source_BS: np.ndarray) -> np.ndarray:
        found_BE = fitted.carry(unit_rows(centred_array(source_BS, image_S)))
        return np.asarray(uncentred(jnp.asarray(found_BE, jnp.float32), audio_E))

    method = Method(name="oracle_ridge", of_texts=carry, of_images=carry, image_mean_E=audio_E)
    return Recipe(name="oracle_ridge", variants=(Variant(setting="", methods=(method,)),), reads_texts=False)


def pair_store(pairs: Scenes, folder: Path) -> Store:
    """The vectors of training pairs as a store, pictures in captions' place: what the oracle's translators train on."""
    ids = space_of_array("pictures", pairs.image_NS), space_of_array("sounds", pairs.audio_NE)
    path = folder / f"pairs-{'-'.join(space.fingerprint[:12] for space in ids)}"
    return store_of_arrays(path, pairs.image_NS, pairs.audio_NE, ids)


def oracle_settings(pairs: int) -> dict[str, Config]:
    """Residual translators of `pairs` pairs, a tenth of them held out, by objectives that take pairs of one cell for
    negatives, that hardly do, and that have none."""
    translator = TranslatorConfig(kind="residual", settings={"width": 512, "init": "procrustes"})
    objectives = {
        "infonce": ObjectiveConfig(kind="infonce"),
        "infonce, twin_cosine=0.8": ObjectiveConfig(kind="infonce", settings={"false_negative_threshold": 0.8}),
        "cosine": ObjectiveConfig(kind="cosine"),
    }
    return {
        setting: Config(
            source="", target="", batch_size=256, epochs=30, eval_every=100, checkpoint_every=1000,
            select_by="recall@10",
            data=DataConfig(validation_size=max(pairs // 10, 1)), translator=translator, objective=objective,
        )
        for setting, objective in objectives.items()
    }  # fmt: skip


def of_pairs(name: str, bundle: Bundle) -> Method:
    """A translator that was trained on `pair_store`: pictures are its captions, and what it gives lies among sounds."""
    method = method_of(name, bundle.translator, bundle.gap)
    return dataclasses.replace(method, of_images=method.of_texts, image_mean_E=bundle.gap.mean("target_text"))
