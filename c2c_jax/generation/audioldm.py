"""AudioLDM (Liu et al. 2023): generates sound from CLAP vectors, with the networks of diffusers and transformers."""

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
from c2c_jax.generation.sampling import DTYPES, MAX_SECONDS, Sampling
from c2c_jax.io.json import read_json
from c2c_jax.spaces.weights.folders import checkpoint_folder
from c2c_jax.spaces.weights.tokenizers import read_tokenizer

# Noise levels of Karras et al. 2022; the last one is the smallest of training, as in DDIM.
_KARRAS = {"timestep_spacing": "linspace", "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}
# The diffusers class of each scheduler, and the fields that override the checkpoint's scheduler_config.json.
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2, **_KARRAS}),
    "unipc": (UniPCMultistepScheduler, _KARRAS),
    "ddim": (DDIMScheduler, {}),
}

# numpy, JAX or torch array, on any device and of any float dtype
Vectors = Float[Any, "B E"]


def build_scheduler(name: str, noise_levels: dict[str, Any]) -> Any:
    """Builds a diffusers scheduler. name: a key of SCHEDULERS. noise_levels: content of a scheduler_config.json.
    Raises CheckpointError for unusable noise levels."""
    kind, options = SCHEDULERS[name]
    known = {field for other, _ in SCHEDULERS.values() for field in inspect.signature(other.__init__).parameters}
    config = {key: value for key, value in noise_levels.items() if key in known}  # diffusers warns about others
    try:
        check_fields(config, SchedulerBounds, kind)
        scheduler = kind.from_config({**config, **options})
        if not ((scheduler.alphas_cumprod > 0) & (scheduler.alphas_cumprod <= 1)).all():
            raise ValueError("its noise levels are not between 0 and 1")
        trial = kind.from_config({**config, **options})
        trial.set_timesteps(2)
        trial.step(torch.zeros(1, 1, 2, 2), trial.timesteps[0], torch.zeros(1, 1, 2, 2))
    except Exception as error:  # diffusers raises exceptions of many types
        raise CheckpointError(
            f"scheduler_config.json does not describe a {name} schedule ({one_line(error)}): fetch it again"
        ) from None
    return scheduler


def _require_compatible(unet: Any, vae: Any, vocoder: Any, folder: Path) -> None:
    """Raises CheckpointError unless the inputs and outputs of the networks match, according to their configs."""
    latents = {vae.config.latent_channels, unet.config.in_channels, unet.config.out_channels}
    mels, scale = vocoder.config.model_in_dim, 2 ** (len(vae.config.block_out_channels) - 1)
    if unet.config.class_embed_type is None:
        why = "the unet has no input for a CLAP vector: its class_embed_type is null"
    elif len(latents) > 1:
        why = f"latents have {' and '.join(map(str, sorted(latents)))} channels"
    elif vae.config.out_channels != 1 or mels % scale:
        why = f"the vae outputs {vae.config.out_channels} channels of a multiple of {scale} mels, not {mels} mels"
    else:
        return
    raise CheckpointError(
        f"the networks in {folder} do not fit each other by their config.json ({why}): fetch them again"
    )


class TextEncoder(NamedTuple):
    """A tokenizer and a ClapTextModelWithProjection of transformers."""

    tokenizer: Any
    model: Any


