"""AudioLDM: sound out of one CLAP vector, and sound files."""

import contextlib
import logging
import math
import pickle
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers.utils.logging
from diffusers import AudioLDMPipeline, AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float
from safetensors import SafetensorError
from transformers import ClapTextModelWithProjection, RobertaTokenizer, SpeechT5HifiGan

from c2c_jax.errors import CheckpointError, GenerationError, one_line
from c2c_jax.files import written_whole
from c2c_jax.weights.folders import read_json

CONFIGS = (
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
    "vocoder/config.json",
)
# What diffusers and transformers raise over damaged or foreign files.
LOADING_ERRORS = (OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError, struct.error)
MAX_SEED = 2**63 - 1
LONGEST = 600  # seconds of sound: memory grows with its square, and the model was trained on ten
# Buffers that old files carry and today's classes make themselves.
BUFFERS = r".*(?:position_ids|token_type_ids|num_batches_tracked)"

# Logger and pattern of its messages. The first is known; the others come again as this module's CheckpointError. What
# the libraries say of weights in the files that no module takes is not silenced.
SILENCED = {
    "diffusers.pipelines.pipeline_utils": "AudioLDMPipeline has been deprecated",
    "diffusers.models.modeling_utils": "newly initialized",
    "transformers.modeling_utils": "MISSING|MISMATCH",
}


class AudioLDM:
    """A latent-diffusion sound generator conditioned on one CLAP vector (AudioLDM, Liu et al. 2023).

    sample_rate: of the sound, in Hz. dim: width E of the CLAP vectors it takes.
    """

    def __init__(self, pipeline: Any):
        self.sample_rate: int = pipeline.vocoder.config.sampling_rate
        self.dim: int = pipeline.unet.config.projection_class_embeddings_input_dim
        # tqdm takes None as: a bar only where stderr is a terminal.
        pipeline.set_progress_bar_config(disable=None)
        self._pipeline = pipeline

    @classmethod
    def load(cls, folder: Path, *, device: str | None = None) -> "AudioLDM":
        """Loads a local AudioLDM folder in diffusers' layout, in float32, on `device` (None: cuda if there is one).

        Raises CheckpointError where parts or weights are missing, damaged or another model's, GenerationError for a
        device that torch cannot use.
        """
        check_layout(folder)
        with quiet_loading():
            pipeline: Any = AudioLDMPipeline(
                vae=load_model(AutoencoderKL, folder / "vae", low_cpu_mem_usage=False),
                text_encoder=load_model(ClapTextModelWithProjection, folder / "text_encoder"),
                tokenizer=load_part(RobertaTokenizer, folder / "tokenizer"),
                unet=load_model(UNet2DConditionModel, folder / "unet", low_cpu_mem_usage=False),
                scheduler=load_part(DDIMScheduler, folder / "scheduler"),
                vocoder=load_model(SpeechT5HifiGan, folder / "vocoder"),
            )
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            pipeline.to(device)
        except (RuntimeError, AssertionError) as error:
            raise GenerationError(f"torch cannot use device {device!r} ({one_line(error)}): use cpu") from error
        return cls(pipeline)

    def generate(
        self,
        clap_BE: Float[np.ndarray, "B E"],
        *,
        steps: int = 200,
        seconds: float = 10.0,
        guidance: float = 7.5,
        negative_prompt: str = "Low quality",
        seed: int = 0,
    ) -> Float[np.ndarray, "B samples"]:
        """Samples one clip of `seconds` per CLAP vector, float32 in -1..1; vectors of any length count by direction.

        steps: of DDIM. guidance: weight of classifier-free guidance away from `negative_prompt`, off at 1 or below.
        Clip i starts from noise of seed + i, so it is the same alone and in a batch. Raises GenerationError for values
        outside of what the model can do, and for sound that is not finite.
        """
        pipeline = self._pipeline
        prompt_BE = self._unit_vectors(clap_BE)
        self.check(steps=steps, seconds=seconds, guidance=guidance, seed=seed)
        hop_length = math.prod(pipeline.vocoder.config.upsample_rates)
        samples = round(seconds * self.sample_rate)
        # The pipeline rounds seconds down to frames (0.29 s to 28 of 29): ask for half a frame more, and cut.
        asked = (math.ceil(samples / hop_length) + 0.5) * hop_length / self.sample_rate
        negative_BE = self._negative(negative_prompt).expand_as(prompt_BE) if guidance > 1 else None
        audio = pipeline(
            prompt_embeds=prompt_BE,
            negative_prompt_embeds=negative_BE,
            audio_length_in_s=asked,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed + i) for i in range(len(prompt_BE))],
        ).audios[:, :samples]
        if not np.isfinite(audio).all():
            raise GenerationError(f"the sound is not finite at steps {steps} and guidance {guidance}: try other values")
        return audio

    def check(self, *, steps: int, seconds: float, guidance: float, seed: int) -> None:
        """Raises GenerationError for settings of `generate` outside of what the model can do."""
        schedule = self._pipeline.scheduler.config
        # With more, the schedule's first step would lie behind its last noise level.
        most = schedule.num_train_timesteps - schedule.steps_offset
        if not 1 <= steps <= most:
            raise GenerationError(f"steps is {steps}: take 1 to {most}")
        if not 0 <= seed <= MAX_SEED:
            raise GenerationError(f"seed is {seed}: take 0 to {MAX_SEED}")
        if not math.isfinite(guidance):
            raise GenerationError(f"guidance is {guidance}: take a finite number, 1 or less for none")
        shortest = math.prod(self._pipeline.vocoder.config.upsample_rates) * self._pipeline.vae_scale_factor
        if not (math.isfinite(seconds) and shortest <= round(seconds * self.sample_rate) <= LONGEST * self.sample_rate):
            raise GenerationError(f"seconds is {seconds}: take {shortest / self.sample_rate} to {LONGEST}")

    def _unit_vectors(self, clap_BE: np.ndarray) -> torch.Tensor:
        """Unit vectors as torch has them; GenerationError for a wrong shape or vectors that have no direction."""
        if clap_BE.shape[1:] != (self.dim,) or len(clap_BE) == 0:
            raise GenerationError(f"expected CLAP vectors of shape (B, {self.dim}), found {clap_BE.shape}")
        lengths_B = np.linalg.norm(clap_BE.astype(np.float64), axis=1)
        bad = np.flatnonzero(~np.isfinite(lengths_B) | (lengths_B == 0))
        if bad.size:
            raise GenerationError(f"CLAP vector {bad[0]} is zero or not finite: make it anew from its picture or text")
        return torch.from_numpy((clap_BE / lengths_B[:, None]).astype(np.float32))

    @torch.no_grad()
    def _negative(self, prompt: str) -> torch.Tensor:
        """The unit CLAP vector [1, E] of a text, by the checkpoint's own text tower."""
        tower, tokenizer = self._pipeline.text_encoder, self._pipeline.tokenizer
        # RoBERTa counts positions from pad_token_id + 1.
        longest = tower.config.max_position_embeddings - tower.config.pad_token_id - 1
        tokens = tokenizer(
            [prompt], truncation=True, max_length=min(longest, tokenizer.model_max_length), return_tensors="pt"
        ).to(tower.device)
        return torch.nn.functional.normalize(tower(**tokens).text_embeds, dim=-1).cpu()


