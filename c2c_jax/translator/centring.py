"""Centring: subtracts the mean of a vector's modality before translation, and adds a mean after it."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from c2c_jax.spaces.models.layers import unit
from c2c_jax.translator.kinds import Translator
from c2c_jax.translator.memory import Memory, apply_memory


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ModalityMeans:
    """Means of captions, images and sounds in the two spaces. A mean of images or sounds needs the captions' mean of
    the same space.

    They are means of unit vectors, except that a translator with input_norm "none" has means of raw source vectors.
    """

    source_text: Float[np.ndarray, "S"] | None = None
    source_image: Float[np.ndarray, "S"] | None = None
    target_text: Float[np.ndarray, "E"] | None = None
    target_audio: Float[np.ndarray, "E"] | None = None

    def __post_init__(self) -> None:
        for text, other in PAIRS:
            if getattr(self, text) is None and getattr(self, other) is not None:
                raise ValueError(f"the mean {other} needs the mean {text}, which is missing")

    @property
    def known(self) -> list[str]:
        """The names of the known means."""
        return [name for pair in PAIRS for name in pair if getattr(self, name) is not None]

    def mean(self, name: str) -> Float[np.ndarray, "D"]:
        """The mean of that name. Raises ValueError if it is unknown."""
        if (mean := getattr(self, name)) is None:
            raise ValueError(f"the mean {name} is unknown")
        return mean

    @property
    def used(self) -> list[str]:
        """The names of the means known in pairs: captions and images, captions and sounds."""
        return [name for pair in PAIRS if set(pair) <= set(self.known) for name in pair]


PAIRS = (("source_text", "source_image"), ("target_text", "target_audio"))


def centred(x_BE: Float[Array, "B E"], mean_E: Float[Array, "E"] | Float[np.ndarray, "E"]) -> Float[Array, "B E"]:
    """Centres vectors of any length: unit length, minus the mean of their modality, unit length again."""
    return unit(unit(x_BE) - jnp.asarray(mean_E)[None])


def uncentred(u_BE: Float[Array, "B E"], mean_E: Float[Array, "E"] | Float[np.ndarray, "E"]) -> Float[Array, "B E"]:
    """The inverse of `centred`: unit vectors m + ρ û, with the mean m and the directions û of `u_BE`.

    ρ is the positive root of |m + ρ û| = 1, which exists since the mean m of unit vectors is shorter than 1.
    """
    mean_E = jnp.asarray(mean_E)
    u_BE = unit(u_BE)
    along_B1 = jnp.sum(u_BE * mean_E[None], axis=1, keepdims=True)
    rho_B1 = jnp.sqrt(along_B1**2 + 1 - jnp.sum(mean_E**2)) - along_B1
    return mean_E[None] + rho_B1 * u_BE


def translate_text(translator: Translator, means: ModalityMeans, source_BS: Float[Array, "B S"]) -> Float[Array, "B E"]:
    """Translates captions' raw source vectors [B, S] into target vectors [B, E], float32.

    With input_norm "centred", inputs are centred and outputs un-centred with the captions' means, and the results are
    unit vectors. Other translators use the vectors unchanged, and their results have any length.
    """
    if translator.spec.input_norm != "centred":
        return translator(source_BS)
    return uncentred(translator(centred(source_BS, means.mean("source_text"))), means.mean("target_text"))


def translate_image(
    translator: Translator,
    means: ModalityMeans,
    source_BS: Float[Array, "B S"],
    memory: Memory | None = None,
    output_mean: str = "text",
) -> Float[Array, "B E"]:
    """Translates images' raw source vectors [B, S] into target vectors [B, E], float32.

    With input_norm "centred", images are centred by their own mean (without one, see `centred_images`), moved towards
    the memory, translated, and un-centred to unit vectors. With other translators, images are shifted from the mean of
    images to that of captions before translation, and results from the mean of captions to that of sounds, if these
    means are known; the results have any length.
    memory: captions to move images towards. output_mean: "text" or "audio": the mean to un-centre with.
    """
    source_BS = image_inputs(means, translator.spec.input_norm, source_BS, memory)
    target_BE = translator(source_BS)
    if translator.spec.input_norm == "centred":
        return uncentred(target_BE, means.mean(f"target_{output_mean}"))
    return shift_to_audio(means, target_BE)


def image_inputs(
    means: ModalityMeans, input_norm: str, source_BS: Float[Array, "B S"], memory: Memory | None = None
) -> Float[Array, "B S"]:
    """Converts images' raw vectors to inputs of a translator with this input_norm."""
    if input_norm == "centred":
        source_BS = centred_images(means, source_BS)
    else:
        source_BS = shift_to_captions(means, input_norm, source_BS)
    return source_BS if memory is None or not memory.weight else apply_memory(memory, source_BS)


def centred_images(means: ModalityMeans, source_BS: Float[Array, "B S"]) -> Float[Array, "B S"]:
    """Centres images' vectors. If their mean is unknown, removes their component along the captions' mean instead,
    which is similar for most images in CLIP; docs/calibration.md has the cost."""
    if means.source_image is not None:
        return centred(source_BS, means.source_image)
    source_BS, mean_S = unit(source_BS), unit(jnp.asarray(means.mean("source_text"))[None])[0]
    return unit(source_BS - jnp.sum(source_BS * mean_S[None], axis=1, keepdims=True) * mean_S[None])


def shift_to_captions(means: ModalityMeans, input_norm: str, source_BS: Float[Array, "B S"]) -> Float[Array, "B S"]:
    """Shifts images' raw vectors from the images' mean to the captions' mean, if both are known."""
    if means.source_text is None or means.source_image is None:
        return source_BS
    if input_norm == "unit":
        source_BS = unit(source_BS)
    return source_BS - jnp.asarray(means.source_image)[None] + jnp.asarray(means.source_text)[None]


def shift_to_audio(means: ModalityMeans, target_BE: Float[Array, "B E"]) -> Float[Array, "B E"]:
    """Shifts target vectors from the captions' mean to the sounds' mean, if both are known."""
    if means.target_text is None or means.target_audio is None:
        return target_BE
    return unit(target_BE) - jnp.asarray(means.target_text)[None] + jnp.asarray(means.target_audio)[None]
