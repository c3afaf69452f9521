"""The modality gap: how a picture's vector is carried to where captions' vectors lie, and a translation to sounds'."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from c2c_jax.models.layers import unit
from c2c_jax.models.memory import Memory, towards_captions
from c2c_jax.models.translator import Translator


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Gap:
    """Where the vectors of either kind lie in the two spaces, as means. Those of captions may be known alone, and then
    nothing is corrected; those of pictures or sounds come with their captions'.

    Those of the source are over vectors as the translator's input_norm takes them: "unit": unit vectors, before their
    scaling by √S; "none": raw ones. Those of the target are over unit vectors. A translator that is trained on captions
    has seen one cone of each space, and the means' difference leads from one cone to the other.
    """

    source_text: Float[np.ndarray, "S"] | None = None
    source_image: Float[np.ndarray, "S"] | None = None
    target_text: Float[np.ndarray, "E"] | None = None
    target_audio: Float[np.ndarray, "E"] | None = None

    def __post_init__(self) -> None:
        for text, other in PAIRS:
            if getattr(self, text) is None and getattr(self, other) is not None:
                raise ValueError(f"gap statistic {other} comes without {text}, which it is held against")

    @property
    def known(self) -> list[str]:
        """The names of the statistics that are there."""
        return [name for pair in PAIRS for name in pair if getattr(self, name) is not None]

    @property
    def used(self) -> list[str]:
        """The names of the statistics that correct something: those of whole pairs."""
        return [name for pair in PAIRS if set(pair) <= set(self.known) for name in pair]


PAIRS = (("source_text", "source_image"), ("target_text", "target_audio"))


def translate_image(
    translator: Translator, gap: Gap, source_BS: Float[Array, "B S"], memory: Memory | None = None
) -> Float[Array, "B E"]:
    """Target-space vectors [B, E], float32, of pictures' raw vectors [B, S]; what the gap does not know stays as it is.

    Before the translator a picture's vector loses the mean of pictures and gets that of captions, and then turns
    towards the captions in the memory, if there is one; behind it the unit vector loses the mean of captions and gets
    that of sounds. The result is of no particular length.
    """
    source_BS = over_source_gap(gap, translator.spec.input_norm, source_BS)
    if memory is not None:
        source_BS = towards_captions(memory, source_BS)
    return over_target_gap(gap, translator(source_BS))


def over_source_gap(gap: Gap, input_norm: str, source_BS: Float[Array, "B S"]) -> Float[Array, "B S"]:
    """Pictures' raw vectors where captions' lie, as a translator with that input_norm takes them."""
    if gap.source_text is None or gap.source_image is None:
        return source_BS
    if input_norm == "unit":
        source_BS = unit(source_BS)
    return source_BS - jnp.asarray(gap.source_image)[None] + jnp.asarray(gap.source_text)[None]


def over_target_gap(gap: Gap, target_BE: Float[Array, "B E"]) -> Float[Array, "B E"]:
    """Vectors among captions' where sounds' lie."""
    if gap.target_text is None or gap.target_audio is None:
        return target_BE
    return unit(target_BE) - jnp.asarray(gap.target_text)[None] + jnp.asarray(gap.target_audio)[None]
