"""Estimates the mean vectors of images, sounds and texts, without labels or pairs, and stores them in a bundle."""

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from c2c_jax.data.caption_files import Txt
from c2c_jax.data.captions import CaptionStream, open_sources
from c2c_jax.errors import AudioError, BundleError, C2CError, CaptionError, ConfigError, ImageError, StoreError
from c2c_jax.evaluation.methods import with_caption_means
from c2c_jax.evaluation.results import SkippedFile
from c2c_jax.evaluation.training_store import open_training_store
from c2c_jax.evaluation.vectors import TEXTS_AT_ONCE, file_vectors
from c2c_jax.io.audio import find_audio
from c2c_jax.io.files import describe_path, is_array, is_regular, user_path
from c2c_jax.io.output_paths import require_replaceable_folder
from c2c_jax.io.progress import Progress
from c2c_jax.io.resolve import BUNDLE_FILES, EMBEDDED, bundle_folder, is_local
from c2c_jax.io.vectors import read_vectors
from c2c_jax.spaces.encoding import IMAGE_BATCH
from c2c_jax.spaces.space import Space, load_space
from c2c_jax.translator import mean_estimates
from c2c_jax.translator.bundle import Bundle, load_bundle, write_modality_means
from c2c_jax.translator.centring import ModalityMeans, shift_to_captions
from c2c_jax.translator.inference import load_clap, require_same_space, translate
from c2c_jax.translator.mean_estimates import Estimate