def write_wav(path: str | Path, samples: Float[np.ndarray, " samples"], sample_rate: int) -> None:
    """Writes mono sound in -1..1 as a 16-bit PCM wav, whole or not at all; louder samples are clipped.

    Raises GenerationError where the file cannot be written.
    """
    try:
        with written_whole(Path(path)) as beside:
            soundfile.write(beside, samples, sample_rate, subtype="PCM_16", format="WAV")
    except (OSError, soundfile.LibsndfileError) as error:
        raise GenerationError(f"{path} cannot be written ({one_line(error)}): choose another place") from error


def check_layout(folder: Path) -> None:
    """Raises CheckpointError unless a folder holds every part of AudioLDM, by the names of its files."""
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}: download cvssp/audioldm-s-full-v2 and name its folder")
    files = ["model_index.json", *CONFIGS]
    # Without its words the tokenizer would load all the same, and turn every text into nothing.
    if not (folder / "tokenizer/tokenizer.json").is_file():
        files += ["tokenizer/vocab.json", "tokenizer/merges.txt"]
    missing = [name for name in files if not (folder / name).is_file()]
    for part in ("text_encoder", "unet", "vae", "vocoder"):
        if not any((folder / part).glob("*.safetensors")) and not any((folder / part).glob("*.bin")):
            missing.append(f"weights of {part}")
    if missing:
        raise CheckpointError(f"{folder} is no whole AudioLDM checkpoint, it lacks {', '.join(missing)}: fetch these")
    for name in CONFIGS:
        read_json(folder / name)
    index = read_json(folder / "model_index.json")
    for key, expected in (("_class_name", "AudioLDMPipeline"), ("scheduler", ["diffusers", "DDIMScheduler"])):
        if index.get(key) != expected:
            raise CheckpointError(f"{folder}/model_index.json has {key} {index.get(key)}: expected {expected}")


def load_model(kind: Any, folder: Path, **options: Any) -> torch.nn.Module:
    """Loads one network in float32, safetensors before .bin, every tensor from the files."""
    model, report = load_part(
        kind,
        folder,
        use_safetensors=any(folder.glob("*.safetensors")),
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # reported below with the rest
        output_loading_info=True,
        **options,
    )
    unfilled = [*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])]
    if unfilled:
        raise CheckpointError(
            f"{folder} lacks {len(unfilled)} weights or has them in other shapes ({sorted(unfilled)[0]}): fetch it anew"
        )
    extra = [key for key in report["unexpected_keys"] if not re.fullmatch(BUFFERS, key)]
    if extra:
        raise CheckpointError(
            f"{folder} has {len(extra)} weights that {kind.__name__} knows nothing of ({sorted(extra)[0]}): "
            "it is of another model; fetch it anew"
        )
    return model


def load_part(kind: Any, folder: Path, **options: Any) -> Any:
    """`from_pretrained` of diffusers and transformers from local files, with their errors in one line."""
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except pickle.UnpicklingError as error:  # torch's own message advises to trust the file
        raise CheckpointError(f"{folder} has a .bin file that holds more than tensors: take safetensors") from error
    except LOADING_ERRORS as error:
        raise CheckpointError(f"{folder} cannot be loaded ({one_line(error)}): fetch it anew") from error


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Keeps the messages of SILENCED and transformers' bar of loaded weights off the terminal."""

    def unknown(record: logging.LogRecord) -> bool:
        return re.search(SILENCED[record.name], record.getMessage()) is None

    for name in SILENCED:
        logging.getLogger(name).addFilter(unknown)
    hook = transformers.utils.logging.set_tqdm_hook(
        lambda bar, args, kwargs: bar(*args, **{**kwargs, "disable": True}),
    )
    try:
        yield
    finally:
        transformers.utils.logging.set_tqdm_hook(hook)
        for name in SILENCED:
            logging.getLogger(name).removeFilter(unknown)
