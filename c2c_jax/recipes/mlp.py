"""The CLIP2CLAP paper's model on Google Conceptual Captions: a 4-layer tanh MLP, inverse Euclidean objective.

    c2c train --recipe mlp:gcc --workdir runs/mlp

Without `:gcc` it trains on the mini world. The settings are those of CLIP2CLAP (Wong): batch 32, AdamW with a learning
rate of 1e-3, outputs clipped to ±0.2, raw CLIP vectors as inputs, seed 420, 5 epochs. Google's
`Train_GCC-training.tsv` must be in TFDS's folder for manual downloads; `--data tsv:PATH` reads any other file. The
captions are embedded once; an epoch of 3.3 million rows then takes about 104,000 small steps.
"""

from c2c_jax.config import Config, ObjectiveConfig, TranslatorConfig, apply_preset


def get_config(preset: str = "miniworld") -> Config:
    """Returns the config of the four-layer tanh MLP; raises ConfigError if `preset` is not in DATASET_PRESETS."""
    config = Config(
        batch_size=32,
        steps_per_call=100,
        epochs=5,
        log_every=500,
        eval_every=5000,
        checkpoint_every=5000,
        select_by="recall@10",
        translator=TranslatorConfig(clamp=0.2, input_norm="none"),
        objective=ObjectiveConfig(kind="inverse_euclidean", settings={"margin_growth": 0.03}),
    )
    return apply_preset(preset, config)
