"""Trains the diffusion network over latents, conditioned on CLAP vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from tools.pretrain.fit import fit
from tools.pretrain.vae import LATENTS

CHANNELS = (48, 64, 96)
BATCH, STEPS, LEARNING_RATE = 32, 12_000, 1e-3
UNCONDITIONED = 0.1  # fraction of rows with the vector of an empty or negative prompt, for guidance
FROM_TEXT = 0.3  # fraction of rows with the vector of their caption instead of their sound
NOISE_LEVELS = {
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
}


def new_unet(dim: int) -> Any:
    return UNet2DConditionModel(
        in_channels=LATENTS,
        out_channels=LATENTS,
        sample_size=32,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        cross_attention_dim=CHANNELS,  # no cross-attention: both attentions of a block are self-attention
        attention_head_dim=4,
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        class_embed_type="simple_projection",
        class_embeddings_concat=True,
        projection_class_embeddings_input_dim=dim,
    )


def train_unet(
    latents: np.ndarray, audio_NE: np.ndarray, text_NE: np.ndarray, negative_KE: np.ndarray, folder: Path, scale: float,
    steps: int = STEPS,
) -> tuple[Any, float]:  # fmt: skip
    """Trains the network; returns it and the minutes taken.

    latents: unscaled means [N, C, T', M'], without the noise of the posterior. audio_NE, text_NE: unit vectors of each
    sound and its caption. negative_KE: vectors of empty and negative prompts, for unconditioned rows.
    """
    noises: Any = DDPMScheduler(
        **{key: value for key, value in NOISE_LEVELS.items() if key.startswith(("beta", "pred"))}
    )
    levels = noises.config.num_train_timesteps

    def loss_of(unet: Any, step: int) -> torch.Tensor:
        rng = np.random.default_rng(step)
        rows = rng.integers(len(latents), size=BATCH)
        clean = torch.from_numpy(scale * latents[rows])
        random_B1 = rng.random((BATCH, 1))
        vectors = np.where(random_B1 < FROM_TEXT, text_NE[rows], audio_NE[rows])
        vectors = np.where(
            random_B1 > 1 - UNCONDITIONED, negative_KE[rng.integers(len(negative_KE), size=BATCH)], vectors
        )
        noise = torch.from_numpy(rng.normal(size=clean.shape).astype(np.float32))
        # Evenly spaced levels reduce the variance of the loss.
        level = torch.from_numpy((levels * ((rng.random() + np.arange(BATCH) / BATCH) % 1)).astype(np.int64))
        noisy = noises.add_noise(clean, noise, level)
        predicted = unet(noisy, level, None, class_labels=torch.from_numpy(vectors.astype(np.float32))).sample
        return torch.nn.functional.mse_loss(predicted, noises.get_velocity(clean, noise, level))

    unet = new_unet(audio_NE.shape[1])
    unet.class_embedding.weight.data *= audio_NE.shape[1] ** 0.5  # its input has unit length
    return fit(unet, loss_of, folder / "unet.pt", steps=steps, learning_rate=LEARNING_RATE, ema=0.9995)