EXPORTED = ("README.md", "model_from_image.onnx")  # exported files that contain or describe the means

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The estimated means, and the bundle that they are stored in.

    images, audio, texts: the estimates; None if no such input was given. texts has one for each space. left_out: files
    that could not be read. stale: files in the bundle's folder that still use the old means. narrow_warning: a warning
    if the images are too similar.
    For translators of uncentred vectors: shifted_distance: distance from the captions' mean to the images' mean, once
    they are shifted; None if unknown. translated_distances: distances from the mean of sounds to that of the translated
    images, without and with the means; None if either is unknown.
    """

    folder: Path
    means: ModalityMeans
    is_centred: bool
    left_out: list[SkippedFile] = dataclasses.field(default_factory=list)
    stale: list[str] = dataclasses.field(default_factory=list)
    images: Estimate | None = None
    audio: Estimate | None = None
    texts: tuple[Estimate, Estimate] | None = None
    narrow_warning: str | None = None
    shifted_distance: float | None = None
    translated_distances: tuple[float, float] | None = None


def calibrate(
    run: Path,
    *,
    images: Sequence[Path] = (),
    audio: Path | None = None,
    texts: str | None = None,
    clip: str | None = None,
    clap: str | None = None,
    store: Path | None = None,
    out: Path | None = None,
) -> Calibration:
    """Estimates the mean vectors of images, sounds and texts and writes them into a bundle, which keeps its other
    means.

    run: see `bundle_folder`. images: files, or one .npy file of raw source vectors [N, S]. audio: a folder, or an .npy
    file of raw audio vectors [N, E]. Either array may be the mean itself, see `with_means`. texts: a file with one text
    per line, or a caption source; their means replace those of the captions. clip, clap: names as for `load_space`;
    None: those of the bundle. store: the training store, needed only if the bundle lacks the captions' means; None: the
    store that the run names. out: the bundle folder to write; None: the folder that was read.
    Files that cannot be read are skipped and logged.

    Raises ConfigError, BundleError or CheckpointError; and ImageError, AudioError or CaptionError if fewer than
    `mean_estimates.MIN_FOR_MEAN` vectors can be read. Then nothing is written.
    """
    folder, out = _folders(run, out)
    bundle = load_bundle(folder)
    input_norm, is_centred = bundle.spec.input_norm, bundle.spec.input_norm == "centred"
    image_BS = audio_BE = None
    audio_files: list[Path] = []
    if images and is_array(images[0]):
        image_BS, images = read_vectors(images[0], bundle.spec.source_dim, ImageError), ()
    elif images:
        for path in images:
            if (kind := describe_path(path)) != "a file":
                raise ImageError(f"expected images at {path}, found {kind}: name images, or folders of images")
        mean_estimates.require_enough(len(images), "images", ImageError)
    if audio and is_array(audio):
        audio_BE = read_vectors(audio, bundle.spec.target_dim, AudioError)
    elif audio:
        if not audio.is_dir():
            raise AudioError(
                f"expected a folder of sounds at {audio}, found {describe_path(audio)}: pass an existing folder"
            )
        audio_files = find_audio(audio)
        mean_estimates.require_enough(len(audio_files), f"sounds in {audio}", AudioError)
    means = bundle.means if texts else _with_captions(run, folder, bundle, store)
    left_out: list[SkippedFile] = []
    clip_space = clap_space = text_estimates = None
    if images or texts:
        name = clip or bundle.source.name
        clip_space = load_space(name, only=None if images and texts else "image" if images else "text")
        require_same_space(bundle.source, clip_space.id, "the CLIP")
    if audio_files or texts:
        clap_space = load_clap(bundle, clap, with_audio=bool(audio_files))
    with Progress() as bar:
        if texts and clip_space and clap_space:
            means, text_estimates = _with_texts(texts, means, input_norm, (clip_space, clap_space), bar)
        if images and clip_space:
            by_image, skipped = file_vectors("images", images, clip_space, bar)
            left_out += skipped
        if audio_files and clap_space:
            by_audio, skipped = file_vectors("sounds", audio_files, clap_space, bar)
            left_out += skipped
    for skipped_file in left_out:
        logger.warning("left out: %s", skipped_file)
    if images:
        mean_estimates.require_enough(len(by_image), "images", ImageError)
        image_BS = np.stack(list(by_image.values()))
    if audio_files:
        mean_estimates.require_enough(len(by_audio), "sounds", AudioError)
        audio_BE = np.stack(list(by_audio.values()))

    means, image_estimate, audio_estimate = mean_estimates.with_means(means, input_norm, image_BS, audio_BE)
    captions_spread = mean_estimates.captions_spread(means, input_norm)
    narrow_warning = shifted_distance = translated_distances = None
    if image_estimate and captions_spread is not None:
        narrow_warning = mean_estimates.narrow_warning(image_estimate.spread, captions_spread)
    if image_BS is not None and len(image_BS) > 1 and not is_centred:
        shifted_BS = np.asarray(shift_to_captions(means, input_norm, jnp.asarray(image_BS, jnp.float32)))
        shifted_S = mean_estimates.scaled(shifted_BS, input_norm).mean(axis=0)
        shifted_distance = mean_estimates.mean_distance(shifted_S, means.mean("source_text"))
        if means.target_audio is not None:
            before_E, after_E = (
                _translated_mean(dataclasses.replace(bundle, means=bundle_means), image_BS)
                for bundle_means in (ModalityMeans(), means)
            )
            translated_distances = (
                mean_estimates.mean_distance(before_E, means.target_audio),
                mean_estimates.mean_distance(after_E, means.target_audio),
            )
    write_modality_means(folder, means, out)
    return Calibration(
        folder=out or folder,
        means=means,
        is_centred=is_centred,
        left_out=left_out,
        stale=_stale(out or folder, is_centred and text_estimates is not None),
        images=image_estimate,
        audio=audio_estimate,
        texts=text_estimates,
        narrow_warning=narrow_warning,
        shifted_distance=shifted_distance,
        translated_distances=translated_distances,
    )


def remove(run: Path, out: Path | None = None) -> Calibration:
    """Removes the means of images and sounds from a bundle, which keeps those of captions.

    run, out: as for `calibrate`. Raises ConfigError if there are none, and the errors of `load_bundle`.
    """
    folder, out = _folders(run, out)
    bundle = load_bundle(folder)
    before, is_centred = bundle.means, bundle.spec.input_norm == "centred"
    if not before.used:
        raise ConfigError(f"{folder} holds no mean of images or sounds: there is nothing to remove")
    means = ModalityMeans(source_text=before.source_text, target_text=before.target_text)
    write_modality_means(folder, means, out)
    return Calibration(folder=out or folder, means=means, is_centred=is_centred, stale=_stale(out or folder, False))


def _folders(run: Path, out: Path | None) -> tuple[Path, Path | None]:
    """The bundle's folder, and the folder to write; None: the same. Raises ConfigError if it cannot be written."""
    folder = bundle_folder(run)
    if out is None or out.resolve() == folder.resolve():
        if not is_local(run) or folder.resolve().is_relative_to(EMBEDDED.resolve()):
            raise ConfigError(
                f"{run} comes from the package or the hub and is not modified: pass --out, a folder for the new bundle"
            )
        return folder, None
    require_replaceable_folder(out, "--out")
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    try:
        if names == sorted(BUNDLE_FILES):  # it may be replaced if it is a bundle and nothing else
            load_bundle(out)
            names = []
    except C2CError:
        pass
    if names:
        raise ConfigError(f"--out {out} exists and is not a translator bundle: pass another folder")
    return folder, out


