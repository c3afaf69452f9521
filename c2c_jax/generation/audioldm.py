"""AudioLDM (Liu et al. 2023): samples sound from CLAP vectors, with the networks of diffusers and transformers."""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from transformers import ClapTextModelWithProjection, SpeechT5HifiGan

from c2c_jax.errors import CheckpointError, GenerationError, one_line
from c2c_jax.generation.checkpoint import check_layout, check_text, load_model, quiet_loading
from c2c_jax.generation.configs import (
    GriffinLimBounds,
    SchedulerBounds,
    UNetBounds,
    VAEBounds,
    VocoderBounds,
    check_fields,
)
from c2c_jax.generation.griffin_lim import GriffinLim
from c2c_jax.generation.sampling import DTYPES, LONGEST, Sampling
from c2c_jax.io.json import read_json
from c2c_jax.spaces.weights.folders import checkpoint_folder
from c2c_jax.spaces.weights.tokenizers import read_tokenizer

# Noise levels by Karras et al. 2022, down to the last that the model was trained on, as in DDIM.
_KARRAS = {"timestep_spacing": "linspace", "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}
# diffusers' classes by name, and the fields that replace those of the checkpoint's scheduler_config.json.
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2, **_KARRAS}),
    "unipc": (UniPCMultistepScheduler, _KARRAS),
    "ddim": (DDIMScheduler, {}),
}

# (vectors [B, E]) of numpy, JAX or torch, on any device and in any float dtype
Vectors = Float[Any, "B E"]


def build_scheduler(name: str, noise_levels: dict[str, Any]) -> Any:
    """diffusers' scheduler of that name with a checkpoint's noise levels, the content of a scheduler_config.json.
    Raises CheckpointError for noise levels that it cannot use."""
    kind, options = SCHEDULERS[name]
    known = {field for other, _ in SCHEDULERS.values() for field in inspect.signature(other.__init__).parameters}
    config = {key: value for key, value in noise_levels.items() if key in known}  # diffusers warns of other fields
    try:
        check_fields(config, SchedulerBounds, kind)
        scheduler = kind.from_config({**config, **options})
        if not ((scheduler.alphas_cumprod > 0) & (scheduler.alphas_cumprod <= 1)).all():
            raise ValueError("its noise levels do not lie between 0 and 1")
        tried = kind.from_config({**config, **options})
        tried.set_timesteps(2)
        tried.step(torch.zeros(1, 1, 2, 2), tried.timesteps[0], torch.zeros(1, 1, 2, 2))
    except Exception as error:  # diffusers checks its arguments little, and raises exceptions of all kinds
        raise CheckpointError(
            f"scheduler_config.json does not describe a {name} schedule ({one_line(error)}): fetch it again"
        ) from None
    return scheduler


def _require_one_model(unet: Any, vae: Any, vocoder: Any, folder: Path) -> None:
    """Raises CheckpointError unless each network takes what the one before it makes, by their configs."""
    latents = {vae.config.latent_channels, unet.config.in_channels, unet.config.out_channels}
    mels, scale = vocoder.config.model_in_dim, 2 ** (len(vae.config.block_out_channels) - 1)
    if unet.config.class_embed_type is None:
        why = "the unet takes no CLAP vector: its class_embed_type is null"
    elif len(latents) > 1:
        why = f"latents have {' and '.join(map(str, sorted(latents)))} channels"
    elif vae.config.out_channels != 1 or mels % scale:
        why = f"the vae makes {vae.config.out_channels} channels of a multiple of {scale} mels, not {mels} mels"
    else:
        return
    raise CheckpointError(
        f"the networks in {folder} do not fit each other by their config.json ({why}): fetch them again"
    )


class TextTower(NamedTuple):
    """transformers' tokenizer and ClapTextModelWithProjection."""

    tokenizer: Any
    model: Any