class AudioLDM:
    """A latent-diffusion sound generator conditioned on one CLAP vector.

    sample_rate: in Hz. dim: width E of the CLAP vectors. device: a torch device.
    """

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        vocoder: Any,
        noise_levels: dict[str, Any],
        load_text: Callable[[], TextEncoder] | None = None,
        device: str = "cpu",
        offload: bool = False,
    ):
        """unet: UNet2DConditionModel. vae: AutoencoderKL. vocoder: SpeechT5HifiGan or GriffinLim. All have one dtype.
        noise_levels: a scheduler's config. load_text: called before the first text is encoded; None: only vectors are
        accepted. offload: keep each network in main memory while it is not in use.
        """
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
            torch.zeros(1, device=self.device).item()  # raises for the device "meta"
            if not offload:
                for part in (unet, vae, vocoder):
                    part.to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise GenerationError(f"torch cannot use device {device!r} ({one_line(error)}): use cpu") from error

    @classmethod
    def load(
        cls, name: str | Path, *, device: str | None = None, dtype: str = "float32", offload: bool = False
    ) -> "AudioLDM":
        """Loads AudioLDM from a local folder or a hub name, in diffusers' layout.

        device: None: cuda if available. The text tower is loaded when the first text is encoded, and may be missing.
        Raises CheckpointError if parts or weights are missing, damaged or of another model, GenerationError for a
        device or dtype that torch cannot use.
        """
        folder = checkpoint_folder(str(name))
        check_layout(folder)
        if dtype not in DTYPES:
            raise GenerationError(f"dtype must be one of {', '.join(DTYPES)}, found {dtype!r}")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if dtype == "float16" and device.startswith("cpu"):
            raise GenerationError("float16 is for GPUs: use float32 or bfloat16 on a CPU")
        torch_dtype = getattr(torch, dtype)
        with quiet_loading():
            noise_levels = read_json(folder / "scheduler/scheduler_config.json")
            build_scheduler("ddim", noise_levels)
            is_griffin_lim = read_json(folder / "vocoder/config.json").get("_class_name") == GriffinLim.__name__
            kind, bounds = (GriffinLim, GriffinLimBounds) if is_griffin_lim else (SpeechT5HifiGan, VocoderBounds)
            vocoder = load_model(kind, folder / "vocoder", torch_dtype, bounds)
            unet = load_model(UNet2DConditionModel, folder / "unet", torch_dtype, UNetBounds)
            vae = load_model(AutoencoderKL, folder / "vae", torch_dtype, VAEBounds)
            _require_compatible(unet, vae, vocoder, folder)
            return cls(
                unet=unet,
                vae=vae,
                vocoder=vocoder,
                noise_levels=noise_levels,
                load_text=functools.partial(load_text_encoder, folder),
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
        """Samples one clip per CLAP vector, float32 in -1..1. Only the direction of a vector matters.

        seeds: one for each clip's initial noise, so that a clip does not depend on its batch; `sampling.seed` and
        `sampling.candidates` are not used. negative_E: the CLAP vector that guidance leads away from; None: the vector
        of the negative prompt, which loads the text tower. on_step: called after each step. Raises GenerationError for
        settings that the model does not support, and for sound that is not finite.
        """
        prompt_BE = self._unit_vectors(clap_BE)
        self.check(sampling)
        B = len(prompt_BE)
        if len(seeds) != B:
            raise GenerationError(f"{B} vectors and {len(seeds)} seeds: pass one seed for each vector")
        guided = sampling.guidance > 1
        if guided:
            if negative_E is None:
                negative_E = self.encode_text([sampling.negative_prompt])[0]
            # The first half of the UNet's batch has the negative condition, the second the positive one.
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
        with self._on_device(self._unet):
            for time in scheduler.timesteps:
                noisy = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, time)
                noise = self._unet(noisy, time, encoder_hidden_states=None, class_labels=prompt_BE).sample
                if guided:
                    negative, positive = noise.chunk(2)
                    noise = negative + sampling.guidance * (positive - negative)
                latents = scheduler.step(noise, time, latents).prev_sample
                on_step()
        with self._on_device(self._vae):
            mels = self._vae.decode(1 / self._vae.config.scaling_factor * latents).sample.squeeze(1)
        with self._on_device(self._vocoder):
            audio = self._vocoder(mels)[:, :samples].float().cpu().numpy()
        if not np.isfinite(audio).all():
            half = dtype != torch.float32
            advice = "use float32, or bfloat16 instead of float16" if half else "use other values"
            raise GenerationError(
                f"the generated audio contains NaN or inf ({str(dtype).removeprefix('torch.')}, "
                f"{sampling.number_of_steps} steps, guidance {sampling.guidance}): {advice}"
            )
        return audio

    def check(self, sampling: Sampling) -> None:
        """Raises GenerationError for settings that the model does not support."""
        sampling.check()
        config = build_scheduler(sampling.scheduler, self._noise_levels).config
        # With more steps, the schedule would start beyond its last noise level.
        max_steps = config.num_train_timesteps - config.get("steps_offset", 0)
        if sampling.number_of_steps > max_steps:
            raise GenerationError(f"steps must be from 1 to {max_steps}, found {sampling.steps}")
        min_samples = self._hop_length * self._vae_scale
        if round(sampling.seconds * self.sample_rate) < min_samples:
            raise GenerationError(
                f"seconds must be from {min_samples / self.sample_rate} to {MAX_SECONDS}, found {sampling.seconds}"
            )

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "B E"]:
        """Encodes texts as unit CLAP vectors with the checkpoint's text tower. Raises CheckpointError without one."""
        if self._text is None:
            raise CheckpointError("this generator has no text tower: pass vectors, or guidance 1")
        tokenizer, tower = self._text()
        # RoBERTa counts positions from pad_token_id + 1.
        max_tokens = tower.config.max_position_embeddings - tower.config.pad_token_id - 1
        if len(tokenizer) > tower.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {len(tokenizer)} tokens, its text tower {tower.config.vocab_size}: they belong to "
                "different models; fetch both again"
            )
        tokens = tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=min(max_tokens, tokenizer.model_max_length),
            return_tensors="pt",
        )
        with self._on_device(tower):
            vectors_BE = tower(**tokens.to(self.device)).text_embeds
        return torch.nn.functional.normalize(vectors_BE, dim=-1).cpu().numpy()

    @contextlib.contextmanager
    def _on_device(self, part: torch.nn.Module) -> Iterator[None]:
        """Moves a network to the device; with offload, moves it back to main memory afterwards."""
        part.to(self.device)
        try:
            yield
        finally:
            if self._offload:
                part.to("cpu")

    def _unit_vectors(self, clap_BE: Vectors) -> torch.Tensor:
        """Scales vectors to unit length, as a torch tensor. Raises GenerationError for a wrong shape, and for zero or
        non-finite vectors."""
        if isinstance(clap_BE, torch.Tensor):
            clap_BE = clap_BE.detach().cpu().double()
        vectors_BE = np.asarray(clap_BE, np.float64)
        if vectors_BE.shape[1:] != (self.dim,) or len(vectors_BE) == 0:
            raise GenerationError(f"expected CLAP vectors of shape (B, {self.dim}), found {vectors_BE.shape}")
        lengths_B = np.linalg.norm(vectors_BE, axis=1)
        bad = np.flatnonzero(~np.isfinite(lengths_B) | (lengths_B == 0))
        if bad.size:
            raise GenerationError(
                f"CLAP vector {bad[0]} is zero or not finite: compute it again from its image or text"
            )
        return torch.from_numpy((vectors_BE / lengths_B[:, None]).astype(np.float32))


def load_text_encoder(folder: Path) -> TextEncoder:
    """Loads the CLAP text tower of an AudioLDM folder, in float32, and its tokenizer. Raises CheckpointError."""
    if not folder.is_dir():
        raise CheckpointError(f"the folder {folder} does not exist")
    check_text(folder)
    with quiet_loading():
        tokenizer = read_tokenizer(folder / "tokenizer", "RobertaTokenizer")
        return TextEncoder(tokenizer, load_model(ClapTextModelWithProjection, folder / "text_encoder", torch.float32))
