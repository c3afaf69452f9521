"""Generates sounds from images: CLIP's image tower, the translator, then AudioLDM."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import BundleError, CheckpointError, ConfigError, ImageError
from c2c_jax.generation.plan import plan, require_embedding_place, require_places
from c2c_jax.generation.records import File, MixedIn, Networks, file_of
from c2c_jax.generation.sampling import MINIWORLD_AUDIOLDM, MINIWORLD_CLAP, Sampling, require_torch
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.files import is_regular, local_path, path_to_text, sha256_of
from c2c_jax.io.progress import Progress
from c2c_jax.io.resolve import bundle_folder, is_local
from c2c_jax.io.text import require_text
from c2c_jax.spaces.space import identify, load_space
from c2c_jax.spaces.space_id import SpaceId
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

if TYPE_CHECKING:  # torch is imported only if sounds are generated
    from c2c_jax.generation.audioldm import AudioLDM
    from c2c_jax.generation.ranking import Ranker


logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blend:
    """Texts and images to blend into each image's CLAP vector.

    weights: one per prompt, then one per image; the original image gets 1 − their sum.
    """

    prompts: tuple[str, ...] = ()
    images: tuple[Path, ...] = ()
    weights: tuple[float, ...] = ()

    def check(self) -> None:
        """Raises ConfigError for a wrong number of weights, a weight that is not above 0, or a sum above 1."""
        count = len(self.prompts) + len(self.images)
        if len(self.weights) != count:
            raise ConfigError(
                f"{count} prompts and images to blend and {len(self.weights)} weights: pass one --mix for each"
            )
        if count and not (all(weight > 0 for weight in self.weights) and sum(self.weights) <= 1):
            raise ConfigError(f"mixing weights {self.weights}: pass numbers above 0 that sum to at most 1")

    def __call__(
        self, vectors_BE: Float[np.ndarray, "B E"], blended_ME: Float[np.ndarray, "M E"]
    ) -> Float[np.ndarray, "B E"]:
        """Returns weighted sums of unit vectors, scaled to unit length."""
        weights_M = np.asarray(self.weights, np.float32)
        return _unit((1 - weights_M.sum()) * vectors_BE + (weights_M @ blended_ME)[None])


def _unit(x_BE: Float[np.ndarray, "B E"]) -> Float[np.ndarray, "B E"]:
    lengths_B1 = np.linalg.norm(x_BE, axis=1, keepdims=True)
    if not (lengths_B1 > 1e-6).all():
        raise ConfigError("the blended vectors cancel out to zero: pass other weights")
    return (x_BE / lengths_B1).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """Settings for generating sounds from CLAP vectors."""

    audioldm: str  # hub name or folder
    sampling: Sampling
    ranker: str | None = None  # a CLAP with an audio tower, as for `load_space`, that ranks candidates
    controls: tuple[str, ...] = ()  # texts that also get sounds, for comparison: one for each image, or one for all
    device: str | None = None  # a torch device; None: cuda if available
    dtype: str = "float32"
    offload: bool = False  # keep networks in main memory while they are not in use
    at_once: int = 4  # clips sampled together


def images_to_audio(
    paths: Sequence[Path],
    translator: Path,
    *,
    clip: str | None = None,
    generation: Generation | None = None,
    blend: Blend = Blend(),  # noqa: B008
    average: bool = False,
    out: Path | None = None,
    roots: Sequence[Path] = (),
    audio_format: str | None = None,
    save_embedding: Path | None = None,
    output_mean: str = "text",
) -> Iterator[Path]:
    """Generates sounds for images, writes each as soon as it is ready, and yields the files; `Renderer.render` writes
    further files.

    translator: see `bundle_folder`. clip: the CLIP checkpoint; None: the one that the bundle names. generation: None:
    no sounds. blend: texts and images to blend into every image. average: one sound for all images of a folder. out,
    roots, audio_format: see `plan`. save_embedding: file for the unit CLAP vectors, [E] for one sound, [B, E] for
    several, written before sounds are generated. output_mean: "text" or "audio", the mean with which a translator of
    centred vectors un-centres its outputs.

    All output paths are checked before anything is loaded. CLIP and AudioLDM are loaded in parallel. Unreadable images
    are reported on stderr and skipped, and an ImageError is raised at the end, or at once if no image is left. Raises
    ConfigError, BundleError, CheckpointError, GenerationError or MissingExtraError. Files are written atomically.
    """
    blend.check()
    controls = generation.controls if generation else ()
    for role, texts in (("--prompt", blend.prompts), ("--control", controls)):
        for text in texts:
            require_text(text, role)
    if blend.prompts and generation is None:
        raise ConfigError("--prompt needs --audioldm, whose text tower encodes it")
    candidates, input_paths = 1, [*paths, *blend.images]
    if generation:
        require_torch()
        generation.sampling.check()
        candidates = generation.sampling.candidates
    inputs = plan(
        paths,
        average=average,
        out=out,
        roots=roots,
        audio_format=audio_format,
        controls=controls,
        candidates=candidates,
    )
    if generation:
        require_places(inputs, candidates, input_paths)
    if save_embedding:
        require_embedding_place(save_embedding, input_paths)
        if generation and save_embedding.absolute() in {item.out.absolute() for item in inputs}:
            raise ConfigError(f"the sound and the vectors would both be written to {save_embedding}: pass another file")
    count = len(inputs)
    folder = bundle_folder(translator)
    bundle = load_bundle(folder)
    require_output_mean(bundle, output_mean)
    checkpoint_folder(clip or bundle.source.name)  # fails before the generator is loaded
    with ThreadPoolExecutor(1) as thread, Progress() as bar:
        loading = thread.submit(load_generator, generation, bundle, bool(blend.prompts)) if generation else None
        bar.begin("loading")
        space = load_clip(bundle, clip, with_text=False)
        reading = bar.add_task("reading", total=len(paths), visible=len(paths) > 1)

        def on_image() -> None:
            bar.advance(reading)
            if loading and loading.done():
                loading.result()  # raises errors of the generator now, not after all images

        vectors, errors = translate_image_files(paths, space, bundle, on_image, output_mean)
        blend_vectors, blend_errors = translate_image_files(blend.images, space, bundle, output_mean=output_mean)
        if blend_errors or not vectors:
            raise (blend_errors or errors)[0]
        for error in errors:
            logger.warning("left out: %s", error)
        bar.begin("loading")
        generator, ranker, shared_record = loading.result() if loading else (None, None, {})
    for role, space_id in (("CLIP", bundle.source), ("CLAP", bundle.target)):
        if not space_id.fingerprint and (role == "CLIP" or generator):
            logger.info(
                "the bundle stores no fingerprint of its %s, %s: only widths were compared", role, space_id.name
            )
    for line in means_in_use(bundle, output_mean):
        logger.info("%s", line)

    inputs = [
        dataclasses.replace(item, images=tuple(path for path in item.images if path in vectors)) for item in inputs
    ]
    inputs = [item for item in inputs if item.images]
    vectors_BE = np.stack([vectors[item.images[0]] for item in inputs])
    if average:
        vectors_BE = _unit(np.stack([np.mean([vectors[path] for path in item.images], axis=0) for item in inputs]))
    if blend.weights:
        texts_ME = [*generator.encode_text(blend.prompts)] if generator and blend.prompts else []
        vectors_BE = blend(vectors_BE, np.stack([*texts_ME, *(blend_vectors[path] for path in blend.images)]))
    if save_embedding:
        with atomic_write(save_embedding) as temporary, open(temporary, "wb") as file:
            np.save(file, vectors_BE[0] if count == 1 else vectors_BE)
        if errors:
            logger.info("%s has %d rows: images that were left out have no row", save_embedding, len(inputs))
        yield save_embedding
    if generator and generation:
        from c2c_jax.generation.rendering import Renderer, render_jobs, steps_of

        mixed_in: list[str | File] = [*blend.prompts, *map(file_of, blend.images)]
        shared_fields = {
            "averaged": average,
            "gap_statistics": bundle.means.used,
            "output_mean": output_mean if bundle.spec.input_norm == "centred" else None,
            "caption_memory": bundle.memory.record if bundle.memory and bundle.memory.weight else None,
            "mixed_in": [MixedIn(what=what, weight=x) for what, x in zip(mixed_in, blend.weights, strict=True)],
        }
        records = [{"pictures": [*map(file_of, item.images)], **shared_fields} for item in inputs]
        name = path_to_text(folder if is_local(translator) else translator)
        shared_record |= {
            "translator": File(path=name, sha256=sha256_of(folder / "model.safetensors")),
            "clip": space.id,
        }
        jobs = render_jobs(inputs, vectors_BE, records, generator)
        sampling, at_once = generation.sampling, generation.at_once
        with Progress() as bar:
            task = bar.add_task("sampling", total=steps_of(jobs, sampling, at_once))
            yield from Renderer(
                generator=generator,
                sampling=sampling,
                ranker=ranker,
                at_once=at_once,
                shared_record=shared_record,
                on_step=lambda: bar.advance(task),
            ).render(jobs)
        if sampling.candidates > 1 and not ranker:
            logger.info("candidates are in the order of their seeds: pass --ranker to put the best one first")
    if errors:
        raise ImageError(f"{len(errors)} of {len(paths)} images could not be read; they are named above")


def default_generator(bundle: Bundle) -> str | None:
    """The name of the bundled generator for a translator's target space; None if there is none."""
    return MINIWORLD_AUDIOLDM if bundle.target.name == MINIWORLD_CLAP else None


