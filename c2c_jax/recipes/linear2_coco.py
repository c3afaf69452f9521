"""CLIP2CLAP's two-layer model on COCO captions: linear, tanh, linear.

    python train.py --config configs/linear2_coco.py:coco --workdir runs/linear2_coco

Without `:coco` it trains on the mini world. The author's `linear2.py`: outputs cut to ±0.3, batch 32, AdamW at 1e-3.
Expects COCO's captions as TFDS prepares them with `file_format="array_record"`; each of a picture's five captions is a
row.
"""

from c2c_jax.config import Config, ObjectiveConfig, TranslatorConfig, apply_preset


def get_config(preset: str = "miniworld") -> Config:
    """Returns the config of the two-layer tanh translator; raises ConfigError if `preset` is not in DATASET_PRESETS."""
    config = Config(
        batch_size=32,
        steps_per_call=100,
        epochs=10,
        log_every=500,
        eval_every=5000,
        checkpoint_every=5000,
        select_by="recall@10",
        translator=TranslatorConfig(kind="linear2", clamp=0.3, input_norm="none"),
        objective=ObjectiveConfig(kind="inverse_euclidean", settings={"margin_growth": 0.03}),
    )
    return apply_preset(preset, config)
