"""CLIP2CLAP's four-layer MLP with tanh and LayerNorm: cosines over a learned temperature.

    c2c train --recipe mlp_layernorm:gcc --workdir runs/mlp_layernorm

Without `:gcc` it trains on the mini world. The settings are those of the author's `linear4.py`: outputs clipped to
±0.2, logits cos · exp(t) with t initially 1, batch 32, AdamW with a learning rate of 1e-3. LayerNorm's outputs have
unit variance, so clipping leaves few coordinates with a gradient, and results stay at chance. Turn clipping off with
--config.translator.clamp=0.
"""

import math

from c2c_jax.config import Config, ObjectiveConfig, TranslatorConfig, apply_preset


def get_config(preset: str = "miniworld") -> Config:
    """Returns the config of the four-layer LayerNorm MLP; raises ConfigError if `preset` is not in DATASET_PRESETS."""
    config = Config(
        batch_size=32,
        steps_per_call=100,
        epochs=5,
        log_every=500,
        eval_every=5000,
        checkpoint_every=5000,
        select_by="recall@10",
        translator=TranslatorConfig(kind="mlp_layernorm", clamp=0.2, input_norm="none"),
        objective=ObjectiveConfig(kind="infonce", settings={"temperature": math.exp(-1)}),
    )
    return apply_preset(preset, config)
