"""The recommended recipe: trained on captions alone, it carries pictures. docs/recipe.md has the evidence.

    python train.py --config configs/recommended.py:gcc --config.pictures.files=photos/ --workdir runs/recommended

A residual translator with an MLP of four layers; captions' vectors turned to a cosine of 0.8 in training, so that it
knows the space round them, where pictures lie; cosine distances to the targets; pictures brought over the modality gap
by the mean of those in `photos/`, some hundreds of any, unlabelled, and then turned towards the nearest of 100,000
captions that the bundle remembers. The same pictures choose the bundle. Without `:gcc` it trains on the mini world,
whose own sizes are in `configs/miniworld.py`; without pictures it corrects no mean and keeps the bundle that is best
by recall@10.
"""

from c2c_jax.config import (
    AugmentConfig,
    Config,
    MemoryConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TranslatorConfig,
    trained_on,
)


def get_config(world: str = "miniworld") -> Config:
    config = Config(
        translator=TranslatorConfig(kind="residual", width=1024, depth=4, start="procrustes"),
        augment=AugmentConfig(noise=0.8),
        memory=MemoryConfig(captions=100_000, share=0.45),
        objective=ObjectiveConfig(kind="cosine"),
        optimizer=OptimizerConfig(decay="cosine", ema=0.999),
    )
    return trained_on(world, config)
