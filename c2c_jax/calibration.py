"""The gap statistics of pictures and sounds, estimated from files without labels or pairs and put into a bundle."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from rich.console import Console

from c2c_jax.errors import BundleError, C2CError, ConfigError, ImageError, SoundError, StoreError
from c2c_jax.evaluation.encoding import Vectors, heard_vectors, load_clap, load_clip, picture_vectors
from c2c_jax.evaluation.gaps import unit_rows
from c2c_jax.evaluation.rows import LeftOut
from c2c_jax.evaluation.trained_on import trained_on
from c2c_jax.inference import ENCODED_AT_ONCE, translate
from c2c_jax.io.files import found_at
from c2c_jax.io.places import require_replaceable_folder
from c2c_jax.io.progress import Progress
from c2c_jax.models.gap import Gap, over_source_gap
from c2c_jax.sounds import sound_files
from c2c_jax.training.closed_form import caption_means
from c2c_jax.weights.folders import EMBEDDED
from c2c_jax.weights.resolve import BUNDLE_FILES, bundle_folder, is_local
from c2c_jax.weights.translator import Bundle, load_bundle, write_gap

FEWEST = 8  # files that a mean is taken of
EXPORTED = "README.md", "model_from_image.onnx"  # what an export tells and makes of the statistics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean of `files` files' vectors. length: its distance from the captions' mean. error: its expected distance from
    the mean of all such files, had these been drawn from them one by one: √(their vectors' variance / files)."""

    files: int
    mean: Float[np.ndarray, "D"]
    length: float
    error: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was estimated and put into a bundle. pictures, sounds: None where there were none.

    pictures_after: distance of the captions' mean from that of these pictures' vectors as the statistics correct them,
    before any caption memory. translated: distances of the mean of the translated pictures from the sounds', without
    the statistics and with them; None where one of the two is not known. stale: files beside the bundle that tell of
    its former statistics.
    """

    folder: Path
    gap: Gap
    left_out: list[LeftOut]
    stale: list[str]
    pictures: Estimate | None = None
    pictures_after: float | None = None
    sounds: Estimate | None = None
    translated: tuple[float, float] | None = None


def calibrate(
    run: Path,
    *,
    pictures: Sequence[Path] = (),
    sounds: Path | None = None,
    clip: str | None = None,
    clap: str | None = None,
    store: Path | None = None,
    out: Path | None = None,
    console: Console,
) -> Calibration:
    """Estimates the means of pictures' and of sounds' vectors and writes them into a bundle, with the captions' means
    where it lacks them; what it knows of the other kind stays.

    run: see `bundle_folder`. sounds: a folder. clip, clap: names as for `load_space`, None: the
    bundle's own. store: the one that the bundle was trained on, which is needed for captions' means alone; None: where
    the run says. out: the folder of the bundle to write, None: the one that was read. console: for progress and for
    files that cannot be read, which are left out.
    Raises ConfigError, BundleError or CheckpointError, and ImageError or SoundError where fewer than FEWEST files are
    left; then nothing is written.
    """
    folder, out = _places(run, out)
    bundle = load_bundle(folder)
    heard = _sounds_in(sounds) if sounds else []
    for path in pictures:
        if (found := found_at(path)) != "a file":
            raise ImageError(f"expected pictures at {path}, found {found}: name pictures, or folders of pictures")
    if pictures:
        _require_enough(len(pictures), "pictures", ImageError)
    gap = _with_captions(run, folder, bundle, store, console)
    eyes = load_clip(bundle, clip, reads_texts=False) if pictures else None
    ears = load_clap(bundle, clap, hears=True) if heard else None
    with Progress(console) as bar:
        seen, unseen = picture_vectors(pictures, eyes, bar) if eyes else ({}, [])
        sounding, unheard = heard_vectors(heard, ears, bar) if ears else ({}, [])
    for one in unseen + unheard:
        console.print(f"left out: {one.file}: {one.why}")

    image_BS = _stacked(seen, "pictures", ImageError) if eyes else None
    audio_BE = _stacked(sounding, "sounds", SoundError) if ears else None
    input_norm, after, translated = bundle.spec.input_norm, None, None
    gap, of_pictures, of_sounds = with_means(gap, input_norm, image_BS, audio_BE)
    if image_BS is not None and gap.source_text is not None:
        shifted_BS = np.asarray(over_source_gap(gap, input_norm, jnp.asarray(image_BS)))
        after = _distance(_as_taken(shifted_BS, input_norm), gap.source_text)
    if image_BS is not None and gap.target_audio is not None:
        without, with_it = (_translated(dataclasses.replace(bundle, gap=one), image_BS) for one in (Gap(), gap))
        translated = _distance(without, gap.target_audio), _distance(with_it, gap.target_audio)
    write_gap(folder, gap, out)
    return Calibration(
        folder=out or folder,
        gap=gap,
        left_out=unseen + unheard,
        stale=_stale(out or folder),
        pictures=of_pictures,
        pictures_after=after,
        sounds=of_sounds,
        translated=translated,
    )


def with_means(
    gap: Gap,
    input_norm: str,
    image_NS: Float[np.ndarray, "N S"] | None = None,
    audio_ME: Float[np.ndarray, "M E"] | None = None,
) -> tuple[Gap, Estimate | None, Estimate | None]:
    """Statistics with the means of pictures' raw vectors, of sounds' or of both, beside what they know already; and the
    two estimates, None where there are no vectors or no captions' mean that they could be held against."""
    of_pictures = of_sounds = None
    if image_NS is not None and gap.source_text is not None:
        of_pictures = _estimate(_as_taken(image_NS, input_norm), gap.source_text)
        gap = dataclasses.replace(gap, source_image=of_pictures.mean)
    if audio_ME is not None and gap.target_text is not None:
        of_sounds = _estimate(unit_rows(audio_ME), gap.target_text)
        gap = dataclasses.replace(gap, target_audio=of_sounds.mean)
    return gap, of_pictures, of_sounds


