"""The way from pictures to CLAP vectors, and on to sounds: CLIP's vision tower, the translator, AudioLDM."""

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from rich.console import Console

from c2c_jax.errors import BundleError, CheckpointError, ConfigError, ImageError
from c2c_jax.generation.plan import (
    Subject,
    plan,
    require_embedding_place,
    require_places,
)
from c2c_jax.generation.sampling import Sampling
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.console import stderr_console
from c2c_jax.io.files import is_regular, local_path, sha256_of, text_of
from c2c_jax.io.progress import Progress
from c2c_jax.io.text import require_text
from c2c_jax.spaces.space import SpaceId, identify, load_space
from c2c_jax.spaces.weights.folders import checkpoint_folder
from c2c_jax.translator.bundle import Bundle, load_bundle
from c2c_jax.translator.in_use import in_use, require_output_mean
from c2c_jax.translator.inference import _unit, require_same_clap, require_same_space, vectors_of
from c2c_jax.translator.resolve import bundle_folder, is_local

if TYPE_CHECKING:  # torch is loaded where a sound is asked for, and there alone
    from c2c_jax.generation.audioldm import AudioLDM
    from c2c_jax.generation.ranking import Ranker


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """How vectors become sounds."""

    audioldm: str  # hub name or folder
    sampling: Sampling
    ranker: str | None = None  # name of a whole CLAP, as `load_space` takes it, that chooses among candidates
    controls: tuple[str, ...] = ()  # texts whose own sounds are written too: one for each result, or one for all
    device: str | None = None  # as torch names it; None: cuda if there is one
    dtype: str = "float32"
    offload: bool = False  # whether each network is on the device only while it works
    at_once: int = 4  # clips sampled together


def load_generator(
    wanted: Generation, bundle: Bundle, mixture: Mixture
) -> "tuple[AudioLDM, Ranker | None, dict[str, Any]]":
    """The generator, its ranker if one is asked for, and what a record says of them. Spaces are compared before any
    network is loaded; of a folder that holds no text tower, and where no text is asked for, their widths are. Raises
    CheckpointError, BundleError or GenerationError."""
    folder = checkpoint_folder(wanted.audioldm)
    if wanted.ranker and not is_regular(local_path(wanted.ranker, CheckpointError)):
        checkpoint_folder(wanted.ranker)  # told of before the generator is waited for
    from c2c_jax.generation.audioldm import AudioLDM
    from c2c_jax.generation.checkpoint import check_layout, check_text, digest
    from c2c_jax.generation.ranking import Ranker
    from c2c_jax.translator.inference import PROBE

    check_layout(folder)
    name = f"{wanted.audioldm}:text_encoder"
    has_texts = wanted.sampling.guidance > 1 or wanted.controls or mixture.prompts or wanted.ranker
    if has_texts or (folder / "text_encoder").is_dir():
        check_text(folder)
        clap = dataclasses.replace(identify(f"{folder}:text_encoder"), name=name)
        _require_generator_of(bundle, clap, folder)
    else:
        clap = SpaceId(name=name, dim=bundle.target.dim, fingerprint="")
    generator = AudioLDM.load(folder, device=wanted.device, dtype=wanted.dtype, offload=wanted.offload)
    if generator.dim != bundle.target.dim:
        raise BundleError(f"{folder} takes vectors {generator.dim} wide, the translator makes {bundle.target.dim}")
    generator.check(wanted.sampling)
    ranker = None
    if wanted.ranker:
        ranker = Ranker(wanted.ranker)
        ranker.require_same_space(generator.encode_text([PROBE])[0])
    settings = {name: getattr(wanted, name) for name in ("ranker", "dtype", "offload", "at_once")}
    networks = {"name": wanted.audioldm, "fingerprint": digest(folder), "device": str(generator.device)}
    return generator, ranker, {"audioldm": networks, "clap": dataclasses.asdict(clap), **settings}


def _require_generator_of(bundle: Bundle, clap: SpaceId, folder: Path) -> None:
    """Raises BundleError where a generator's text tower is not of the bundle's target space: by their fingerprints, or
    where the target is the whole CLAP that the tower is of, in other files, by the vectors of one text."""
    try:
        require_same_space(bundle.target, clap, "the CLAP")
    except BundleError as refused:
        try:
            identify(bundle.target.name, download=False)
            tower = load_space(f"{folder}:text_encoder", only="text")
        except CheckpointError:
            raise refused from None
        require_same_clap(bundle, tower)


def _record(path: Path) -> dict[str, str]:
    return {"path": text_of(path), "sha256": sha256_of(path)}