class AudioLDM:
    """A latent-diffusion sound generator conditioned on one CLAP vector.

    sample_rate: of the sound, in Hz. dim: width E of the CLAP vectors it takes. device: torch's.
    """

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        vocoder: Any,
        noise_levels: dict[str, Any],
        load_text: Callable[[], TextTower] | None = None,
        device: str = "cpu",
        offload: bool = False,
    ):
        """unet, vae, vocoder: diffusers' UNet2DConditionModel and AutoencoderKL, transformers' SpeechT5HifiGan or our
        GriffinLim, in one dtype. noise_levels: a scheduler's config. load_text: called when the first text is to be
        encoded; None: only vectors are accepted. offload: each part is on `device` only while it works, else in main
        memory."""
        self.sample_rate: int = vocoder.config.sampling_rate
        self.dim: int = unet.config.projection_class_embeddings_input_dim
        self._unet, self._vae, self._vocoder = unet, vae, vocoder
        self._noise_levels = noise_levels
        self._text = functools.cache(load_text) if load_text else None
        self._offload = offload
        self._vae_scale = 2 ** (len(vae.config.block_out_channels) - 1)
        self._hop_length = math.prod(vocoder.config.upsample_rates)
        try:
            self.device = torch.device(device)
            torch.zeros(1, device=self.device).item()  # fails for the device "meta"
            if not offload:
                for part in (unet, vae, vocoder):
                    part.to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise GenerationError(f"torch cannot use device {device!r} ({one_line(error)}): use cpu") from error

    @classmethod
    def load(
        cls, name: str | Path, *, device: str | None = None, dtype: str = "float32", offload: bool = False
    ) -> "AudioLDM":
        """Loads AudioLDM in diffusers' layout, a local folder or a hub name, on `device` (None: cuda if there is one).

        The text tower is loaded when the first text is encoded, and may be missing. Raises CheckpointError if parts or
        weights are missing, damaged or of another model, GenerationError for a device that torch cannot use.
        """
        folder = checkpoint_folder(str(name))
        check_layout(folder)
        if dtype not in DTYPES:
            raise GenerationError(f"dtype must be one of {', '.join(DTYPES)}, found {dtype!r}")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if dtype == "float16" and device.startswith("cpu"):
            raise GenerationError("float16 is for GPUs: take float32 or bfloat16 on a CPU")
        torch_dtype = getattr(torch, dtype)
        with quiet_loading():
            noise_levels = read_json(folder / "scheduler/scheduler_config.json")
            build_scheduler("ddim", noise_levels)
            is_griffin_lim = read_json(folder / "vocoder/config.json").get("_class_name") == GriffinLim.__name__
            kind, bounds = (GriffinLim, GriffinLimBounds) if is_griffin_lim else (SpeechT5HifiGan, VocoderBounds)
            vocoder = load_model(kind, folder / "vocoder", torch_dtype, bounds)
            unet = load_model(UNet2DConditionModel, folder / "unet", torch_dtype, UNetBounds)
            vae = load_model(AutoencoderKL, folder / "vae", torch_dtype, VAEBounds)
            _require_one_model(unet, vae, vocoder, folder)
            return cls(
                unet=unet,
                vae=vae,
                vocoder=vocoder,
                noise_levels=noise_levels,
                load_text=functools.partial(load_text_tower, folder),
                device=device,
                offload=offload,
            )

    @torch.inference_mode()
    def generate(
        self,
        clap_BE: Vectors,
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        negative_E: Float[np.ndarray, "E"] | None = None,
        on_step: Callable[[], None] = lambda: None,
    ) -> Float[np.ndarray, "B samples"]:
        """Samples one clip per CLAP vector, float32 in -1..1; vectors of any length count by direction.

        seeds: of each clip's initial noise, so that a clip is the same alone and in a batch; `sampling.seed` and
        `sampling.candidates` are not used. negative_E: the CLAP vector that guidance leads away from; None: that of the
        negative prompt, for which the text tower is loaded. on_step: called after each step. Raises GenerationError for
        settings that the model cannot take, and for sound that is not finite.
        """
        prompt_BE = self._unit_vectors(clap_BE)
        self.check(sampling)
        B = len(prompt_BE)
        if len(seeds) != B:
            raise GenerationError(f"{B} vectors and {len(seeds)} seeds: give a seed for each vector")
        guided = sampling.guidance > 1
        if guided:
            if negative_E is None:
                negative_E = self.encode_text([sampling.negative_prompt])[0]
            # The first half of the UNet's batch is unwanted, the second wanted.
            prompt_BE = torch.cat([self._unit_vectors(negative_E[None]).expand(B, -1), prompt_BE])
        dtype = self._unet.dtype
        prompt_BE = prompt_BE.to(self.device, dtype)

        samples = round(sampling.seconds * self.sample_rate)
        frames = math.ceil(samples / self._hop_length)
        rows = math.ceil(frames / self._vae_scale)
        columns = self._vocoder.config.model_in_dim // self._vae_scale
        scheduler = build_scheduler(sampling.scheduler, self._noise_levels)
        scheduler.set_timesteps(sampling.number_of_steps, device=self.device)
        latents = randn_tensor(
            (B, self._unet.config.in_channels, rows, columns),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            device=self.device,
            dtype=dtype,
        )
        latents = latents * scheduler.init_noise_sigma
        with self._at_work(self._unet):
            for time in scheduler.timesteps:
                noisy = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, time)
                noise = self._unet(noisy, time, encoder_hidden_states=None, class_labels=prompt_BE).sample
                if guided:
                    unwanted, wanted = noise.chunk(2)
                    noise = unwanted + sampling.guidance * (wanted - unwanted)
                latents = scheduler.step(noise, time, latents).prev_sample
                on_step()
        with self._at_work(self._vae):
            mels = self._vae.decode(1 / self._vae.config.scaling_factor * latents).sample.squeeze(1)
        with self._at_work(self._vocoder):
            audio = self._vocoder(mels)[:, :samples].float().cpu().numpy()
        if not np.isfinite(audio).all():
            half = dtype != torch.float32
            advice = "take float32, or bfloat16 where it was float16" if half else "take other values"
            raise GenerationError(
                f"the sound is not finite in {str(dtype).removeprefix('torch.')} with {sampling.number_of_steps} steps "
                f"and guidance {sampling.guidance}: {advice}"
            )
        return audio

    def check(self, sampling: Sampling) -> None:
        """Raises GenerationError for settings that the model cannot take."""
        sampling.check()
        config = build_scheduler(sampling.scheduler, self._noise_levels).config
        # With more, the schedule's first step would lie behind its last noise level.
        most = config.num_train_timesteps - config.get("steps_offset", 0)
        if sampling.number_of_steps > most:
            raise GenerationError(f"steps must be from 1 to {most}, found {sampling.steps}")
        shortest = self._hop_length * self._vae_scale
        if round(sampling.seconds * self.sample_rate) < shortest:
            raise GenerationError(
                f"seconds must be from {shortest / self.sample_rate} to {LONGEST}, found {sampling.seconds}"
            )

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "B E"]:
        """Unit CLAP vectors of texts, by the checkpoint's own text tower. Raises CheckpointError if it has none."""
        if self._text is None:
            raise CheckpointError("this generator was made without a text tower: give it vectors, or guidance 1")
        tokenizer, tower = self._text()
        # RoBERTa counts positions from pad_token_id + 1.
        longest = tower.config.max_position_embeddings - tower.config.pad_token_id - 1
        if len(tokenizer) > tower.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {len(tokenizer)} tokens, its text tower {tower.config.vocab_size}: they belong to "
                "different models; fetch both again"
            )
        tokens = tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=min(longest, tokenizer.model_max_length),
            return_tensors="pt",
        )
        with self._at_work(tower):
            vectors_BE = tower(**tokens.to(self.device)).text_embeds
        return torch.nn.functional.normalize(vectors_BE, dim=-1).cpu().numpy()

    @contextlib.contextmanager
    def _at_work(self, part: torch.nn.Module) -> Iterator[None]:
        """Keeps a part on the device for the time of the block."""
        part.to(self.device)
        try:
            yield
        finally:
            if self._offload:
                part.to("cpu")

    def _unit_vectors(self, clap_BE: Vectors) -> torch.Tensor:
        """Unit vectors as a torch tensor. Raises GenerationError for a wrong shape or vectors without a direction."""
        if isinstance(clap_BE, torch.Tensor):
            clap_BE = clap_BE.detach().cpu().double()
        vectors_BE = np.asarray(clap_BE, np.float64)
        if vectors_BE.shape[1:] != (self.dim,) or len(vectors_BE) == 0:
            raise GenerationError(f"expected CLAP vectors of shape (B, {self.dim}), found {vectors_BE.shape}")
        lengths_B = np.linalg.norm(vectors_BE, axis=1)
        bad = np.flatnonzero(~np.isfinite(lengths_B) | (lengths_B == 0))
        if bad.size:
            raise GenerationError(f"CLAP vector {bad[0]} is zero or not finite: make it again from its picture or text")
        return torch.from_numpy((vectors_BE / lengths_B[:, None]).astype(np.float32))


def load_text_tower(folder: Path) -> TextTower:
    """The CLAP text tower of an AudioLDM folder, in float32, and its tokenizer. Raises CheckpointError."""
    if not folder.is_dir():
        raise CheckpointError(f"the folder {folder} does not exist")
    check_text(folder)
    with quiet_loading():
        tokenizer = read_tokenizer(folder / "tokenizer", "RobertaTokenizer")
        return TextTower(tokenizer, load_model(ClapTextModelWithProjection, folder / "text_encoder", torch.float32))
