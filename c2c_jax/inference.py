"""The way from a picture to a sound: CLIP's vision tower, the translator, a unit CLAP vector, AudioLDM."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from c2c_jax.errors import BundleError, ConfigError
from c2c_jax.files import written_whole
from c2c_jax.generation.audioldm import AudioLDM, check_layout, write_wav
from c2c_jax.images import read_image
from c2c_jax.models.layers import unit
from c2c_jax.spaces import SpaceId, identify, load_space
from c2c_jax.weights.folders import checkpoint_folder
from c2c_jax.weights.translator import Bundle, load_bundle


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """AudioLDM's settings; the defaults are those of CLIP2CLAP (Wong)."""

    steps: int = 200
    seconds: float = 10.0
    guidance: float = 7.5
    negative_prompt: str = "Low quality"
    seed: int = 0


def translate(bundle: Bundle, source_BS: Float[np.ndarray, "B S"]) -> Float[np.ndarray, "B E"]:
    """Unit vectors [B, E] of the bundle's target space, float32, from raw vectors [B, S] of its source space."""
    return np.asarray(unit(bundle.translator(jnp.asarray(source_BS))))


def require_same_space(wanted: SpaceId, found: SpaceId, role: str) -> None:
    """Raises BundleError, naming both, unless two spaces have one fingerprint."""
    if wanted.fingerprint != found.fingerprint:
        raise BundleError(
            f"the translator was trained with {role} {wanted.name} ({wanted.fingerprint[:12]}), but {found.name} is "
            f"another space ({found.fingerprint[:12]}); pass the checkpoint it was trained with, or train for this one"
        )


def picture_to_sound(
    image: Path,
    translator: Path,
    *,
    audioldm: str | None,
    clip: str | None,
    sampling: Sampling,
    out: Path | None,
    save_embedding: Path | None,
) -> list[Path]:
    """Writes the sound of a picture, and its CLAP vector [E] where `save_embedding` says so; gives the files written.

    audioldm: hub name or folder; None writes no sound. clip: where the source checkpoint lies, None: by the bundle's
    name for it. out: the wav file, None: the picture's name with .wav. Spaces are compared before any tower is loaded,
    and nothing is written before all is computed. Raises ConfigError, ImageError, BundleError, CheckpointError or
    GenerationError; what is written is whole.
    """
    picture = read_image(image)
    out = out or image.with_suffix(".wav")
    if save_embedding and audioldm and save_embedding.absolute() == out.absolute():
        raise ConfigError(f"the sound and the embedding cannot both be written to {out}; name another --save-embedding")
    bundle = load_bundle(translator)
    generator = None
    if audioldm:
        folder = checkpoint_folder(audioldm)
        check_layout(folder)
        clap = dataclasses.replace(identify(f"{folder}:text_encoder"), name=f"{audioldm}:text_encoder")
        require_same_space(bundle.target, clap, "the CLAP")
        generator = AudioLDM.load(folder)
        generator.check(steps=sampling.steps, seconds=sampling.seconds, guidance=sampling.guidance, seed=sampling.seed)
    space = load_space(clip or bundle.source.name)
    require_same_space(bundle.source, space.id, "the CLIP")
    clap_1E = translate(bundle, space.encode_image([picture], batch_size=1))
    written = []
    samples = generator.generate(clap_1E, **dataclasses.asdict(sampling)) if generator else None
    if save_embedding:
        with written_whole(save_embedding) as beside, open(beside, "wb") as file:
            np.save(file, clap_1E[0])
        written.append(save_embedding)
    if generator and samples is not None:
        write_wav(out, samples[0], generator.sample_rate)
        written.append(out)
    return written
