"""The mini world's own recipe: a residual translator with an MLP of four layers, and noise on the captions' vectors.

    python train.py --config configs/miniworld.py --workdir runs/miniworld

CLIP's pictures lie in another cone than its texts, where a translator of clean captions has never been; vectors that
are turned to a cosine of 0.8 fill the space between. Embeds 50,000 captions and trains in under a minute on two cores.
"""

from c2c_jax.config import AugmentConfig, Config, ObjectiveConfig, OptimizerConfig, TranslatorConfig, trained_on


def get_config(world: str = "miniworld") -> Config:
    config = Config(
        batch_size=512,
        epochs=15,
        log_every=100,
        eval_every=250,
        select_by="recall@1",
        translator=TranslatorConfig(kind="residual", width=256, depth=4, start="procrustes"),
        augment=AugmentConfig(noise=0.8),
        objective=ObjectiveConfig(kind="infonce", temperature=0.07),
        optimizer=OptimizerConfig(decay="cosine", ema=0.99),
    )
    return trained_on(world, config)
