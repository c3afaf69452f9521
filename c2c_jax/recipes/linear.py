"""CLIP2CLAP's first model on Google Conceptual Captions: one linear layer with the inverse Euclidean objective.

    c2c train --recipe linear:gcc --workdir runs/linear

Without `:gcc` it trains on the mini world. The settings are those of the author's `linear.py`: outputs clipped to ±0.3,
batch 32, AdamW with a learning rate of 1e-3.
"""

from c2c_jax.config import Config, ObjectiveConfig, TranslatorConfig, apply_preset


def get_config(preset: str = "miniworld") -> Config:
    """Returns the config of the one-layer translator; raises ConfigError if `preset` is not in DATASET_PRESETS."""
    config = Config(
        batch_size=32,
        steps_per_call=100,
        epochs=5,
        log_every=500,
        eval_every=5000,
        checkpoint_every=5000,
        select_by="recall@10",
        translator=TranslatorConfig(kind="linear", clamp=0.3, input_norm="none"),
        objective=ObjectiveConfig(kind="inverse_euclidean", settings={"margin_growth": 0.03}),
    )
    return apply_preset(preset, config)
