"""Translates image vectors with a bundle, and checks that the CLIP and CLAP around it are those it was trained for."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from c2c_jax.errors import BundleError, CheckpointError, ConfigError, ImageError
from c2c_jax.io.vectors import unit_rows
from c2c_jax.spaces.encoding import ENCODED_AT_ONCE, encode_image_files
from c2c_jax.spaces.models.layers import unit
from c2c_jax.spaces.space import Space, SpaceId, load_space
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import translate_image

PROBE = "a sound"  # the text by whose vectors two CLAPs are compared
SAME = 0.999  # minimum cosine of the vectors that two copies of one tower give it
NO_IMAGE_MEAN = (
    "the translator stores no mean of pictures, so 4 to 18 % fewer pictures are matched correctly: "
    "add one with c2c calibrate RUN --images photos/"
)


def translate(
    bundle: Bundle, source_BS: Float[np.ndarray, "B S"], output_mean: str = "text"
) -> Float[np.ndarray, "B E"]:
    """Translates images' raw source vectors [B, S] into unit target vectors [B, E], float32; see
    `centring.translate_image`. among: used by a translator of centred vectors.

    Raises BundleError for a translator that returns zero or non-finite vectors.
    """
    with jax.default_matmul_precision("float32"):  # accelerators round to less by default
        found = translate_image(bundle.translator, bundle.means, jnp.asarray(source_BS), bundle.memory, output_mean)
        vectors_BE = np.asarray(unit(found))
    is_nothing = not vectors_BE.any(axis=1).all()
    if bundle.spec.input_norm == "centred":  # a zero vector, un-centred, is the mean
        is_nothing = bool(np.isclose(found, bundle.means.mean(f"target_{output_mean}"), atol=1e-6).all(axis=1).any())
    if is_nothing or not np.isfinite(vectors_BE).all():
        raise BundleError(
            f"the translator from {bundle.source.name} to {bundle.target.name} returns zero or non-finite vectors: "
            "its weights are damaged; export or train it again"
        )
    return vectors_BE


def vectors_of(
    paths: Sequence[Path],
    space: Space,
    bundle: Bundle,
    on_image: Callable[[], None] = lambda: None,
    output_mean: str = "text",
) -> tuple[dict[Path, Float[np.ndarray, "E"]], list[ImageError]]:
    """The unit CLAP vector of each image file that can be read, and an error for each other one. space: the CLIP.
    on_picture: called after each file is read. among: see `translate`."""
    found, errors = encode_image_files(paths, space, on_image)
    vectors: dict[Path, np.ndarray] = {}
    for start in range(0, len(found), ENCODED_AT_ONCE):
        part = list(found)[start : start + ENCODED_AT_ONCE]
        vectors.update(zip(part, translate(bundle, np.stack([found[path] for path in part]), output_mean), strict=True))
    return vectors, errors


def load_clip(bundle: Bundle, name: str | None, *, with_text: bool) -> Space:
    """Loads the bundle's source space from the checkpoint `name`; None: from the one the bundle names. with_text:
    whether its text tower is needed beside the image tower. Raises CheckpointError, or BundleError for another space
    than the bundle's."""
    space = load_space(name or bundle.source.name, only=None if with_text else "image")
    require_same_space(bundle.source, space.id, "the CLIP")
    return space


def load_clap(bundle: Bundle | None, name: str | None, *, with_audio: bool) -> Space:
    """Loads the bundle's target space from the checkpoint `name`; None: from the one the bundle names. The checkpoint
    must have the bundle's fingerprint or give one text the same vector; without a bundle it may be any CLAP.
    with_audio: whether its audio tower is needed beside the text tower.

    Raises CheckpointError, also for a CLAP without the audio tower that is needed, and BundleError for another space.
    """
    space = load_space(name or (bundle.target.name if bundle else ""), only=None if with_audio else "text")
    if with_audio and space.mels is None:
        raise CheckpointError(
            f"{space.name} has no audio tower to encode sounds with: pass --clap, the whole CLAP whose text tower it "
            "is (AudioLDM's is in its original .ckpt file)"
        )
    if bundle and space.fingerprint != bundle.target.fingerprint:
        require_same_clap(bundle, space)
    return space


def require_same_space(wanted: SpaceId, found: SpaceId, role: str) -> None:
    """Raises BundleError, naming both, unless two spaces have the same fingerprint; if the bundle has none, as an
    imported one, unless they have the same width."""
    if (wanted.fingerprint or found.fingerprint) != found.fingerprint or wanted.dim != found.dim:
        raise BundleError(
            f"the translator was trained with {role} {wanted.name} ({wanted.fingerprint[:12] or wanted.dim}), but "
            f"{found.name} is another space ({found.fingerprint[:12]}, {found.dim} wide); pass the checkpoint it was "
            "trained with, or train for this one"
        )


def require_same_clap(bundle: Bundle, space: Space) -> None:
    """Raises BundleError unless a CLAP gives the text PROBE the vector that the bundle's target space gives it; if the
    bundle has no fingerprint, as an imported one, unless they have the same width."""
    if bundle.target.fingerprint:
        own = load_space(bundle.target.name, only="text")
        require_same_space(bundle.target, own.id, "the CLAP")
        is_same = is_same_direction(*(tower.encode_text([PROBE])[0] for tower in (own, space)))
    else:
        is_same = space.dim == bundle.target.dim
    if not is_same:
        raise BundleError(
            f"{space.name} is another CLAP than the translator's, {bundle.target.name}: cosines would mean nothing; "
            "pass the one whose text tower that is"
        )


def is_same_direction(one_E: Float[np.ndarray, "_"], other_E: Float[np.ndarray, "_"]) -> bool:
    """Whether two vectors of one text come from copies of one tower: their cosine is at least SAME."""
    return one_E.shape == other_E.shape and float(unit_rows(one_E[None])[0] @ unit_rows(other_E[None])[0]) >= SAME


def require_output_mean(bundle: Bundle, output_mean: str) -> None:
    """Raises ConfigError unless a bundle can un-centre translations with the mean of captions ("text") or of sounds
    ("audio"). A translator of uncentred vectors only allows "text", which has no effect on it."""
    if output_mean not in ("text", "audio"):
        raise ConfigError(f"--output-mean is {output_mean!r:.40}: pass text or audio")
    if output_mean == "audio" and bundle.spec.input_norm != "centred":
        raise ConfigError(
            "--output-mean audio is for translators of centred vectors; this one takes uncentred vectors: leave it out"
        )
    if output_mean == "audio" and bundle.means.target_audio is None:
        raise ConfigError(
            "the translator stores no mean of sounds for --output-mean audio: add one with c2c calibrate --sounds"
        )


def means_in_use(bundle: Bundle, output_mean: str = "text") -> list[str]:
    """Lines for the user: which means and which caption memory a bundle uses for images. among: see `translate`."""
    lines = []
    if bundle.spec.input_norm == "centred":
        has_mean = bundle.means.source_image is not None
        lines = ["centring pictures with the mean stored in the translator" if has_mean else NO_IMAGE_MEAN]
        lines += (
            ["un-centring results with the mean of sounds stored in the translator"] if output_mean == "audio" else []
        )
    elif bundle.means.used:
        lines = [f"moving images by the means stored in the translator: {', '.join(bundle.means.used)}"]
    return lines + ([f"{bundle.memory} in use"] if bundle.memory and bundle.memory.weight else [])
