"""The recommended recipe on the mini world, with 1,000 unlabelled images and a memory of 8,000 captions.

    c2c train --recipe miniworld --workdir runs/miniworld

The recipe `recommended` explains the settings. Embeds 50,000 captions and trains in about a minute on two cores.
"""

from c2c_jax.config import (
    AugmentConfig,
    Config,
    ImagesConfig,
    MemoryConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TranslatorConfig,
    apply_preset,
)


def get_config(preset: str = "miniworld") -> Config:
    """Returns the config of the mini world recipe; raises ConfigError if `preset` is not in DATASET_PRESETS."""
    config = Config(
        batch_size=512,
        steps=1500,
        log_every=100,
        eval_every=250,
        patience=3,
        adapt=True,
        translator=TranslatorConfig(kind="residual", settings={"width": 512, "depth": 3, "init": "procrustes"}),
        augment=AugmentConfig(noise_cosine=0.65),
        memory=MemoryConfig(size=8000, weight=0.45),
        images=ImagesConfig(files="miniworld:1000"),
        objective=ObjectiveConfig(kind="infonce", settings={"temperature": 0.07, "false_negative_threshold": 0.7}),
        optimizer=OptimizerConfig(decay="cosine", ema=0.999, weight_decay=1.0),
    )
    return apply_preset(preset, config)