def pictures_to_sounds(
    paths: Sequence[Path],
    translator: Path,
    *,
    clip: str | None = None,
    generation: Generation | None = None,
    mixture: Mixture = Mixture(),  # noqa: B008
    average: bool = False,
    out: Path | None = None,
    roots: Sequence[Path] = (),
    sound_format: str | None = None,
    save_embedding: Path | None = None,
    output_mean: str = "text",
) -> Iterator[Path]:
    """Writes the sounds of pictures, each as soon as it is there, and gives the files; see `rendering.render` for what
    is written beside them.

    translator: see `bundle_folder`. clip: where the source checkpoint lies, None: by the bundle's name for it.
    generation: None writes no sound. average: pictures of one folder make one sound. roots: see `plan`. save_embedding:
    file for the unit CLAP vectors, [E] of one sound, [B, E] of several, written before any sound is made. output_mean:
    "text" or "audio": the mean that a translator of centred vectors un-centres with. CLIP and AudioLDM are loaded at
    the same time, each part only if it is needed. All output paths are checked before anything is loaded. Pictures that
    cannot be read are named on stderr and skipped; an ImageError is raised for them at the end, or at once if no
    picture is left. Raises ConfigError, BundleError, CheckpointError or GenerationError; files are written whole or not
    at all.
    """
    mixture.check()
    for role, texts in (("--prompt", mixture.prompts), ("--control", generation.controls if generation else ())):
        for text in texts:
            require_text(text, role)
    if mixture.prompts and generation is None:
        raise ConfigError("--prompt needs --audioldm, whose text tower makes a vector of it")
    if generation:
        generation.sampling.check()
    subjects = plan(
        paths,
        average=average,
        out=out,
        roots=roots,
        sound_format=sound_format,
        controls=generation.controls if generation else (),
        candidates=generation.sampling.candidates if generation else 1,
    )
    inputs = [*paths, *mixture.pictures]
    if generation:
        require_places(subjects, generation.sampling.candidates, inputs)
    if save_embedding:
        require_embedding_place(save_embedding, inputs)
        if generation and save_embedding.absolute() in {one.out.absolute() for one in subjects}:
            raise ConfigError(f"the sound and the vectors would both be written to {save_embedding}: pass another file")
    console = stderr_console()
    folder = bundle_folder(translator)
    bundle = load_bundle(folder)
    require_output_mean(bundle, output_mean)
    checkpoint_folder(clip or bundle.source.name)  # told of before the generator is waited for
    with ThreadPoolExecutor(1) as beside, _bar(console) as bar:
        loading = beside.submit(load_generator, generation, bundle, mixture) if generation else None
        bar.begin("loading")
        space = load_space(clip or bundle.source.name, only="image")
        require_same_space(bundle.source, space.id, "the CLIP")
        reading = bar.add_task("reading", total=len(paths), visible=len(paths) > 1)

        def on_picture() -> None:
            bar.advance(reading)
            if loading and loading.done():
                loading.result()  # what is wrong with the generator is told now, not after all pictures

        vectors, errors = vectors_of(paths, space, bundle, on_picture, output_mean)
        others, unread = vectors_of(mixture.pictures, space, bundle, among=output_mean)
        if unread or not vectors:
            raise (unread or errors)[0]
        for error in errors:
            console.print(f"left out: {error}")
        bar.begin("loading")
        generator, ranker, about = loading.result() if loading else (None, None, {})
    for role, wanted in (("CLIP", bundle.source), ("CLAP", bundle.target)):
        if not wanted.fingerprint and (role == "CLIP" or generator):
            console.print(
                f"the bundle does not know the fingerprint of its {role}, {wanted.name}: widths were compared"
            )
    for line in in_use(bundle, output_mean):
        console.print(line)

    made = [(one, [path for path in one.pictures if path in vectors]) for one in subjects]
    made = [(one, read) for one, read in made if read]
    vectors_BE = np.stack([vectors[read[0]] for _, read in made])
    if average:
        vectors_BE = _unit(np.stack([np.mean([vectors[path] for path in read], axis=0) for _, read in made]))
    if mixture.weights:
        texts_ME = [*generator.encode_text(mixture.prompts)] if generator and mixture.prompts else []
        vectors_BE = mixture(vectors_BE, np.stack([*texts_ME, *(others[path] for path in mixture.pictures)]))
    if save_embedding:
        with atomic_write(save_embedding) as temporary, open(temporary, "wb") as file:
            np.save(file, vectors_BE[0] if len(subjects) == 1 else vectors_BE)
        if errors:
            console.print(f"{save_embedding} has {len(made)} rows: those that were left out have none")
        yield save_embedding
    if generator and generation:
        mixed_in = [*mixture.prompts, *(_record(path) for path in mixture.pictures)]
        about |= {
            "translator": {
                "path": text_of(folder if is_local(translator) else translator),
                "sha256": sha256_of(folder / "model.safetensors"),
            },
            "clip": dataclasses.asdict(space.id),
        }
        of_pictures = {
            "averaged": average,
            "gap_statistics": bundle.gap.used,
            "output_mean": output_mean if bundle.spec.input_norm == "centred" else None,
            "caption_memory": bundle.memory.record if bundle.memory and bundle.memory.weight else None,
            "mixed_in": [{"what": w, "weight": x} for w, x in zip(mixed_in, mixture.weights, strict=True)],
        }
        records = [{"pictures": [_record(path) for path in read], **of_pictures} for _, read in made]
        asked = [one for one, _ in made], vectors_BE, records
        yield from _sounds(*asked, generator, ranker, generation, about, console)
    if errors:
        raise ImageError(f"{len(errors)} of {len(paths)} pictures could not be read; they are named above")


def _sounds(
    subjects: Sequence[Subject],
    vectors_BE: Float[np.ndarray, "B E"],
    records: Sequence[dict[str, Any]],
    generator: "AudioLDM",
    ranker: "Ranker | None",
    generation: Generation,
    about: dict[str, Any],
    console: Console,
) -> Iterator[Path]:
    """Renders the subjects' vectors and, each behind its picture's, the control sounds. records, about: what the record
    of each sound of a picture, and of any sound, holds."""
    from c2c_jax.generation.rendering import Wanted, controls_of, render, steps_of

    asked: list[Wanted] = []
    controls = controls_of(subjects, generator)
    for one, vector_E, record, control in zip(subjects, vectors_BE, records, controls, strict=True):
        asked.append(Wanted(outs=(one.out,), vector_E=vector_E, about=record))
        asked += [control] if control else []
    with _bar(console) as bar:
        task = bar.add_task("sampling", total=steps_of(asked, generation.sampling, generation.at_once))
        yield from render(
            asked,
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


def _bar(console: Console) -> Progress:
    """Over stderr alone: stdout has the files' names."""
    return Progress(console)
