"""Hugging Face CLAP text checkpoints ↔ `models.clap_text.ClapTextModelWithProjection`.

Two kinds of folder hold the tower: AudioLDM's `text_encoder` (a ClapTextModelWithProjection) and a whole ClapModel
such as `laion/clap-htsat-unfused`, of which the audio tower is passed over.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from c2c_jax.models.clap_text import ClapTextConfig, ClapTextModelWithProjection
from c2c_jax.weights.folders import sizes_from
from c2c_jax.weights.rules import LINEAR, Table, leaf


def _buffers(config: Any) -> Mapping[str, np.ndarray]:
    positions = np.arange(config.max_position_embeddings, dtype=np.int64)[None]
    return {
        "text_model.embeddings.position_ids": positions,
        "text_model.embeddings.token_type_ids": np.zeros_like(positions),
    }


TABLE = Table(
    rules=(
        leaf(r"[\w.]+_embeddings", "weight", "embedding"),
        leaf(r"[\w.]+\.LayerNorm", "weight", "scale"),
        leaf(r"[\w.]+\.(?:query|key|value|dense|linear1|linear2)", "weight", "kernel", LINEAR),
        leaf(r"[\w.]+", "bias", "bias"),
    ),
    ignored=(
        r"text_model\.embeddings\.(?:position_ids|token_type_ids)",
        r"audio_model\..+",
        r"audio_projection\..+",
        r"logit_scale_[at]",
    ),
    constants=_buffers,
)


def build(config: Any) -> ClapTextModelWithProjection:
    """The module for a transformers ClapTextConfig, with initial weights."""
    return ClapTextModelWithProjection(sizes_from(ClapTextConfig, config), rngs=nnx.Rngs(0))
