"""CLIP2CLAP's transformer on COCO captions: every coordinate of the CLIP vector is a token.

    c2c train --recipe transformer_coco:coco --workdir runs/transformer_coco

Without `:coco` it trains on the mini world. The settings are those of the author's `encoder2.py`: 8 post-norm layers of
width 96 with 8 heads and feed-forward layers of 96, the Euclidean distance as the loss, torch's dropout of 0.1, batch
32, AdamW with a learning rate of 1e-3. Uses the same captions as `linear2_coco`. Use an accelerator: the forward pass
over 512 tokens takes about 400 MFLOP per caption.
"""

from c2c_jax.config import Config, ObjectiveConfig, TranslatorConfig, apply_preset


def get_config(preset: str = "miniworld") -> Config:
    """Returns the config of the transformer translator; raises ConfigError if `preset` is not in DATASET_PRESETS."""
    config = Config(
        batch_size=32,
        steps_per_call=1,
        epochs=5,
        log_every=500,
        eval_every=5000,
        checkpoint_every=5000,
        select_by="recall@10",
        translator=TranslatorConfig(
            kind="transformer",
            input_norm="none",
            settings={"width": 96, "depth": 8, "heads": 8, "mlp_width": 96, "dropout": 0.1},
        ),
        objective=ObjectiveConfig(kind="l2"),
    )
    return apply_preset(preset, config)
