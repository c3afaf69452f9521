"""CLIP2CLAP's two-layer model on COCO captions: linear, tanh, linear.

    c2c train --recipe linear2_coco:coco --workdir runs/linear2_coco

Without `:coco` it trains on the mini world. The settings are those of the author's `linear2.py`: outputs clipped to
±0.3, batch 32, AdamW with a learning rate of 1e-3. COCO's captions must be prepared by TFDS with
`file_format="array_record"`; each of the five captions of an image is a row.
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
