"""Trains the mini world's AudioLDM: an autoencoder and a diffusion network, conditioned on the mini world's CLAP.

The networks are those of diffusers, trained in torch. The CLAP also scores the generated sounds.
"""

import copy
import dataclasses
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from jaxtyping import Float, Int, Int16
from rich.progress import track

from c2c_jax.generation.audioldm import AudioLDM
from c2c_jax.generation.checkpoint import quiet_loading
from c2c_jax.generation.griffin_lim import GriffinLim
from c2c_jax.generation.sampling import SAMPLING_FILE, Sampling
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.json import read_json
from c2c_jax.miniworld.captions import caption
from c2c_jax.miniworld.pairs import audio_at
from c2c_jax.spaces.space import Space, load_space
from tools.pretrain.spectra import SAMPLE_RATE, SAMPLES, log_mel
from tools.pretrain.texts import prompt_vectors
from tools.pretrain.towers import zero_shot
from tools.pretrain.unet import NOISE_LEVELS, train_unet
from tools.pretrain.vae import LATENTS, decoded, encoded, train_vae
from tools.pretrain.views import SceneViews, scene_views

TRAINING_SIZE, EVALUATION_SIZE = 24_000, 576  # sounds
BATCH = 32  # of generation
STAGES = ("sounds", "vocoder", "vae", "from_sound", "from_text")  # at which sounds are scored, see `cards.MEANINGS`
# The default sampling settings of the checkpoint.
SAMPLING: dict[str, Any] = {"seconds": SAMPLES / SAMPLE_RATE, "guidance": 2.5, "steps": 25}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training settings. steps: of the diffusion network. seed: only names the folder."""

    steps: int = 12_000
    vae_steps: int = 9000
    seed: int = 0


RECIPE = Recipe()


@dataclasses.dataclass(kw_only=True)
class ClapScorer:
    """Encodes and scores sounds with the mini world's CLAP. prompts_CE: mean unit vectors of the sound-style prompts of
    each cell [C = 288, E]."""

    space: Space
    prompts_CE: Float[np.ndarray, "C E"]

    @classmethod
    def load(cls, name: str) -> "ClapScorer":
        space = load_space(name)
        return cls(space=space, prompts_CE=prompt_vectors(space, "sound"))

    def vectors(self, audio_NS: Float[np.ndarray, "N samples"]) -> Float[np.ndarray, "N E"]:
        """Encodes sounds in -1..1 as unit vectors."""
        vectors = self.space.encode_audio(list(audio_NS.astype(np.float32)), batch_size=64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "N E"]:
        vectors = self.space.encode_text(texts)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def accuracies(
        self, audio_NS: Float[np.ndarray, "N samples"], cells_N: Int[np.ndarray, "N"]
    ) -> tuple[float, float]:
        """Returns the fractions of sounds whose nearest prompt has the right source, and the right cell."""
        accuracy = zero_shot(self.vectors(audio_NS), self.prompts_CE, cells_N)
        return accuracy["source"], accuracy["cell"]


@dataclasses.dataclass(kw_only=True)
class Networks:
    """The networks of an AudioLDM, with weights rounded to float16, the dtype of the saved files.

    vae: AutoencoderKL. unet: UNet2DConditionModel. clap: folder of the CLAP.
    """

    vae: Any
    unet: Any
    clap: Path
    vocoder: Any = dataclasses.field(default_factory=GriffinLim)

    def __post_init__(self) -> None:
        for network in (self.vae, self.unet, self.vocoder):
            network.half().float()

    def save(self, folder: Path) -> None:
        """Writes an AudioLDMPipeline in diffusers' layout, in float16, and its sampling settings."""
        with quiet_loading():
            tokenizer = transformers.RobertaTokenizer.from_pretrained(
                self.clap, local_files_only=True, trust_remote_code=False
            )
            text_encoder = transformers.ClapTextModelWithProjection.from_pretrained(
                self.clap, local_files_only=True, trust_remote_code=False
            )
            scheduler = diffusers.DDIMScheduler(**NOISE_LEVELS)
            vae, unet, vocoder = (copy.deepcopy(network) for network in (self.vae, self.unet, self.vocoder))
            pipeline: Any = diffusers.AudioLDMPipeline(vae, text_encoder, tokenizer, unet, scheduler, vocoder)
            pipeline.to(dtype=torch.float16)
        with atomic_write(folder) as temp:
            pipeline.save_pretrained(temp)
            # transformers would load the dtype named in the config, diffusers float32: they must agree.
            config = temp / "text_encoder" / "config.json"
            fields = read_json(config) | {"dtype": "float32"}
            config.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
            (temp / SAMPLING_FILE).write_text(json.dumps(SAMPLING, indent=2) + "\n", encoding="utf-8")


