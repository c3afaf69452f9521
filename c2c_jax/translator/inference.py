"""Translates images' vectors with a bundle, after checking that spaces match."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from c2c_jax.errors import BundleError, CheckpointError, ConfigError, ImageError
from c2c_jax.spaces.encoding import ENCODED_AT_ONCE, source_vectors_of
from c2c_jax.spaces.models.layers import unit
from c2c_jax.spaces.space import Space, SpaceId, load_space
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import translate_image

PROBE = "a sound"


SAME = 0.999  # cosine of one text's vectors by two copies of one tower, rounding apart


def translate(bundle: Bundle, source_BS: Float[np.ndarray, "B S"], among: str = "text") -> Float[np.ndarray, "B E"]:
    """Translates pictures' raw source vectors [B, S] into unit target vectors [B, E], float32; see
    `models.gap.translate_image`. among: used by a translator of centred vectors.

    Raises BundleError for a translator that gives vectors that are not finite.
    """
    with jax.default_matmul_precision("float32"):  # accelerators round to less unless told otherwise
        found = translate_image(bundle.translator, bundle.gap, jnp.asarray(source_BS), bundle.memory, among)
        vectors_BE = np.asarray(unit(found))
    is_nothing = not vectors_BE.any(axis=1).all()
    if bundle.spec.input_norm == "centred":  # nothing un-centred is the mean
        is_nothing = bool(np.isclose(found, bundle.gap.mean(f"target_{among}"), atol=1e-6).all(axis=1).any())
    if is_nothing or not np.isfinite(vectors_BE).all():
        raise BundleError(
            f"the translator from {bundle.source.name} to {bundle.target.name} returns zero or non-finite vectors: "
            "its weights are damaged; export or train it again"
        )
    return vectors_BE


def _unit(x_BE: Float[np.ndarray, "B E"]) -> Float[np.ndarray, "B E"]:
    lengths_B1 = np.linalg.norm(x_BE, axis=1, keepdims=True)
    if not (lengths_B1 > 1e-6).all():
        raise ConfigError("what is mixed cancels out to a vector of no direction: take other weights")
    return (x_BE / lengths_B1).astype(np.float32)


def require_same_space(wanted: SpaceId, found: SpaceId, role: str) -> None:
    """Raises BundleError, naming both, unless two spaces have one fingerprint; for a translator whose spaces were never
    seen (an imported one has no fingerprints), unless they have one width."""
    if (wanted.fingerprint or found.fingerprint) != found.fingerprint or wanted.dim != found.dim:
        raise BundleError(
            f"the translator was trained with {role} {wanted.name} ({wanted.fingerprint[:12] or wanted.dim}), but "
            f"{found.name} is another space ({found.fingerprint[:12]}, {found.dim} wide); pass the checkpoint it was "
            "trained with, or train for this one"
        )


def require_same_clap(bundle: Bundle, space: Space) -> None:
    """Raises BundleError unless a CLAP gives the text PROBE the vector that the bundle's target space gives it; for a
    bundle whose spaces were never seen, unless their widths are the same."""
    if bundle.target.fingerprint:
        own = load_space(bundle.target.name, only="text")
        require_same_space(bundle.target, own.id, "the CLAP")
        expected_E, found_E = (_unit(tower.encode_text([PROBE]))[0] for tower in (own, space))
        is_same = expected_E.shape == found_E.shape and float(expected_E @ found_E) > SAME
    else:
        is_same = space.dim == bundle.target.dim
    if not is_same:
        raise BundleError(
            f"{space.name} is another CLAP than the translator's, {bundle.target.name}: cosines would mean nothing; "
            "pass the one whose text tower that is"
        )


def vectors_of(
    paths: Sequence[Path],
    space: Space,
    bundle: Bundle,
    on_picture: Callable[[], None] = lambda: None,
    among: str = "text",
) -> tuple[dict[Path, Float[np.ndarray, "E"]], list[ImageError]]:
    """The unit CLAP vectors of those pictures that can be read, and what is wrong with the others; see
    `source_vectors_of`, and `translate` for `among`."""
    found, errors = source_vectors_of(paths, space, on_picture)
    vectors: dict[Path, np.ndarray] = {}
    for start in range(0, len(found), ENCODED_AT_ONCE):
        part = list(found)[start : start + ENCODED_AT_ONCE]
        vectors.update(zip(part, translate(bundle, np.stack([found[path] for path in part]), among), strict=True))
    return vectors, errors


def load_clip(bundle: Bundle, name: str | None, *, reads_texts: bool) -> Space:
    """The bundle's source space, or the checkpoint that it is asked to be. reads_texts: whether its text tower is
    wanted too. Raises CheckpointError, or BundleError for another space than the bundle's."""
    space = load_space(name or bundle.source.name, only=None if reads_texts else "image")
    require_same_space(bundle.source, space.id, "the CLIP")
    return space


def load_clap(bundle: Bundle, name: str | None, *, hears: bool) -> Space:
    """The bundle's target space, or the checkpoint that it is asked to be: it has the bundle's fingerprint, or gives
    one text the same vector. hears: whether its audio tower is wanted.

    Raises CheckpointError, also for a CLAP without ears where they are wanted, and BundleError for another space.
    """
    space = load_space(name or bundle.target.name, only=None if hears else "text")
    if hears and space.mels is None:
        raise CheckpointError(
            f"{space.name} has no audio tower to hear sounds with: pass --clap, the whole CLAP whose text tower it is"
        )
    if space.fingerprint != bundle.target.fingerprint:
        require_same_clap(bundle, space)
    return space
