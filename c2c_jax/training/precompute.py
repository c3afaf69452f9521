"""Computes everything that a run needs from the captions before its first step: means, moments and the memory."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from c2c_jax.config import Config, MemoryConfig, candidate_score
from c2c_jax.data.store import SIDES, Store
from c2c_jax.errors import StoreError
from c2c_jax.training.candidates import CandidateSelector, closed_form_maps
from c2c_jax.training.check import fits_closed_form
from c2c_jax.training.closed_form import Moments, caption_means, combine, moments, moments_of
from c2c_jax.training.memory import draw_memory
from c2c_jax.training.selection import perturb_captions
from c2c_jax.translator.centring import ModalityMeans, centred
from c2c_jax.translator.kinds import TranslatorSpec
from c2c_jax.translator.mean_estimates import captions_spread, error_line, narrow_warning, with_means
from c2c_jax.translator.memory import REFERENCES, Memory, evenly_spaced

NO_IMAGES = (
    "no images given: without their mean, image retrieval scores drop by 4 to 18 % (relative); pass "
    "--config.images.files=FOLDER with a few hundred general, unlabelled images, or run c2c calibrate later"
)
MEAN_NOT_STORED = (
    "the mean of images is not stored (config.images.calibrate is False): without it, image retrieval scores "
    "drop by 4 to 18 % (relative)"
)

Rows = tuple[Int[np.ndarray, "V"], Int[np.ndarray, "N"]]  # validation rows, training rows


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Precomputed:
    """Statistics of a run's captions and images.

    means: those that the bundle stores. unit_means: of unit vectors. memory: the caption memory; None if the config
    has none. references: captions that the bundle stores if it does not use a memory; None for translators of raw
    vectors. moments: of the training rows; None if no closed-form map is fitted. all_moments: of all rows; None without
    config.adapt. notes: lines about the images, for the terminal.
    """

    input_norm: str
    means: ModalityMeans
    unit_means: ModalityMeans
    memory: Memory | None
    references: Memory | None
    moments: Moments | None
    all_moments: Moments | None
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        config: Config,
        spec: TranslatorSpec,
        store: Store,
        rows: Rows,
        image_PS: Float[np.ndarray, "P S"] | None,
    ) -> "Precomputed":
        """Computes the statistics. image_PS: raw vectors of unlabelled images. Raises StoreError for a damaged chunk,
        and for captions that all have the same vector."""
        held_out, training = rows
        means = caption_means(store, held_out, spec.input_norm)
        unit_means = means if spec.input_norm != "none" else caption_means(store, held_out, "unit")
        if spec.input_norm == "centred" and not all(map(_is_mean, (means.source_text, means.target_text))):
            raise StoreError(
                f"{store.path}: all captions have the same vector in one of the spaces, so there is nothing to learn"
            )
        has_mean = image_PS is not None and config.images.calibrate
        notes = []
        if spec.input_norm == "centred" and not has_mean:
            notes.append(NO_IMAGES if image_PS is None else MEAN_NOT_STORED)
        if image_PS is not None and has_mean:
            means = with_means(means, spec.input_norm, image_PS)[0]
            unit_means, estimate, _ = with_means(unit_means, "unit", image_PS)
            if estimate and estimate.count:
                notes.append(error_line(estimate, "images"))
            captions = captions_spread(unit_means, "unit")
            warning = narrow_warning(estimate.spread, captions) if estimate and captions else None
            notes += [warning] if warning else []
        centring = means if spec.input_norm == "centred" else None
        memory = draw_memory(config.memory, store, training, config.seed, centring)
        references = None
        if spec.input_norm != "none":
            drawn = memory
            if memory is None or len(memory.source) < REFERENCES:
                drawn = draw_memory(MemoryConfig(size=REFERENCES), store, training, config.seed, centring)
            assert drawn is not None
            references = dataclasses.replace(drawn, source=drawn.source[evenly_spaced(len(drawn.source))], weight=0.0)
        training_moments = moments(store, held_out, spec, means) if fits_closed_form(config) or config.adapt else None
        all_moments = None
        if training_moments and config.adapt:
            source_HS, target_HE = (store.read_rows(side, held_out) for side in SIDES)
            all_moments = combine(training_moments, moments_of(source_HS, target_HE, spec, means))
        return cls(
            input_norm=spec.input_norm,
            means=means,
            unit_means=unit_means,
            memory=memory,
            references=references,
            moments=training_moments,
            all_moments=all_moments,
            notes=tuple(notes),
        )

    @property
    def centring(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The captions' means in both spaces; None unless the translator works on centred vectors."""
        if self.input_norm != "centred" or self.means.source_text is None or self.means.target_text is None:
            return None
        return self.means.source_text, self.means.target_text

    def centre(
        self, source_NS: Float[np.ndarray, "N S"], target_NE: Float[np.ndarray, "N E"]
    ) -> tuple[Float[np.ndarray, "N S"], Float[np.ndarray, "N E"]]:
        """Source and target vectors of captions, centred if the translator works on centred vectors."""
        if self.centring is None:
            return source_NS, target_NE
        source_NS, target_NE = (
            np.asarray(centred(jnp.asarray(x), mean))
            for x, mean in zip((source_NS, target_NE), self.centring, strict=True)
        )
        return source_NS, target_NE

    def selector(
        self, config: Config, store: Store, rows: Rows, image_PS: Float[np.ndarray, "P S"] | None
    ) -> CandidateSelector:
        """Builds the selector that scores a run's candidates by how they translate perturbed validation captions."""
        perturbed = perturb_captions(
            store, rows, self.means, self.unit_means, self.input_norm, self.memory, image_PS, config.seed
        )
        maps, final = (
            closed_form_maps(fitted, perturbed.inputs[False]) if config.adapt and fitted else []
            for fitted in (self.moments, self.all_moments)
        )
        by = candidate_score(config.select_by)
        return CandidateSelector(perturbed, maps, final, memory_is_optional=config.adapt, select_by=by)


def _is_mean(mean_D: np.ndarray | None) -> bool:
    """Whether a mean exists, and is one of unit vectors that are not all the same."""
    return mean_D is not None and bool(np.linalg.norm(mean_D.astype(np.float64)) < 1 - 1e-6)