def view(split: str, index: int, seed: int) -> Int16[np.ndarray, "samples"]:
    """Synthesises the sound of a scene, as int16."""
    return np.round(audio_at(split, index, seed) * 32767).astype(np.int16)


def train(workdir: Path, recipe: Recipe, processes: int, clap: Path) -> tuple[Networks, dict[str, float], float]:
    """Trains the networks; returns them, their test scores and the minutes taken. clap: folder of the CLAP."""
    folder = workdir / f"audioldm-{recipe.seed}"
    training = scene_views(workdir / "material", "sounds", view, "train", TRAINING_SIZE, 0, processes)
    mels = log_mels(training.views)
    vae, vae_minutes = train_vae(mels, folder, recipe.vae_steps)
    scorer = ClapScorer.load(str(clap))
    unet, unet_minutes = train_unet(
        encoded(vae, mels)[:, :LATENTS],
        scorer.vectors(_floats(training.views)),
        scorer.texts(captions_of(training)),
        scorer.texts(["", Sampling().negative_prompt]),
        folder,
        vae.config.scaling_factor,
        recipe.steps,
    )
    networks = Networks(vae=vae, unet=unet, clap=clap)
    evaluation = scene_views(workdir / "material", "sounds", view, "test", EVALUATION_SIZE, 0, processes)
    return networks, scores(networks, evaluation, scorer), vae_minutes + unet_minutes


@torch.inference_mode()
def scores(
    networks: Networks, evaluation: SceneViews, scorer: ClapScorer, stages: Collection[str] = STAGES
) -> dict[str, float]:
    """Scores sounds at each of `stages`; see `cards.MEANINGS`."""
    mels = log_mels(evaluation.views)
    generator = AudioLDM(
        unet=networks.unet, vae=networks.vae, vocoder=networks.vocoder, noise_levels=dict(NOISE_LEVELS)
    )
    negative_E = scorer.texts([Sampling().negative_prompt])[0]

    def generate(vectors_NE: np.ndarray) -> np.ndarray:
        parts = []
        for start in track(range(0, len(vectors_NE), BATCH), "scoring", transient=True):
            part = vectors_NE[start : start + BATCH]
            seeds = range(start, start + len(part))
            sampling = Sampling(**SAMPLING)
            parts.append(generator.generate(part, sampling, seeds=list(seeds), negative_E=negative_E))
        return np.concatenate(parts)

    by_stage: dict[str, Callable[[], np.ndarray]] = {
        "sounds": lambda: _floats(evaluation.views),
        "vocoder": lambda: vocode(mels, networks.vocoder),
        "vae": lambda: vocode(decoded(networks.vae, encoded(networks.vae, mels)[:, :LATENTS]), networks.vocoder),
        "from_sound": lambda: generate(scorer.vectors(_floats(evaluation.views))),
        "from_text": lambda: generate(scorer.texts(captions_of(evaluation))),
    }
    accuracy = {stage: scorer.accuracies(by_stage[stage](), evaluation.cells) for stage in stages}
    return {
        f"{stage}_{name}": value
        for stage, values in accuracy.items()
        for name, value in zip(("source", "cell"), values, strict=True)
    }


def log_mels(audio_NS: Int16[np.ndarray, "N samples"], batch_size: int = 256) -> Float[np.ndarray, "N T M"]:
    """Computes float16 log mels of int16 sounds, in batches."""
    parts = [
        log_mel(torch.from_numpy(_floats(audio_NS[start : start + batch_size]))).numpy()
        for start in range(0, len(audio_NS), batch_size)
    ]
    return np.concatenate(parts).astype(np.float16)


@torch.inference_mode()
def vocode(
    mels_NTM: Float[np.ndarray, "N T M"], vocoder: Callable, batch_size: int = 64
) -> Float[np.ndarray, "N samples"]:
    """Converts log mels to sounds with a vocoder, in batches."""
    parts = [
        vocoder(torch.from_numpy(mels_NTM[start : start + batch_size].astype(np.float32))).numpy()
        for start in range(0, len(mels_NTM), batch_size)
    ]
    return np.concatenate(parts)


def captions_of(sounds: SceneViews, seed: int = 0) -> list[str]:
    """Generates a caption in sound style for each scene."""
    rng = np.random.default_rng(seed)
    return [caption(scene, "sound", rng) for scene in sounds.scenes]


def _floats(audio_NS: Int16[np.ndarray, "N samples"]) -> Float[np.ndarray, "N samples"]:
    return np.asarray(audio_NS, np.float32) / 32767
