"""The recommended recipe: captions alone, and unlabelled pictures beside them. docs/recipe.md has the evidence.

    python train.py --config configs/recommended.py:gcc --config.pictures.files=photos/ --workdir runs/recommended

All vectors are centred by their modality's mean. A residual translator starts from the
Procrustes rotation and learns by InfoNCE from captions that are perturbed to a cosine of 0.65, so that it knows the
space around them, where pictures lie. At every validation it competes with the rotation, a ridge, and blends with them,
each with and without a memory of 100,000 captions, by `noisy_mrr`: held-out captions, perturbed until they are as far
from captions as `photos/` are, look for their own targets. The best is the bundle. `photos/` are some hundreds of
general, unlabelled pictures. Without `:gcc` it trains on the mini world. From 300 captions to millions: batches,
passes and held-out captions follow the number of captions.
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
        batch_size=512,
        min_steps=1500,
        eval_every=250,
        patience=20,
        adapt=True,
        translator=TranslatorConfig(kind="residual", width=512, depth=3, start="procrustes"),
        augment=AugmentConfig(noise=0.65),
        memory=MemoryConfig(captions=100_000, share=0.45),
        objective=ObjectiveConfig(kind="infonce", temperature=0.07, twin_cosine=0.7),
        optimizer=OptimizerConfig(decay="cosine", ema=0.999, weight_decay=1.0),
    )
    return trained_on(world, config)