def load_generator(
    generation: Generation, bundle: Bundle, has_prompts: bool = True
) -> "tuple[AudioLDM, Ranker | None, dict[str, Any]]":
    """Loads the generator and the ranker, if any, and returns them with their record fields.

    has_prompts: whether the generator must encode prompts, besides the texts in `generation`. Spaces are compared
    before networks are loaded; if no text tower is needed and the folder has none, only their widths are compared.
    Raises CheckpointError, BundleError, GenerationError, or MissingExtraError without torch.
    """
    require_torch()
    folder = checkpoint_folder(generation.audioldm)
    if generation.ranker and not is_regular(local_path(generation.ranker, CheckpointError)):
        checkpoint_folder(generation.ranker)  # fails before the generator is loaded
    from c2c_jax.generation.audioldm import AudioLDM
    from c2c_jax.generation.checkpoint import check_layout, check_text, digest
    from c2c_jax.generation.ranking import Ranker

    check_layout(folder)
    clap = SpaceId(name=f"{generation.audioldm}:text_encoder", dim=bundle.target.dim, fingerprint="")
    has_texts = generation.sampling.guidance > 1 or generation.controls or has_prompts or generation.ranker
    if has_texts or (folder / "text_encoder").is_dir():
        check_text(folder)
        clap = dataclasses.replace(identify(f"{folder}:text_encoder"), name=clap.name)
        _require_target(bundle, clap, folder)
    generator = AudioLDM.load(folder, device=generation.device, dtype=generation.dtype, offload=generation.offload)
    if generator.dim != bundle.target.dim:
        raise BundleError(
            f"{folder} takes vectors of width {generator.dim}, the translator outputs {bundle.target.dim}"
        )
    generator.check(generation.sampling)
    ranker = None
    if generation.ranker:
        ranker = Ranker(generation.ranker)
        ranker.require_same_space(generator.encode_text([PROBE])[0])
    settings = {name: getattr(generation, name) for name in ("ranker", "dtype", "offload", "at_once")}
    networks = Networks(name=generation.audioldm, fingerprint=digest(folder), device=str(generator.device))
    return generator, ranker, {"audioldm": networks, "clap": clap, **settings}


def _require_target(bundle: Bundle, clap: SpaceId, folder: Path) -> None:
    """Raises BundleError unless a generator's text tower belongs to the bundle's target space.

    Compares fingerprints. If they differ, the vectors of one text are compared, as the target may be the same CLAP in
    other files.
    """
    try:
        require_same_space(bundle.target, clap, "the CLAP")
    except BundleError as mismatch:
        try:
            identify(bundle.target.name, download=False)
            tower = load_space(f"{folder}:text_encoder", only="text")
        except CheckpointError:
            raise mismatch from None
        require_same_clap(bundle, tower)
