"""The paper's 4-layer tanh MLP with symmetric InfoNCE, a learned temperature, unit inputs and large batches.

    c2c train --recipe mlp_infonce:gcc --workdir runs/mlp_infonce

Without `:gcc` it trains on the mini world. With batches of 1024, every caption has 1023 negatives. Uses the same
captions as `mlp`.
"""

from c2c_jax.config import Config, ObjectiveConfig, TranslatorConfig, apply_preset


def get_config(preset: str = "miniworld") -> Config:
    """Returns the config of the MLP trained with InfoNCE; raises ConfigError if `preset` is not in DATASET_PRESETS."""
    config = Config(
        select_by="recall@10",
        translator=TranslatorConfig(input_norm="unit"),
        objective=ObjectiveConfig(kind="infonce", settings={"temperature": 0.07}),
    )
    return apply_preset(preset, config)
