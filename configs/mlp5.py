"""Five layers of linear and tanh with the inverse-Euclidean objective, as in CLIP2CLAP's code.

    python train.py --config configs/mlp5.py --workdir runs/mlp5

The author's `linear5.py`: the last layer ends in tanh too, outputs cut to ±0.25, batch 32, AdamW at 1e-3.
"""

from c2c_jax.config import Config, ObjectiveConfig, TranslatorConfig


def get_config() -> Config:
    return Config(
        batch_size=32,
        epochs=5,
        log_every=500,
        eval_every=5000,
        checkpoint_every=5000,
        translator=TranslatorConfig(kind="mlp5", clamp=0.25, input_norm="none"),
        objective=ObjectiveConfig(kind="inverse_euclidean", margin_growth=0.03),
    )
