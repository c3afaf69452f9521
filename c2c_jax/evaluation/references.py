"""Means and reference queries of an evaluation's centred scores."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from c2c_jax.evaluation.material import Captions, PairMaterial
from c2c_jax.evaluation.rows import Missing
from c2c_jax.evaluation.scored import Centring, own_mean
from c2c_jax.evaluation.translation import Method
from c2c_jax.retrieval.scoring import MIN_TO_CENTRE
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import uncentred
from c2c_jax.translator.memory import evenly


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Means:
    """Means and reference queries for the centred scores of all methods.

    text_E: mean of captions' unit target vectors. stored_RS: raw source vectors of the captions stored in the bundle,
    which are the reference queries; None: it stores none. held_out_HS, held_out_HE: source and target vectors of the
    evaluated captions, which serve as references for pictures if the bundle stores none; methods that do not translate
    texts always use the target vectors. None: there are none. All three are None if
    hubness is not subtracted.
    """

    text_E: Float[np.ndarray, "E"]
    stored_RS: Float[np.ndarray, "R S"] | None = None
    held_out_HS: Float[np.ndarray, "H S"] | None = None
    held_out_HE: Float[np.ndarray, "H E"] | None = None

    def of_captions(self, method: Method) -> Centring:
        """For a method that translates the evaluated captions."""
        return self._of(method, self.stored_RS)

    def of_pictures(self, method: Method) -> Centring:
        """For a method that translates pictures."""
        return self._of(method, self.stored_RS if self.stored_RS is not None else self.held_out_HS)

    def _of(self, method: Method, reference_RS: Float[np.ndarray, "R S"] | None) -> Centring:
        return Centring(
            text_E=self.text_E,
            image_E=self.text_E if method.image_mean_E is None else method.image_mean_E,
            reference_RE=None if reference_RS is None else method.of_texts(reference_RS),
        )

    @property
    def of_texts(self) -> Centring:
        """For a method that uses captions' or prompts' target vectors in place of translated pictures."""
        reference_RE = None if self.held_out_HE is None else np.asarray(self.held_out_HE, np.float32)
        return Centring(text_E=self.text_E, image_E=self.text_E, reference_RE=reference_RE)

    def of_sounds(self, audio_NE: Float[np.ndarray, "N E"]) -> Centring:
        """For a method that places pictures among sounds. It has no references, since captions lie elsewhere."""
        return Centring(text_E=self.text_E, image_E=own_mean(audio_NE))


def means_of(
    bundle: Bundle, captions: Captions | None, pairs: PairMaterial | None, *, hubness: bool
) -> tuple[Means | None, list[Missing]]:
    """The means and references of an evaluation, and the scores that cannot be computed, each with its reason.

    The mean of captions is the bundle's, or that of the evaluated captions, or of the classes' prompts. hubness:
    whether references are needed.
    """
    prompts_CE = pairs.given.prompts_CE if pairs else None
    known = (bundle.gap.target_text, own_mean(captions.target_NE if captions else None), own_mean(prompts_CE))
    text_E = next((mean_E for mean_E in known if mean_E is not None), None)
    if text_E is None:
        why = f"the translator stores no mean of captions; pass {MIN_TO_CENTRE} or more as --captions"
        return None, [Missing(what="centred scores", why=why)]
    missing = _too_few(captions, pairs)
    if not hubness:
        return Means(text_E=text_E), missing
    stored_RS = stored_captions(bundle)
    is_enough = captions is not None and len(captions.target_NE) >= MIN_TO_CENTRE
    rows = evenly(len(captions.target_NE)) if captions and is_enough else None
    if stored_RS is None and (captions or rows is None):
        whose = "scores" if rows is None else "captions: scores"
        why = f"the translator stores no captions as reference queries; {MIN_TO_CENTRE} or more are needed"
        missing.append(Missing(what=f"{whose} less hubness", why=why))
    return Means(
        text_E=text_E,
        stored_RS=stored_RS,
        held_out_HS=captions.source_NS[rows] if captions and rows is not None else None,
        held_out_HE=captions.target_NE[rows] if captions and rows is not None else None,
    ), missing


def _too_few(captions: Captions | None, pairs: PairMaterial | None) -> list[Missing]:
    """Tasks without centred scores: subtracting the mean of few candidates would remove what distinguishes them."""
    counts = {"captions": (len(captions.target_NE), "captions")} if captions else {}
    if pairs:
        counts["images and sounds"] = (len(pairs.given.audio_NE), "sounds")
        if len(pairs.given.audio_NE) >= MIN_TO_CENTRE:
            counts["sounds → images"] = (len(pairs.given.image_BS), "pictures")
    return [
        Missing(what=f"{task}: centred scores", why=f"{count} {kind}; centring needs {MIN_TO_CENTRE} or more")
        for task, (count, kind) in counts.items()
        if 1 < count < MIN_TO_CENTRE
    ]


def stored_captions(bundle: Bundle) -> Float[np.ndarray, "R S"] | None:
    """Unit source vectors of a bundle's stored captions, evenly spaced. None if it stores fewer than MIN_TO_CENTRE, or
    if its translator takes raw vectors, since captions are stored without their lengths."""
    if bundle.memory is None or bundle.spec.input_norm == "none" or len(bundle.memory.source) < MIN_TO_CENTRE:
        return None
    source_MS = bundle.memory.source
    source_RS = np.asarray(source_MS[evenly(len(source_MS))], np.float32)
    if bundle.spec.input_norm != "centred":
        return source_RS
    return np.asarray(uncentred(jnp.asarray(source_RS), bundle.gap.mean("source_text")))