def remove(run: Path, out: Path | None = None) -> Calibration:
    """Takes the statistics of pictures and sounds out of a bundle; the captions', which correct nothing alone, stay.

    run, out: as for `calibrate`. Raises ConfigError where there are none, and as `load_bundle`.
    """
    folder, out = _places(run, out)
    before = load_bundle(folder).gap
    if not before.used:
        raise ConfigError(f"{folder} holds no statistics of pictures or sounds: there is nothing to remove")
    gap = Gap(source_text=before.source_text, target_text=before.target_text)
    write_gap(folder, gap, out)
    return Calibration(folder=out or folder, gap=gap, left_out=[], stale=_stale(out or folder))


def _places(run: Path, out: Path | None) -> tuple[Path, Path | None]:
    """The bundle's folder, and the one to write; None: the same. Raises ConfigError where it cannot be written."""
    folder = bundle_folder(run)
    if out is not None and out.resolve() == folder.resolve():
        out = None
    if out is None and (not is_local(run) or folder.resolve().is_relative_to(EMBEDDED.resolve())):
        raise ConfigError(
            f"{run} comes from the package or the hub and is not modified: pass --out, a folder for the new bundle"
        )
    if out is not None:
        require_replaceable_folder(out, "--out")
        if out.is_dir() and not _may_be_replaced(out):
            raise ConfigError(f"--out {out} exists and is not a translator bundle: pass another folder")
    return folder, out


def _may_be_replaced(folder: Path) -> bool:
    """Whether a folder is empty, or a bundle and nothing else."""
    found = sorted(path.name for path in folder.iterdir())
    if found != sorted(BUNDLE_FILES):
        return not found
    try:
        load_bundle(folder)
    except C2CError:
        return False
    return True


def _sounds_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SoundError(f"expected a folder of sounds at {folder}, found {found_at(folder)}: pass an existing folder")
    files = sound_files(folder)
    _require_enough(len(files), f"sounds in {folder}", SoundError)
    return files


def _require_enough(count: int, what: str, kind: type[ImageError] | type[SoundError]) -> None:
    if count < FEWEST:
        raise kind(f"{count} {what} that can be read: take {FEWEST} or more for a mean, better some hundreds")


def _with_captions(run: Path, folder: Path, bundle: Bundle, store: Path | None, console: Console) -> Gap:
    """The bundle's statistics, with captions' means from the store that it was trained on where it lacks one."""
    if bundle.gap.source_text is not None and bundle.gap.target_text is not None:
        return bundle.gap
    try:
        trained = trained_on(run if run.is_dir() else folder, bundle, store)
    except StoreError as error:
        raise BundleError(f"{folder} has no means of captions, which a gap is measured from, and {error}") from None
    console.print(f"going through {trained.store.plan.rows:,} captions for their means")
    found = caption_means(trained.store, trained.untrained, bundle.spec.input_norm)
    return dataclasses.replace(found, **{name: getattr(bundle.gap, name) for name in bundle.gap.known})


def _stacked(vectors: Vectors, what: str, kind: type[ImageError] | type[SoundError]) -> Float[np.ndarray, "N D"]:
    _require_enough(len(vectors), what, kind)
    return np.stack(list(vectors.values()))


def _as_taken(x_NS: Float[np.ndarray, "N S"], input_norm: str) -> Float[np.ndarray, "N S"]:
    """Raw vectors as a translator with that input_norm takes them, before it scales them."""
    return unit_rows(x_NS) if input_norm != "none" else x_NS


def _estimate(x_ND: Float[np.ndarray, "N D"], text_D: Float[np.ndarray, "D"]) -> Estimate:
    x_ND = np.asarray(x_ND, np.float64)
    error = float(np.sqrt(x_ND.var(axis=0, ddof=1).sum() / len(x_ND)))
    mean = x_ND.mean(0).astype(np.float32)
    return Estimate(files=len(x_ND), mean=mean, length=_distance(x_ND, text_D), error=error)


def _distance(x_ND: Float[np.ndarray, "N D"], mean_D: Float[np.ndarray, "D"]) -> float:
    """Of the rows' mean from another one."""
    return float(np.linalg.norm(np.mean(x_ND, axis=0, dtype=np.float64) - mean_D))


def _translated(bundle: Bundle, image_BS: Float[np.ndarray, "B S"]) -> Float[np.ndarray, "B E"]:
    parts = range(0, len(image_BS), ENCODED_AT_ONCE)
    return np.concatenate([translate(bundle, image_BS[start : start + ENCODED_AT_ONCE]) for start in parts])


def _stale(folder: Path) -> list[str]:
    return [name for name in EXPORTED if (folder / name).exists()]
