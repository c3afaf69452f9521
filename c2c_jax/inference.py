"""The way from pictures to CLAP vectors, and on to sounds: CLIP's vision tower, the translator, AudioLDM."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress

from c2c_jax.errors import BundleError, ConfigError, ImageError
from c2c_jax.files import written_whole
from c2c_jax.generation.sampling import Sampling
from c2c_jax.images import read_image
from c2c_jax.models.gap import translate_image
from c2c_jax.models.layers import unit
from c2c_jax.spaces import Space, SpaceId, identify, load_space
from c2c_jax.weights.folders import checkpoint_folder
from c2c_jax.weights.translator import Bundle, load_bundle

if TYPE_CHECKING:  # torch is loaded where a sound is asked for, and there alone
    from c2c_jax.generation.audioldm import AudioLDM
    from c2c_jax.generation.ranking import Ranker
    from c2c_jax.generation.rendering import Wanted

READ_AT_ONCE = 64  # pictures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """What is mixed into every picture's CLAP vector: texts, then pictures, each with its weight in the sum; the
    picture itself has what is left to 1."""

    prompts: tuple[str, ...] = ()
    pictures: tuple[Path, ...] = ()
    weights: tuple[float, ...] = ()

    def check(self) -> None:
        """Raises ConfigError for weights that make no mixture."""
        count = len(self.prompts) + len(self.pictures)
        if len(self.weights) != count:
            raise ConfigError(f"{count} things to mix in and {len(self.weights)} weights: give one --mix for each")
        if count and not (all(weight > 0 for weight in self.weights) and sum(self.weights) <= 1):
            raise ConfigError(f"mixing weights {self.weights}: take numbers above 0 that sum to 1 at most")

    def __call__(
        self, vectors_BE: Float[np.ndarray, "B E"], mixed_in_ME: Float[np.ndarray, "M E"]
    ) -> Float[np.ndarray, "B E"]:
        """Unit vectors [B, E] of weighted sums of unit vectors."""
        weights_M = np.asarray(self.weights, np.float32)
        return _unit((1 - weights_M.sum()) * vectors_BE + (weights_M @ mixed_in_ME)[None])


def translate(bundle: Bundle, source_BS: Float[np.ndarray, "B S"]) -> Float[np.ndarray, "B E"]:
    """Unit vectors [B, E] of the bundle's target space, float32, from pictures' raw vectors [B, S] of its source space,
    over the modality gap as far as the bundle knows it."""
    return np.asarray(unit(translate_image(bundle.translator, bundle.gap, jnp.asarray(source_BS))))


def subjects_of(paths: Sequence[Path], average: bool) -> dict[Path, list[int]]:
    """What sounds are made of → the places of its pictures in `paths`: each picture by itself, or the folder of
    several, such as the frames of a video."""
    subjects: dict[Path, list[int]] = {}
    for place, path in enumerate(paths):
        subjects.setdefault(path.absolute().parent if average else path, []).append(place)
    return subjects


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """How vectors become sounds."""

    audioldm: str  # hub name or folder
    sampling: Sampling
    ranker: str | None = None  # hub name or folder of a whole CLAP that chooses among candidates
    controls: tuple[str, ...] = ()  # texts whose own sounds are written too: one for each result, or one for all
    device: str | None = None  # as torch names it; None: cuda if there is one
    dtype: str = "float32"
    offload: bool = False  # whether each network is on the device only while it works
    at_once: int = 4  # clips sampled together


def load_generator(wanted: Generation, bundle: Bundle) -> "tuple[AudioLDM, Ranker | None, dict[str, Any]]":
    """The generator, its ranker if one is asked for, and what a record says of them. Spaces are compared before any
    network is loaded. Raises CheckpointError, BundleError or GenerationError."""
    wanted.sampling.check()
    folder = checkpoint_folder(wanted.audioldm)
    ranking = checkpoint_folder(wanted.ranker) if wanted.ranker else None
    from c2c_jax.generation.audioldm import AudioLDM
    from c2c_jax.generation.checkpoint import check_layout, check_text
    from c2c_jax.generation.ranking import PROBE, Ranker

    check_layout(folder)
    check_text(folder)
    clap = dataclasses.replace(identify(f"{folder}:text_encoder"), name=f"{wanted.audioldm}:text_encoder")
    require_same_space(bundle.target, clap, "the CLAP")
    generator = AudioLDM.load(folder, device=wanted.device, dtype=wanted.dtype, offload=wanted.offload)
    generator.check(wanted.sampling)
    ranker = None
    if ranking:
        ranker = Ranker(ranking, wanted.device)
        ranker.require_same_space(generator.encode_text([PROBE])[0])
    about = {"clap": dataclasses.asdict(clap), "ranker": wanted.ranker, "dtype": wanted.dtype}
    return generator, ranker, about


def vectors_of(
    paths: Sequence[Path], space: Space, bundle: Bundle
) -> tuple[list[Path], Float[np.ndarray, "N E"], list[ImageError]]:
    """Those pictures that can be read, their unit CLAP vectors, and what is wrong with the others."""
    read: list[Path] = []
    vectors, errors = [np.zeros((0, bundle.target.dim), np.float32)], []
    for start in range(0, len(paths), READ_AT_ONCE):
        images = []
        for path in paths[start : start + READ_AT_ONCE]:
            try:
                images.append(read_image(path))
            except ImageError as error:
                errors.append(error)
                continue
            read.append(path)
        if images:
            vectors.append(translate(bundle, space.encode_image(images, batch_size=READ_AT_ONCE)))
    return read, np.concatenate(vectors), errors


def sound_files(subjects: Sequence[Path], out: Path | None, sound_format: str | None) -> list[Path]:
    """Where the sounds of pictures (or of folders, when averaged) go: beside them, into the folder `out`, or, of one,
    into the file `out`. Raises ConfigError where two would go to one file, or one file is named for many."""
    suffixes = (".wav", ".flac")
    if out and out.suffix.lower() in suffixes:
        if len(subjects) > 1:
            raise ConfigError(f"{len(subjects)} sounds and one file {out}: name a folder with --out")
        if sound_format and out.suffix.lower() != f".{sound_format}":
            raise ConfigError(f"--out {out} and --format {sound_format} contradict each other: leave one out")
        return [out]
    if out and out.suffix and not out.is_dir():
        raise ConfigError(f"--out {out} ends in {out.suffix}: name a .wav or .flac file, or a folder")
    places: dict[Path, Path] = {}
    for subject in subjects:
        name = f"{subject.name if subject.is_dir() else subject.stem}.{sound_format or 'wav'}"
        place = (out or subject.parent) / name
        if place in places:
            raise ConfigError(f"{places[place]} and {subject} would both be written to {place}: rename one of them")
        places[place] = subject
    return list(places)


def controls_of(texts: Sequence[str], files: Sequence[Path], generator: "AudioLDM") -> "list[Wanted]":
    """The texts' own sounds, as `NAME.control.wav` beside the pictures'."""
    from c2c_jax.generation.rendering import Wanted

    if not texts:
        return []
    vectors_ME = generator.encode_text(texts)
    return [
        Wanted(
            out=file.with_name(f"{file.stem}.control{file.suffix}"),
            vector_E=vectors_ME[number % len(texts)],
            about={"control": texts[number % len(texts)]},
        )
        for number, file in enumerate(files)
    ]


def _record(path: Path) -> dict[str, str]:
    return {"path": str(path), "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pictures_to_sounds(
    paths: Sequence[Path],
    translator: Path,
    *,
    clip: str | None = None,
    generation: Generation | None = None,
    mixture: Mixture = Mixture(),  # noqa: B008
    average: bool = False,
    out: Path | None = None,
    sound_format: str | None = None,
    save_embedding: Path | None = None,
) -> Iterator[Path]:
    """Writes the sounds of pictures, each as soon as it is there, and gives the files; see `rendering.render` for what
    is written beside them.

    clip: where the source checkpoint lies, None: by the bundle's name for it. generation: None writes no sound.
    average: pictures of one folder make one sound. save_embedding: file for the unit CLAP vectors, [E] of one picture,
    [B, E] of several, before any sound is made. CLIP and AudioLDM are loaded side by side, each part only where it is
    needed. Pictures that cannot be read are told of on stderr and left out; at the end they are an ImageError, as is a
    single one at once. Raises ConfigError, BundleError, CheckpointError or GenerationError; what is written is whole.
    """
    mixture.check()
    if mixture.prompts and generation is None:
        raise ConfigError("--prompt needs --audioldm, whose text tower makes a vector of it")
    if generation and len(generation.controls) not in (0, 1, len(paths)):
        raise ConfigError(f"{len(paths)} pictures and {len(generation.controls)} --control texts: give one, or as many")
    files = sound_files(list(subjects_of(paths, average)), out, sound_format)  # refused before anything is loaded
    if generation and save_embedding and save_embedding.absolute() in {file.absolute() for file in files}:
        raise ConfigError(f"sound and vectors cannot both be written to {save_embedding}: name other files")
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    bundle = load_bundle(translator)
    with ThreadPoolExecutor(1) as beside:
        loading = beside.submit(load_generator, generation, bundle) if generation else None
        space = load_space(clip or bundle.source.name, only_images=True)
        require_same_space(bundle.source, space.id, "the CLIP")
        read, vectors_BE, errors = vectors_of(paths, space, bundle)
        others, others_ME, unread = vectors_of(mixture.pictures, space, bundle)
        if unread or not read:
            raise (unread or errors)[0]
        for error in errors:
            console.print(f"left out: {error}")
        generator, ranker, about = loading.result() if loading else (None, None, {})

    subjects = subjects_of(read, average)
    if average:
        vectors_BE = _unit(np.stack([vectors_BE[places].mean(axis=0) for places in subjects.values()]))
    if generator and mixture.prompts:
        others_ME = np.concatenate([generator.encode_text(mixture.prompts), others_ME])
    vectors_BE = mixture(vectors_BE, others_ME) if mixture.weights else vectors_BE
    if save_embedding:
        with written_whole(save_embedding) as temporary, open(temporary, "wb") as file:
            np.save(file, vectors_BE[0] if len(vectors_BE) == 1 else vectors_BE)
        yield save_embedding
    if generator and generation:
        from c2c_jax.generation.rendering import Wanted, render, steps_of

        about |= {
            "translator": {"path": str(translator), "sha256": _sha256(translator / "model.safetensors")},
            "clip": dataclasses.asdict(space.id),
            "gap_statistics": [name for name, mean in vars(bundle.gap).items() if mean is not None],
            "mixed_in": [
                {"what": str(what), "weight": weight}
                for what, weight in zip([*mixture.prompts, *others], mixture.weights, strict=True)
            ],
        }
        files = sound_files(list(subjects), out, sound_format)
        wanted = [
            Wanted(out=file, vector_E=vector_E, about={"pictures": [_record(read[place]) for place in places]})
            for file, vector_E, places in zip(files, vectors_BE, subjects.values(), strict=True)
        ]
        wanted += controls_of(generation.controls, files, generator)
        with Progress(console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("sampling", total=steps_of(wanted, generation.sampling, generation.at_once))
            yield from render(
                wanted,
                generator,
                generation.sampling,
                ranker=ranker,
                at_once=generation.at_once,
                about=about,
                tell=console.print,
                on_step=lambda: bar.advance(task),
            )
        if generation.sampling.candidates > 1 and not ranker:
            console.print("candidates are in the order of their seeds: pass --ranker for the best one first")
    if errors:
        raise ImageError(f"{len(errors)} of {len(paths)} pictures could not be read; they are named above")
