"""Estimates the mean vectors of images, sounds and texts without labels or pairs, and stores them in a bundle."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from rich.console import Console

from c2c_jax.data.caption_files import Txt
from c2c_jax.data.captions import CaptionStream, open_sources
from c2c_jax.errors import AudioError, BundleError, C2CError, CaptionError, ConfigError, ImageError, StoreError
from c2c_jax.evaluation.methods import with_caption_means
from c2c_jax.evaluation.rows import SkippedFile
from c2c_jax.evaluation.training_store import open_training_store
from c2c_jax.evaluation.vectors import TEXTS_AT_ONCE, audio_vectors, image_vectors
from c2c_jax.io.audio import find_audio
from c2c_jax.io.files import describe_path, is_array, is_regular, user_path
from c2c_jax.io.output_paths import require_replaceable_folder
from c2c_jax.io.progress import Progress
from c2c_jax.io.vectors import read_vectors
from c2c_jax.spaces.encoding import IMAGE_BATCH
from c2c_jax.spaces.space import Space, load_space
from c2c_jax.spaces.weights.folders import EMBEDDED
from c2c_jax.translator import mean_estimates
from c2c_jax.translator.bundle import Bundle, load_bundle, write_modality_means
from c2c_jax.translator.centring import ModalityMeans, shift_to_captions
from c2c_jax.translator.inference import load_clap, require_same_space, translate
from c2c_jax.translator.mean_estimates import Estimate
from c2c_jax.translator.resolve import BUNDLE_FILES, bundle_folder, is_local

EXPORTED = ("README.md", "model_from_image.onnx")  # files of an export that hold or describe the means


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The estimated means, and the bundle that they were stored in.

    pictures, sounds, texts: None if none were given; texts have one mean in each space. narrow: a warning if the
    pictures are too similar. pictures_after: for a translator of uncentred vectors, the distance from the captions'
    mean to the mean of these pictures once they are moved. translated: for such a translator, the distances from the
    mean of sounds to that of the translated pictures, without the means and with them; None if either is unknown.
    stale: files in the bundle's folder that still use the old means.
    """

    folder: Path
    means: ModalityMeans
    is_centred: bool
    left_out: list[SkippedFile] = dataclasses.field(default_factory=list)
    stale: list[str] = dataclasses.field(default_factory=list)
    pictures: Estimate | None = None
    sounds: Estimate | None = None
    texts: tuple[Estimate, Estimate] | None = None
    narrow: str | None = None
    pictures_after: float | None = None
    translated: tuple[float, float] | None = None


