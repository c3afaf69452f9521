"""From images to CLAP vectors, and on to sounds: CLIP's image tower, the translator, AudioLDM."""

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import BundleError, CheckpointError, ConfigError, ImageError
from c2c_jax.generation.plan import plan, require_embedding_place, require_places
from c2c_jax.generation.records import File, MixedIn, Networks, file_of
from c2c_jax.generation.sampling import Sampling
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.console import stderr_console
from c2c_jax.io.files import is_regular, local_path, path_to_text, sha256_of
from c2c_jax.io.progress import Progress
from c2c_jax.io.text import require_text
from c2c_jax.spaces.space import SpaceId, identify, load_space
from c2c_jax.spaces.weights.folders import checkpoint_folder
from c2c_jax.translator.bundle import Bundle, load_bundle
from c2c_jax.translator.inference import (
    PROBE,
    load_clip,
    means_in_use,
    require_output_mean,
    require_same_clap,
    require_same_space,
    translate_image_files,
)
from c2c_jax.translator.resolve import bundle_folder, is_local

if TYPE_CHECKING:  # torch is imported only if a sound is to be made
    from c2c_jax.generation.audioldm import AudioLDM
    from c2c_jax.generation.ranking import Ranker


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """What is mixed into each image's CLAP vector: texts, then images, each with its weight in the sum. The image
    itself has what is left to 1."""

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


def _unit(x_BE: Float[np.ndarray, "B E"]) -> Float[np.ndarray, "B E"]:
    lengths_B1 = np.linalg.norm(x_BE, axis=1, keepdims=True)
    if not (lengths_B1 > 1e-6).all():
        raise ConfigError("what is mixed cancels out to a vector of no direction: take other weights")
    return (x_BE / lengths_B1).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """How vectors become sounds."""

    audioldm: str  # hub name or folder
    sampling: Sampling
    ranker: str | None = None  # name of a whole CLAP, as for `load_space`, that orders the candidates
    controls: tuple[str, ...] = ()  # texts whose own sounds are written too: one for each result, or one for all
    device: str | None = None  # as torch names it; None: cuda if there is one
    dtype: str = "float32"
    offload: bool = False  # whether each network is on the device only while it works
    at_once: int = 4  # clips sampled together


