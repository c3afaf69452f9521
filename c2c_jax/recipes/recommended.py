"""The recommended recipe: trains on captions, with the help of unlabelled images.

    c2c train --recipe recommended:gcc --images photos/ --workdir runs/recommended

All vectors are centred by the mean of their modality. A residual translator is initialised with the Procrustes
rotation and trained with InfoNCE on captions that are perturbed to a cosine of 0.65, so that it learns the region
around captions, where images lie. At every validation it competes with a partial rotation, a ridge, their mean, and
blends with them, each with and without a memory of 100,000 captions. The best of these becomes the bundle. They are
compared by `noisy_mrr`: held-out captions are perturbed until they are as far from other captions as the images in
`photos/`, and each must retrieve its own target. If any sound of the right class will do, pass
`--config.select_by=noisy_cosine`.

`photos/` holds a few hundred general, unlabelled images. Without `:gcc` it trains on the mini world. The batch size
and the number of held-out captions adapt to the number of captions, from 300 to millions. The number of steps does not
(`--config.steps`; with 0 it follows from `--config.epochs`). A run ends early after three validations without
improvement (`--config.patience`). docs/recipe.md has results.
"""

from c2c_jax.config import (
    AugmentConfig,
    Config,
    MemoryConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TranslatorConfig,
    apply_preset,
)


def get_config(preset: str = "miniworld") -> Config:
    """Returns the config of the recommended recipe; raises ConfigError if `preset` is not in DATASET_PRESETS."""
    config = Config(
        batch_size=512,
        steps=1500,
        eval_every=250,
        patience=3,
        adapt=True,
        translator=TranslatorConfig(kind="residual", settings={"width": 512, "depth": 3, "init": "procrustes"}),
        augment=AugmentConfig(noise_cosine=0.65),
        memory=MemoryConfig(size=100_000, weight=0.45),
        objective=ObjectiveConfig(kind="infonce", settings={"temperature": 0.07, "false_negative_threshold": 0.7}),
        optimizer=OptimizerConfig(decay="cosine", ema=0.999, weight_decay=1.0),
    )
    return apply_preset(preset, config)