def calibrate(
    run: Path,
    *,
    pictures: Sequence[Path] = (),
    sounds: Path | None = None,
    texts: str | None = None,
    clip: str | None = None,
    clap: str | None = None,
    store: Path | None = None,
    out: Path | None = None,
    console: Console,
) -> Calibration:
    """Estimates the mean vectors of pictures, sounds and texts and writes them into a bundle; its other means stay.

    run: see `bundle_folder`. pictures: files, or one .npy file of raw source vectors [N, S]. sounds: a folder, or an
    .npy file of raw audio vectors [N, E]. Either array may hold the mean itself, see `with_means`. texts: a file with
    one text a line, or a caption source; their means replace those of the captions. clip, clap: names as for
    `load_space`; None: those of the bundle. store: the store that the bundle was trained on, needed only if the bundle
    lacks the captions' means; None: the store that the run names. out: the bundle folder to write; None: the folder
    that was read. console: prints progress, and the files that cannot be read, which are skipped.
    Raises ConfigError, BundleError or CheckpointError, and ImageError, AudioError or CaptionError if fewer than
    `mean_estimates.MIN_FOR_MEAN` vectors are left; then nothing is written.
    """
    folder, out = _places(run, out)
    bundle = load_bundle(folder)
    input_norm, is_centred = bundle.spec.input_norm, bundle.spec.input_norm == "centred"
    image_BS = audio_BE = None
    audio_files: list[Path] = []
    if pictures and is_array(pictures[0]):
        image_BS, pictures = read_vectors(pictures[0], bundle.spec.source_dim, ImageError), ()
    elif pictures:
        for path in pictures:
            if (found := describe_path(path)) != "a file":
                raise ImageError(f"expected pictures at {path}, found {found}: name pictures, or folders of pictures")
        mean_estimates.require_enough(len(pictures), "pictures", ImageError)
    if sounds and is_array(sounds):
        audio_BE = read_vectors(sounds, bundle.spec.target_dim, AudioError)
    elif sounds:
        if not sounds.is_dir():
            found = describe_path(sounds)
            raise AudioError(f"expected a folder of sounds at {sounds}, found {found}: pass an existing folder")
        audio_files = find_audio(sounds)
        mean_estimates.require_enough(len(audio_files), f"sounds in {sounds}", AudioError)
    means = bundle.means if texts else _with_captions(run, folder, bundle, store, console)
    left_out: list[SkippedFile] = []
    clip_space = clap_space = of_texts = None
    if pictures or texts:
        name = clip or bundle.source.name
        clip_space = load_space(name, only=None if pictures and texts else "image" if pictures else "text")
        require_same_space(bundle.source, clip_space.id, "the CLIP")
    if audio_files or texts:
        clap_space = load_clap(bundle, clap, with_audio=bool(audio_files))
    with Progress(console) as bar:
        if texts and clip_space and clap_space:
            means, of_texts = _with_texts(texts, means, input_norm, (clip_space, clap_space), console, bar)
        if pictures and clip_space:
            images, skipped = image_vectors(pictures, clip_space, bar)
            left_out += skipped
        if audio_files and clap_space:
            audios, skipped = audio_vectors(audio_files, clap_space, bar)
            left_out += skipped
    for one in left_out:
        console.print(f"left out: {one}")
    if pictures:
        mean_estimates.require_enough(len(images), "pictures", ImageError)
        image_BS = np.stack(list(images.values()))
    if audio_files:
        mean_estimates.require_enough(len(audios), "sounds", AudioError)
        audio_BE = np.stack(list(audios.values()))

    means, of_images, of_audio = mean_estimates.with_means(means, input_norm, image_BS, audio_BE)
    captions, narrow, after, translated = mean_estimates.captions_spread(means, input_norm), None, None, None
    if of_images and captions is not None:
        narrow = mean_estimates.narrow_warning(of_images.spread, captions)
    if image_BS is not None and len(image_BS) > 1 and not is_centred:
        moved_BS = np.asarray(shift_to_captions(means, input_norm, jnp.asarray(image_BS, jnp.float32)))
        after = mean_estimates.mean_distance(
            mean_estimates.scaled(moved_BS, input_norm).mean(axis=0), means.mean("source_text")
        )
        if means.target_audio is not None:
            without, with_it = (
                _translated(dataclasses.replace(bundle, means=one), image_BS) for one in (ModalityMeans(), means)
            )
            translated = (
                mean_estimates.mean_distance(without, means.target_audio),
                mean_estimates.mean_distance(with_it, means.target_audio),
            )
    write_modality_means(folder, means, out)
    return Calibration(
        folder=out or folder,
        means=means,
        is_centred=is_centred,
        left_out=left_out,
        stale=_stale(out or folder, is_centred and of_texts is not None),
        pictures=of_images,
        sounds=of_audio,
        texts=of_texts,
        narrow=narrow,
        pictures_after=after,
        translated=translated,
    )