def images_to_audio(
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
    """Writes the sounds of images, each as soon as it is made, and yields the files; see `rendering.render` for the
    files beside them.

    translator: see `bundle_folder`. clip: where the source checkpoint lies; None: by the bundle's name for it.
    generation: None writes no sound. average: the images of one folder make one sound. out, roots, sound_format: see
    `plan`. save_embedding: file for the unit CLAP vectors, [E] of one sound, [B, E] of several, written before any
    sound is made. output_mean: "text" or "audio": the mean that a translator of centred vectors un-centres with.

    All output paths are checked before anything is loaded. CLIP and AudioLDM are loaded at the same time, each part
    only if it is needed. Images that cannot be read are named on stderr and skipped; an ImageError is raised for them
    at the end, or at once if no image is left. Raises ConfigError, BundleError, CheckpointError or GenerationError;
    files are written atomically.
    """
    mixture.check()
    controls = generation.controls if generation else ()
    for role, texts in (("--prompt", mixture.prompts), ("--control", controls)):
        for text in texts:
            require_text(text, role)
    if mixture.prompts and generation is None:
        raise ConfigError("--prompt needs --audioldm, whose text tower makes a vector of it")
    candidates, read = 1, [*paths, *mixture.pictures]
    if generation:
        generation.sampling.check()
        candidates = generation.sampling.candidates
    inputs = plan(
        paths,
        average=average,
        out=out,
        roots=roots,
        sound_format=sound_format,
        controls=controls,
        candidates=candidates,
    )
    if generation:
        require_places(inputs, candidates, read)
    if save_embedding:
        require_embedding_place(save_embedding, read)
        if generation and save_embedding.absolute() in {one.out.absolute() for one in inputs}:
            raise ConfigError(f"the sound and the vectors would both be written to {save_embedding}: pass another file")
    console, count = stderr_console(), len(inputs)
    folder = bundle_folder(translator)
    bundle = load_bundle(folder)
    require_output_mean(bundle, output_mean)
    checkpoint_folder(clip or bundle.source.name)  # refused before the generator is loaded
    with ThreadPoolExecutor(1) as thread, Progress(console) as bar:
        loading = thread.submit(_load_generator, generation, bundle, mixture) if generation else None
        bar.begin("loading")
        space = load_clip(bundle, clip, with_text=False)
        reading = bar.add_task("reading", total=len(paths), visible=len(paths) > 1)

        def on_image() -> None:
            bar.advance(reading)
            if loading and loading.done():
                loading.result()  # raises what is wrong with the generator now, not after all images

        vectors, errors = translate_image_files(paths, space, bundle, on_image, output_mean)
        others, unread = translate_image_files(mixture.pictures, space, bundle, output_mean=output_mean)
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
    for line in means_in_use(bundle, output_mean):
        console.print(line)

    inputs = [
        dataclasses.replace(one, pictures=tuple(path for path in one.pictures if path in vectors)) for one in inputs
    ]
    inputs = [one for one in inputs if one.pictures]
    vectors_BE = np.stack([vectors[one.pictures[0]] for one in inputs])
    if average:
        vectors_BE = _unit(np.stack([np.mean([vectors[path] for path in one.pictures], axis=0) for one in inputs]))
    if mixture.weights:
        texts_ME = [*generator.encode_text(mixture.prompts)] if generator and mixture.prompts else []
        vectors_BE = mixture(vectors_BE, np.stack([*texts_ME, *(others[path] for path in mixture.pictures)]))
    if save_embedding:
        with atomic_write(save_embedding) as temporary, open(temporary, "wb") as file:
            np.save(file, vectors_BE[0] if count == 1 else vectors_BE)
        if errors:
            console.print(f"{save_embedding} has {len(inputs)} rows: those that were left out have none")
        yield save_embedding
    if generator and generation:
        from c2c_jax.generation.rendering import Renderer, render_jobs, steps_of

        mixed_in: list[str | File] = [*mixture.prompts, *map(file_of, mixture.pictures)]
        of_all = {
            "averaged": average,
            "gap_statistics": bundle.means.used,
            "output_mean": output_mean if bundle.spec.input_norm == "centred" else None,
            "caption_memory": bundle.memory.record if bundle.memory and bundle.memory.weight else None,
            "mixed_in": [MixedIn(what=what, weight=x) for what, x in zip(mixed_in, mixture.weights, strict=True)],
        }
        abouts = [{"pictures": [*map(file_of, one.pictures)], **of_all} for one in inputs]
        name = path_to_text(folder if is_local(translator) else translator)
        about |= {
            "translator": File(path=name, sha256=sha256_of(folder / "model.safetensors")),
            "clip": space.id,
        }
        jobs = render_jobs(inputs, vectors_BE, abouts, generator)
        sampling, at_once = generation.sampling, generation.at_once
        with Progress(console) as bar:
            task = bar.add_task("sampling", total=steps_of(jobs, sampling, at_once))
            yield from Renderer(
                generator=generator,
                sampling=sampling,
                ranker=ranker,
                at_once=at_once,
                about=about,
                on_note=console.print,
                on_step=lambda: bar.advance(task),
            ).render(jobs)
        if sampling.candidates > 1 and not ranker:
            console.print("candidates are in the order of their seeds: pass --ranker for the best one first")
    if errors:
        raise ImageError(f"{len(errors)} of {len(paths)} pictures could not be read; they are named above")


def _load_generator(
    generation: Generation, bundle: Bundle, mixture: Mixture
) -> "tuple[AudioLDM, Ranker | None, dict[str, Any]]":
    """The generator, its ranker if there is one, and their fields of a record. Spaces are compared before any network
    is loaded; for a folder without a text tower, if no text is to be encoded, only their widths are. Raises
    CheckpointError, BundleError or GenerationError."""
    folder = checkpoint_folder(generation.audioldm)
    if generation.ranker and not is_regular(local_path(generation.ranker, CheckpointError)):
        checkpoint_folder(generation.ranker)  # refused before the generator is loaded
    from c2c_jax.generation.audioldm import AudioLDM
    from c2c_jax.generation.checkpoint import check_layout, check_text, digest
    from c2c_jax.generation.ranking import Ranker

    check_layout(folder)
    clap = SpaceId(name=f"{generation.audioldm}:text_encoder", dim=bundle.target.dim, fingerprint="")
    has_texts = generation.sampling.guidance > 1 or generation.controls or mixture.prompts or generation.ranker
    if has_texts or (folder / "text_encoder").is_dir():
        check_text(folder)
        clap = dataclasses.replace(identify(f"{folder}:text_encoder"), name=clap.name)
        _require_target(bundle, clap, folder)
    generator = AudioLDM.load(folder, device=generation.device, dtype=generation.dtype, offload=generation.offload)
    if generator.dim != bundle.target.dim:
        raise BundleError(f"{folder} takes vectors {generator.dim} wide, the translator makes {bundle.target.dim}")
    generator.check(generation.sampling)
    ranker = None
    if generation.ranker:
        ranker = Ranker(generation.ranker)
        ranker.require_same_space(generator.encode_text([PROBE])[0])
    settings = {name: getattr(generation, name) for name in ("ranker", "dtype", "offload", "at_once")}
    networks = Networks(name=generation.audioldm, fingerprint=digest(folder), device=str(generator.device))
    return generator, ranker, {"audioldm": networks, "clap": clap, **settings}


def _require_target(bundle: Bundle, clap: SpaceId, folder: Path) -> None:
    """Raises BundleError unless a generator's text tower is of the bundle's target space: by their fingerprints or, if
    the target is the whole CLAP that the tower is of, in other files, by the vectors of one text."""
    try:
        require_same_space(bundle.target, clap, "the CLAP")
    except BundleError as refused:
        try:
            identify(bundle.target.name, download=False)
            tower = load_space(f"{folder}:text_encoder", only="text")
        except CheckpointError:
            raise refused from None
        require_same_clap(bundle, tower)
