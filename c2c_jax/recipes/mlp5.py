"""CLIP2CLAP's five-layer tanh MLP on Google Conceptual Captions: cosines over a learned temperature.

    c2c train --recipe mlp5:gcc --workdir runs/mlp5

Without `:gcc` it trains on the mini world. The settings are those of the author's `linear5.py`: tanh after the last
layer too, outputs clipped to ±0.25, logits cos · exp(t) with t initially 1, batch 32, AdamW with a learning rate of
1e-3.
"""

import math

from c2c_jax.config import Config, ObjectiveConfig, TranslatorConfig, apply_preset


def get_config(preset: str = "miniworld") -> Config:
    """Returns the config of the five-layer tanh MLP; raises ConfigError if `preset` is not in DATASET_PRESETS."""
    config = Config(
        batch_size=32,
        steps_per_call=100,
        epochs=5,
        log_every=500,
        eval_every=5000,
        checkpoint_every=5000,
        select_by="recall@10",
        translator=TranslatorConfig(kind="mlp5", clamp=0.25, input_norm="none"),
        objective=ObjectiveConfig(kind="infonce", settings={"temperature": math.exp(-1)}),
    )
    return apply_preset(preset, config)
