"""Five layers of linear and tanh with cosines over a learned temperature, as in CLIP2CLAP's code.

    python train.py --config configs/mlp5.py:gcc --workdir runs/mlp5

Without `:gcc` it trains on the mini world. The author's `linear5.py`: the last layer ends in tanh too, outputs cut to
±0.25, cosines times exp(t) with t from 1, batch 32, AdamW at 1e-3.
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
