"""Recipes as functions from source vectors to target vectors, trained on texts alone by the product's own trainer."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from bench.recipe.configs import trained
from bench.recipe.methods import closed_forms, nearest_captions
from c2c_jax.cli.recipe import read_config
from c2c_jax.config import AugmentConfig, Config, ObjectiveConfig, OptimizerConfig
from c2c_jax.data.store import Store
from c2c_jax.evaluation.translation import Translate
from c2c_jax.retrieval.nearest_captions import TEMPERATURE

RIDGES = (0.1, 1.0, 10.0)  # weights, of the inputs' mean square
HELD_OUT = 200  # texts that choose the bundle, or a tenth where there are fewer than 2,000
BATCH, STEPS = 256, 600
TRAINED = {
    "before": "configs/recommended.py",
    "paper": "configs/mlp.py",
    "residual": "configs/residual.py",
    "residual, noise 0.65": "configs/residual.py",
}
CLOSED = ("procrustes", *(f"ridge {weight:g}" for weight in RIDGES), "nearest captions")


def config_of(name: str, texts: int) -> Config:
    """A recipe of TRAINED at the size of these texts: batches of 256, 600 steps of them, on vectors as the bench puts
    them. "residual, noise 0.65" is `configs/residual.py` with noise, two layers of 1,024 units, a cosine decay and a
    moving average; "before" is what the recommended recipe was before it was tried on real vectors."""
    config = read_config(TRAINED[name], [])
    held_out = min(HELD_OUT, texts // 10)
    batch = min(BATCH, 2 ** ((texts - held_out).bit_length() - 1))
    if name == "before":
        config = dataclasses.replace(
            config,
            adapt=False,
            steps=0,
            patience=0,
            translator=dataclasses.replace(config.translator, width=1024, depth=4),
            augment=AugmentConfig(noise_cosine=0.8),
            objective=ObjectiveConfig(kind="cosine"),
            optimizer=OptimizerConfig(decay="cosine", ema=0.999),
        )
    if name == "residual, noise 0.65":
        config = dataclasses.replace(
            config,
            translator=dataclasses.replace(config.translator, width=1024, depth=2),
            augment=AugmentConfig(noise_cosine=0.65),
            optimizer=OptimizerConfig(decay="cosine", ema=0.99),
        )
    if config.translator.input_norm == "centred":
        config = dataclasses.replace(config, translator=dataclasses.replace(config.translator, input_norm="unit"))
    return dataclasses.replace(
        config,
        source="",
        target="",
        select_by="recall@10",
        batch_size=batch,
        epochs=max(round(STEPS * batch / (texts - held_out)), 1),
        eval_every=STEPS * 10,
        checkpoint_every=STEPS * 10,
        data=dataclasses.replace(config.data, captions="", drop_duplicates=False, holdout=held_out),
    )


def translators(name: str, store: Store, seeds: int, workdir: Path) -> Sequence[Translate]:
    """One for each seed; of closed forms a single one."""
    if name == "nearest captions":
        (variant,) = (one for one in nearest_captions(store).variants if one.setting == f"temperature={TEMPERATURE:g}")
        return [method.of_images for method in variant.methods]
    if name in CLOSED:
        ridge, rotation = closed_forms(store)
        kept = rotation.variants if name == "procrustes" else ridge.variants
        (variant,) = (one for one in kept if one.setting in ("", name.replace(" ", "=")))
        return [method.of_images for method in variant.methods]
    config = config_of(name, store.plan.rows)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, store=str(store.path)))
    return [method.of_images for method in trained(name, config, store, seeds, workdir / "runs", lambda: None)]