def _with_captions(run: Path, folder: Path, bundle: Bundle, store: Path | None) -> ModalityMeans:
    """The bundle's means; missing means of captions are computed from its training store."""
    if {"source_text", "target_text"} <= {*bundle.means.known}:
        return bundle.means
    try:
        training = open_training_store(run if run.is_dir() else folder, bundle, store)
    except StoreError as error:
        raise BundleError(f"{folder} stores no means of captions, and they cannot be computed: {error}") from None
    logger.info("going through %s captions for their means", f"{training.store.plan.rows:,}")
    return with_caption_means(bundle.means, training, bundle.spec.input_norm)


def _with_texts(
    texts: str,
    means: ModalityMeans,
    input_norm: str,
    spaces: tuple[Space, Space],
    bar: Progress,
) -> tuple[ModalityMeans, tuple[Estimate, Estimate]]:
    """Replaces the means of captions by those of texts; also returns the estimates in both spaces.

    texts: see `calibrate`. Exact duplicates count once, as in training. Raises CaptionError.
    """
    path = user_path(texts)
    captions = CaptionStream([Txt(f"txt:{path}")] if is_regular(path) else open_sources(texts), drop_duplicates=True)
    sums, stream = [mean_estimates.MeanAccumulator(space.dim) for space in spaces], iter(captions)
    task = bar.add_task("texts", total=None)
    while block := list(itertools.islice(stream, TEXTS_AT_ONCE)):
        for space, space_sums, norm in zip(spaces, sums, (input_norm, "unit"), strict=True):
            space_sums.add(mean_estimates.scaled(space.encode_text(block), norm))
        bar.advance(task, len(block))
    captions.log_counts()
    source, target = (
        space_sums.estimate(before, "texts", CaptionError)
        for space_sums, before in zip(sums, (means.source_text, means.target_text), strict=True)
    )
    return dataclasses.replace(means, source_text=source.mean, target_text=target.mean), (source, target)


def _translated_mean(bundle: Bundle, image_BS: Float[np.ndarray, "B S"]) -> Float[np.ndarray, "E"]:
    """The mean of the translated images."""
    starts = range(0, len(image_BS), IMAGE_BATCH)
    parts = (translate(bundle, np.asarray(image_BS[start : start + IMAGE_BATCH], np.float32)) for start in starts)
    return np.sum([part_BE.sum(axis=0, dtype=np.float64) for part_BE in parts], axis=0) / len(image_BS)


def _stale(folder: Path, has_new_texts: bool) -> list[str]:
    names = (*EXPORTED, "model.onnx") if has_new_texts else EXPORTED
    return [name for name in names if (folder / name).exists()]
