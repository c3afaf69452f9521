"""A Procrustes rotation plus a GELU MLP, trained with InfoNCE: the best recipe for retrieving captions.

    c2c train --recipe residual:gcc --workdir runs/residual

Without `:gcc` it trains on the mini world. Unit inputs, batch 1024, a learned temperature; the rotation initialises a
trained linear layer. Uses the same captions as `mlp`.
"""

from c2c_jax.config import Config, ObjectiveConfig, TranslatorConfig, apply_preset


def get_config(preset: str = "miniworld") -> Config:
    """Returns the config of the residual translator; raises ConfigError if `preset` is not in DATASET_PRESETS."""
    config = Config(
        select_by="recall@10",
        translator=TranslatorConfig(kind="residual", input_norm="unit", settings={"width": 2048, "init": "procrustes"}),
        objective=ObjectiveConfig(kind="infonce", settings={"temperature": 0.07}),
    )
    return apply_preset(preset, config)
