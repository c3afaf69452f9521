"""Baselines of the recommended recipe: maps from source to target vectors, trained on texts alone."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from bench.recipe.methods import NO_ROWS, closed_form
from bench.runs import read_recipe, trained
from c2c_jax.config import AugmentConfig, Config, ObjectiveConfig, OptimizerConfig, TranslatorConfig
from c2c_jax.data.store import Store
from c2c_jax.evaluation.methods import Translate, as_method
from c2c_jax.retrieval.nearest_captions import TrainingCaptions, nearest_caption

RIDGES = {f"ridge {weight:g}": weight for weight in (0.1, 1.0, 10.0)}  # relative to the inputs' mean square
HELD_OUT = 200  # texts that select the bundle; at most a tenth of all
BATCH, STEPS = 256, 600
TRAINED = {
    "before": "configs/recommended.py",
    "paper": "configs/mlp.py",
    "residual": "configs/residual.py",
    "residual, noise 0.65": "configs/residual.py",
}
CLOSED = ("procrustes", *RIDGES, "nearest captions")


def config_of(name: str, texts: int) -> Config:
    """A recipe of TRAINED for a number of texts: 600 steps of batches of 256.

    "residual, noise 0.65" is `configs/residual.py` with noise, two layers of 1,024 units, a cosine decay and a moving
    average; "before" is the earlier recommended recipe.
    """
    config = read_recipe(TRAINED[name])
    replace = dataclasses.replace
    held_out = min(HELD_OUT, texts // 10)
    batch = min(BATCH, 2 ** ((texts - held_out).bit_length() - 1))
    if name == "before":
        config = replace(
            config,
            adapt=False,
            steps=0,
            patience=0,
            translator=_sized(config.translator, width=1024, depth=4),
            augment=AugmentConfig(noise_cosine=0.8),
            objective=ObjectiveConfig(kind="cosine"),
            optimizer=OptimizerConfig(decay="cosine", ema=0.999),
        )
    if name == "residual, noise 0.65":
        config = replace(
            config,
            translator=_sized(config.translator, width=1024, depth=2),
            augment=AugmentConfig(noise_cosine=0.65),
            optimizer=OptimizerConfig(decay="cosine", ema=0.99),
        )
    if config.translator.input_norm == "centred":
        config = replace(config, translator=replace(config.translator, input_norm="unit"))
    return replace(
        config,
        source="",
        target="",
        select_by="recall@10",
        batch_size=batch,
        epochs=max(round(STEPS * batch / (texts - held_out)), 1),
        eval_every=STEPS * 10,
        checkpoint_every=STEPS * 10,
        data=replace(config.data, captions="", drop_duplicates=False, validation_size=held_out),
    )


def _sized(translator: TranslatorConfig, **sizes: int) -> TranslatorConfig:
    return dataclasses.replace(translator, settings=translator.settings | sizes)


def translators(name: str, store: Store, seeds: int, workdir: Path) -> Sequence[Translate]:
    """A recipe's translators, one for each seed; a single one if nothing is random."""
    if name == "nearest captions":
        captions = TrainingCaptions(store, NO_ROWS)
        return [lambda source_BS: nearest_caption(source_BS, captions)]
    if name in CLOSED:
        kind = "procrustes" if name == "procrustes" else "ridge"
        return [closed_form(kind, store, weight=RIDGES.get(name, 0.0)).of_images]
    config = config_of(name, store.plan.rows)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, store=str(store.path)))
    bundles = (trained(dataclasses.replace(config, seed=seed), store, workdir / "runs") for seed in range(seeds))
    return [as_method(name, bundle.translator, bundle.means, bundle.memory).of_images for bundle in bundles]