def remove(run: Path, out: Path | None = None) -> Calibration:
    """Removes the means of pictures and sounds from a bundle; those of captions stay.

    run, out: as for `calibrate`. Raises ConfigError if there are none, and the errors of `load_bundle`.
    """
    folder, out = _places(run, out)
    bundle = load_bundle(folder)
    before, is_centred = bundle.means, bundle.spec.input_norm == "centred"
    if not before.used:
        raise ConfigError(f"{folder} holds no mean of pictures or sounds: there is nothing to remove")
    means = ModalityMeans(source_text=before.source_text, target_text=before.target_text)
    write_modality_means(folder, means, out)
    return Calibration(folder=out or folder, means=means, is_centred=is_centred, stale=_stale(out or folder, False))


def _places(run: Path, out: Path | None) -> tuple[Path, Path | None]:
    """The bundle's folder, and the one to write; None: the same. Raises ConfigError if it cannot be written."""
    folder = bundle_folder(run)
    if out is None or out.resolve() == folder.resolve():
        if not is_local(run) or folder.resolve().is_relative_to(EMBEDDED.resolve()):
            raise ConfigError(
                f"{run} comes from the package or the hub and is not modified: pass --out, a folder for the new bundle"
            )
        return folder, None
    require_replaceable_folder(out, "--out")
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    try:
        if found == sorted(BUNDLE_FILES):  # it may be replaced if it is a bundle and nothing else
            load_bundle(out)
            found = []
    except C2CError:
        pass
    if found:
        raise ConfigError(f"--out {out} exists and is not a translator bundle: pass another folder")
    return folder, out


def _with_captions(run: Path, folder: Path, bundle: Bundle, store: Path | None, console: Console) -> ModalityMeans:
    """The bundle's means; missing means of captions are computed from the store that it was trained on."""
    if {"source_text", "target_text"} <= {*bundle.means.known}:
        return bundle.means
    try:
        training = open_training_store(run if run.is_dir() else folder, bundle, store)
    except StoreError as error:
        raise BundleError(
            f"{folder} has no means of captions, which the others' distance is measured from, and {error}"
        ) from None
    console.print(f"going through {training.store.plan.rows:,} captions for their means")
    return with_caption_means(bundle.means, training, bundle.spec.input_norm)


def _with_texts(
    texts: str,
    means: ModalityMeans,
    input_norm: str,
    spaces: tuple[Space, Space],
    console: Console,
    bar: Progress,
) -> tuple[ModalityMeans, tuple[Estimate, Estimate]]:
    """The means, with those of captions replaced by those of texts; and the estimates in both spaces.

    texts: see `calibrate`. Exact duplicates count once, as in training. Raises CaptionError.
    """
    path = user_path(texts)
    captions = CaptionStream([Txt(f"txt:{path}")] if is_regular(path) else open_sources(texts), drop_duplicates=True)
    sums, stream, task = (
        [mean_estimates.Sums(space.dim) for space in spaces],
        iter(captions),
        bar.add_task("texts", total=None),
    )
    while block := list(itertools.islice(stream, TEXTS_AT_ONCE)):
        for space, one, norm in zip(spaces, sums, (input_norm, "unit"), strict=True):
            one.add(mean_estimates.scaled(space.encode_text(block), norm))
        bar.advance(task, len(block))
    for line in captions.report():
        console.print(line)
    source, target = (
        one.estimate(before, "texts", CaptionError)
        for one, before in zip(sums, (means.source_text, means.target_text), strict=True)
    )
    return dataclasses.replace(means, source_text=source.mean, target_text=target.mean), (source, target)


def _translated(bundle: Bundle, image_BS: Float[np.ndarray, "B S"]) -> Float[np.ndarray, "E"]:
    """The mean of translated pictures."""
    parts = range(0, len(image_BS), IMAGE_BATCH)
    done = (translate(bundle, np.asarray(image_BS[start : start + IMAGE_BATCH], np.float32)) for start in parts)
    return np.sum([part_BE.sum(axis=0, dtype=np.float64) for part_BE in done], axis=0) / len(image_BS)


def _stale(folder: Path, has_new_texts: bool) -> list[str]:
    names = (*EXPORTED, "model.onnx") if has_new_texts else EXPORTED
    return [name for name in names if (folder / name).exists()]
