"""Translates images with a bundle, and checks that CLIP and CLAP are those that the bundle was trained for."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from c2c_jax.errors import BundleError, CheckpointError, ConfigError, ImageError
from c2c_jax.io.vectors import unit_rows
from c2c_jax.spaces.encoding import IMAGE_BATCH, encode_image_files
from c2c_jax.spaces.models.layers import unit
from c2c_jax.spaces.space import Space, load_space
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.translator.bundle import Bundle
from c2c_jax.translator.centring import translate_image, translate_text

PROBE = "a sound"  # two CLAPs are compared by their vectors of this text
TRANSLATED_AT_ONCE = 8192  # vectors translated together
TRANSFORMER_BATCH = 64  # the same for the kind transformer, which takes 4 to 14 MiB per row
MIN_COSINE = 0.999  # of the vectors that two copies of one tower give PROBE
NO_IMAGE_MEAN = (
    "the translator stores no mean of images, so image retrieval scores drop by 4 to 18 % (relative): "
    "add one with c2c calibrate RUN --images photos/"
)


def translate(
    bundle: Bundle, source_BS: Float[np.ndarray, "B S"], output_mean: str = "text", *, kind: str = "image"
) -> Float[np.ndarray, "B E"]:
    """Translates raw source vectors [B, S] into unit target vectors [B, E], float32; see `centring.translate_image` and
    `centring.translate_text`.

    kind: "image" or "text", what the vectors are of. Raises BundleError for a translator that returns zero or
    non-finite vectors.
    """
    block = TRANSFORMER_BATCH if bundle.spec.kind == "transformer" else TRANSLATED_AT_ONCE
    parts = [_translated(bundle, source_BS[i : i + block], output_mean, kind) for i in range(0, len(source_BS), block)]
    return np.concatenate([np.zeros((0, bundle.spec.target_dim), np.float32), *parts])


def _translated(
    bundle: Bundle, source_BS: Float[np.ndarray, "B S"], output_mean: str, kind: str
) -> Float[np.ndarray, "B E"]:
    with jax.default_matmul_precision("float32"):  # accelerators use lower precision by default
        x_BS = jnp.asarray(source_BS)
        if kind == "image":
            raw_BE = translate_image(bundle.translator, bundle.means, x_BS, bundle.memory, output_mean)
        else:
            raw_BE = translate_text(bundle.translator, bundle.means, x_BS)
        vectors_BE = np.asarray(unit(raw_BE))
    has_zero = not vectors_BE.any(axis=1).all()
    if bundle.spec.input_norm == "centred":  # an un-centred zero vector equals the mean
        has_zero = bool(np.isclose(raw_BE, bundle.means.mean(f"target_{output_mean}"), atol=1e-6).all(axis=1).any())
    if has_zero or not np.isfinite(vectors_BE).all():
        raise BundleError(
            f"the translator from {bundle.source.name} to {bundle.target.name} returns zero or non-finite vectors: "
            "its weights are damaged; export or train it again"
        )
    return vectors_BE


def translate_image_files(
    paths: Sequence[Path],
    space: Space,
    bundle: Bundle,
    on_image: Callable[[], None] = lambda: None,
    output_mean: str = "text",
) -> tuple[dict[Path, Float[np.ndarray, "E"]], list[ImageError]]:
    """Returns the unit CLAP vectors of the readable image files, and the errors of the others. space: the CLIP.
    on_image: called after each file is read. output_mean: see `translate_image`."""
    source, errors = encode_image_files(paths, space, on_image)
    vectors: dict[Path, np.ndarray] = {}
    for start in range(0, len(source), IMAGE_BATCH):
        part = list(source)[start : start + IMAGE_BATCH]
        vectors.update(
            zip(part, translate(bundle, np.stack([source[path] for path in part]), output_mean), strict=True)
        )
    return vectors, errors


def load_clip(bundle: Bundle, name: str | None, *, with_text: bool) -> Space:
    """Loads the bundle's source space. name: its checkpoint; None: the one named in the bundle. with_text: whether the
    text tower is needed besides the image tower. Raises CheckpointError, or BundleError for a different space."""
    space = load_space(name or bundle.source.name, only=None if with_text else "image")
    require_same_space(bundle.source, space.id, "the CLIP")
    return space


def load_clap(bundle: Bundle | None, name: str | None, *, with_audio: bool) -> Space:
    """Loads the bundle's target space. name: its checkpoint; None: the one named in the bundle. with_audio: whether the
    audio tower is needed besides the text tower.

    The checkpoint must have the bundle's fingerprint or give one text the same vector; without a bundle, any CLAP will
    do. Raises CheckpointError, also if the needed audio tower is missing, and BundleError for a different space.
    """
    space = load_space(name or (bundle.target.name if bundle else ""), only=None if with_audio else "text")
    if with_audio and space.audio_preprocessor is None:
        raise CheckpointError(
            f"{space.name} has no audio tower to encode sounds with: pass --clap with the whole CLAP that "
            "this text tower belongs to (AudioLDM's is in its original .ckpt file)"
        )
    if bundle and space.fingerprint != bundle.target.fingerprint:
        require_same_clap(bundle, space)
    return space


def require_same_space(expected: SpaceId, actual: SpaceId, role: str) -> None:
    """Raises BundleError unless two spaces have the same fingerprint, or, if an imported bundle does not know it, the
    same width."""
    if (expected.fingerprint or actual.fingerprint) != actual.fingerprint or expected.dim != actual.dim:
        raise BundleError(
            f"the translator was trained with {role} {expected.name} ({expected.fingerprint[:12] or expected.dim}), "
            f"but "
            f"{actual.name} is another space ({actual.fingerprint[:12]}, {actual.dim} wide); pass the checkpoint it "
            f"was "
            "trained with, or train for this one"
        )


def require_same_clap(bundle: Bundle, space: Space) -> None:
    """Raises BundleError unless a CLAP gives the text PROBE the same vector as the bundle's target space, or, if an
    imported bundle has no fingerprint, has the same width."""
    if bundle.target.fingerprint:
        own = load_space(bundle.target.name, only="text")
        require_same_space(bundle.target, own.id, "the CLAP")
        is_equal = is_same_direction(*(tower.encode_text([PROBE])[0] for tower in (own, space)))
    else:
        is_equal = space.dim == bundle.target.dim
    if not is_equal:
        raise BundleError(
            f"{space.name} is another CLAP than the translator's, {bundle.target.name}: cosines would be "
            "meaningless; pass the translator's CLAP"
        )


def is_same_direction(first_E: Float[np.ndarray, "_"], second_E: Float[np.ndarray, "_"]) -> bool:
    """Whether two vectors of one text come from the same tower: their cosine is at least MIN_COSINE."""
    return (
        first_E.shape == second_E.shape
        and float(unit_rows(first_E[None])[0] @ unit_rows(second_E[None])[0]) >= MIN_COSINE
    )


def require_output_mean(bundle: Bundle, output_mean: str) -> None:
    """Raises ConfigError unless a bundle can un-centre translations with the mean of captions ("text") or of sounds
    ("audio"). Translators of uncentred vectors only allow "text", which has no effect."""
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
    """Lines for the user: which means and which caption memory a bundle uses for images."""
    lines = []
    if bundle.spec.input_norm == "centred":
        has_mean = bundle.means.source_image is not None
        lines = ["centring images with the mean stored in the translator" if has_mean else NO_IMAGE_MEAN]
        if output_mean == "audio":
            lines.append("un-centring results with the mean of sounds stored in the translator")
    elif bundle.means.used:
        lines = [f"shifting image vectors by the stored mean difference: {', '.join(bundle.means.used)}"]
    return lines + ([f"{bundle.memory} in use"] if bundle.memory and bundle.memory.weight else [])
