"""`c2c evaluate`: finds the inputs, encodes them, and scores every method in every task."""

import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from c2c_jax.data.captions import CaptionStream, open_sources
from c2c_jax.data.store import SIDES, Store
from c2c_jax.errors import ConfigError, ManifestError, StoreError
from c2c_jax.evaluation import methods, vectors
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.generated import TEMPERATURE, Generated, generated_rows, read_generated
from c2c_jax.evaluation.geometry import collapse_warnings, geometry_rows, rotation_rows
from c2c_jax.evaluation.pairs import Pairs, read_pairs
from c2c_jax.evaluation.results import (
    CENTRED,
    MAX_VECTORS,
    MINUS_HUBNESS,
    SCORINGS,
    Missing,
    Results,
    Row,
    SkippedFile,
    require_same_settings,
)
from c2c_jax.evaluation.scoring import scoring_means
from c2c_jax.evaluation.tasks import Tasks, in_order
from c2c_jax.evaluation.training_store import TrainingStore, open_training_store, require_spaces
from c2c_jax.evaluation.vectors import AUDIO_PROMPT, IMAGE_PROMPT, Captions, FileVectors, PairVectors, TextVectors
from c2c_jax.io.atomic import temporary_folder
from c2c_jax.io.audio import find_audio
from c2c_jax.io.files import describe_path, sha256_of, user_path
from c2c_jax.io.progress import Progress, phase
from c2c_jax.io.resolve import bundle_folder, run_name
from c2c_jax.publishing.names import public_caption_spec, public_name, without_local_paths
from c2c_jax.retrieval import nearest_captions
from c2c_jax.retrieval.scoring import NEIGHBOURS, WEIGHT
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.translator.bundle import Bundle, load_bundle, save_bundle
from c2c_jax.translator.inference import load_clap, load_clip
from c2c_jax.translator.memory import REFERENCES

REFITTED = (
    "after selection, this translator's closed-form part was fitted to the held-out captions as well, so that scores "
    "on them are optimistic; pass --captions with captions that were not used in training"
)

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """What to evaluate, and on what.

    run: see `bundle_folder`. bundle: the translator to evaluate, for which `run` only says where it comes from; None:
    that of `run`. captions: a caption source or the folder of a store, without the captions that training used; None:
    the held-out captions. store: the training store; None: where the run says. pairs: see `read_pairs`.
    generated: an output folder of infer.py. reference: a folder of sounds to compare generated sounds with; None: the
    pairs' sounds. clip, clap: checkpoints; None: those that the bundle names. csls: number of neighbours for CSLS
    scores; None: no such scores. centre, hubness: whether to add scores by centred cosine, and by centred cosine less
    hubness. geometry: whether to describe the two spaces.
    """

    run: Path
    captions: str | None = None
    store: Path | None = None
    pairs: Path | None = None
    generated: Path | None = None
    reference: Path | None = None
    clip: str | None = None
    clap: str | None = None
    csls: int | None = None
    centre: bool = True
    hubness: bool = True
    geometry: bool = False
    bundle: Bundle | None = None
    bootstrap: Bootstrap = Bootstrap()


@dataclasses.dataclass(kw_only=True, eq=False)
class EvalInputs:
    """The inputs of an evaluation. `find_inputs` creates them, `_encode` adds vectors.

    training: None if the training store is not found. captions_text: number and source of the captions, in words; None
    without captions. captions: vectors from a store. texts: captions to encode. reference_files: the reference sounds,
    unless they are the pairs'. skipped: files and rows that cannot be used. missing: figures that cannot be computed.
    warnings: reasons to doubt the figures.
    Added by `_encode`: pair_vectors; audio: vectors of all sounds by file; target_texts: target vectors of the pairs'
    captions and class prompts.
    """

    bundle: Bundle
    training: TrainingStore | None = None
    captions_text: str | None = None
    captions: Captions | None = None
    texts: list[str] = dataclasses.field(default_factory=list)
    pairs: Pairs | None = None
    generated: Generated | None = None
    reference_files: list[Path] = dataclasses.field(default_factory=list)
    skipped: list[SkippedFile] = dataclasses.field(default_factory=list)
    missing: list[Missing] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    pair_vectors: PairVectors | None = None
    audio: FileVectors = dataclasses.field(default_factory=dict)
    target_texts: TextVectors = dataclasses.field(default_factory=dict)


def evaluate(request: EvalRequest, keep: Path | None = None) -> Results:
    """Scores a translator and its baselines in every task that there are inputs for.

    keep: a folder whose evaluation must not be replaced by one with other settings; if it would be, ConfigError is
    raised before anything is encoded. Files that cannot be read are listed in the results' `left_out`. Raises the
    errors of `find_inputs`, and CheckpointError or BundleError for checkpoints that are missing or of another space
    than the bundle's.
    """
    with phase("looking for files"):
        inputs = find_inputs(request)
    settings = _settings(request, inputs)
    if keep:
        require_same_settings(keep, settings)
    spaces = _encode(request, inputs)
    with phase("scoring"):
        rows, missing, examples = _scores(request, inputs)
    warnings = [*inputs.warnings, *collapse_warnings(rows)]
    if inputs.generated is not None:
        audio_rows, audio_missing = generated_rows(
            inputs.generated,
            inputs.audio,
            labels=inputs.pairs.labels if inputs.pairs else [],
            prompts_CE=inputs.pair_vectors.audio.prompts_CE if inputs.pair_vectors else None,
            captions=inputs.target_texts,
            reference=_reference(request, inputs),
            bootstrap=request.bootstrap,
        )
        rows, missing = rows + audio_rows, missing + audio_missing
    if not rows:
        example = f", such as {inputs.skipped[0]}" if inputs.skipped else ""
        raise ManifestError(f"nothing could be evaluated: {len(inputs.skipped):,} files or rows were skipped{example}")
    public = without_local_paths(inputs.bundle)
    spaces = {side: getattr(public, side) for side in SIDES} | spaces
    return Results(
        bundle={
            "name": run_name(request.run),
            "spec": public.spec.to_json(),
            "recipe": public.recipe,
            "metrics": public.metrics,
            "gap_statistics": public.means.used,
            "caption_memory": public.memory.record if public.memory and public.memory.weight else None,
        },
        spaces={role: dataclasses.asdict(space) | {"name": public_name(space.name)} for role, space in spaces.items()},
        settings=settings,
        rows=in_order(rows),
        left_out=inputs.skipped,
        missing=inputs.missing + missing,
        vectors=examples,
        warnings=warnings,
    )


def find_inputs(request: EvalRequest) -> EvalInputs:
    """Loads the bundle and finds the captions, pairs and generated sounds to evaluate on, and logs their numbers.

    Raises BundleError, CheckpointError, CaptionError, ManifestError, ReportError or StoreError for inputs that are
    missing or cannot be read, ConfigError if there is nothing to evaluate on.
    """
    inputs = EvalInputs(bundle=request.bundle or load_bundle(bundle_folder(request.run)))
    bundle = inputs.bundle
    try:
        inputs.training = open_training_store(request.run, bundle, request.store)
    except StoreError as error:
        if request.store:
            raise
        inputs.missing.append(Missing(what="nearest_caption, procrustes, ridge", why=str(error)))
    if request.captions:
        _find_captions(inputs, request.captions)
    elif (training := inputs.training) and len(training.held_out):
        inputs.captions_text = f"{len(training.held_out):,} that training held out"
        inputs.captions = Captions(*(training.store.read_rows(side, training.held_out) for side in SIDES))
        inputs.warnings = [REFITTED] if bundle.choice and bundle.choice.is_refitted else []
    if request.pairs:
        inputs.pairs = read_pairs(request.pairs)
        inputs.skipped += inputs.pairs.skipped
        logger.info("%s", inputs.pairs)
        if not inputs.pairs.labels:
            why = f"no labels: {inputs.pairs.description}"
            inputs.missing.append(Missing(what="class_accuracy, neighbour_accuracy, map", why=why))
    if request.generated:
        weights, items = _weights_checksum(request), inputs.pairs.items if inputs.pairs else []
        inputs.generated, skipped = read_generated(request.generated, weights, bundle.target.dim, items)
        inputs.skipped += skipped
    if not (inputs.captions_text or inputs.pairs or inputs.generated is not None):
        why = inputs.missing[0].why if inputs.missing else "training held none out"
        raise ConfigError(f"nothing to evaluate on: no captions ({why}); or pass --captions, --pairs or --sounds")
    if reference := request.reference:
        if not reference.is_dir():
            raise ManifestError(
                f"expected a folder of sounds at --reference {reference}, found {describe_path(reference)}: pass an "
                "existing folder"
            )
        inputs.reference_files = find_audio(reference)
        if not inputs.reference_files:
            raise ManifestError(f"{reference} contains no sound: pass a folder of sounds as --reference")
    return inputs


def _weights_checksum(request: EvalRequest) -> str:
    """The SHA-256 of the translator's `model.safetensors`, by which records of sounds name it."""
    if request.bundle is None:
        return sha256_of(bundle_folder(request.run) / "model.safetensors")
    with temporary_folder(Path(tempfile.gettempdir())) as folder:
        save_bundle(folder / "bundle", request.bundle)
        return sha256_of(folder / "bundle" / "model.safetensors")


def _find_captions(inputs: EvalInputs, source: str) -> None:
    """Adds the captions of a source or store that training did not use. Raises ConfigError if there are none."""
    training = inputs.training
    if Store.exists(user_path(source)):
        store = Store.open(user_path(source))
        require_spaces(store, inputs.bundle)
        store.check_files()
        rows = training.untrained_rows(store) if training else None
        inputs.captions = Captions(*(store.read(s) if rows is None else store.read_rows(s, rows) for s in SIDES))
        count, read = len(inputs.captions.source_NS), store.plan.rows
        name = f"the store {store.path.name}"
    else:
        mixture = CaptionStream(open_sources(source), drop_duplicates=True)
        texts = list(mixture)
        mixture.log_counts()
        trained = training.trained_texts(texts) if training else set()
        inputs.texts = [text for text in texts if text not in trained]
        count, read, name = len(inputs.texts), len(texts), public_caption_spec(source)
    if not count:
        why = f"training saw all {read:,} of them" if read else "it has none"
        raise ConfigError(f"no caption of {name} to evaluate on: {why}; pass others as --captions")
    inputs.captions_text = f"all {read:,} of {name}"
    if count < read:
        inputs.captions_text = f"{count:,} of {name}, without {read - count:,} that training saw"


def _encode(request: EvalRequest, inputs: EvalInputs) -> dict[str, SpaceId]:
    """Loads and checks both spaces, then encodes all inputs. Returns the spaces by role."""
    bundle, texts = inputs.bundle, inputs.texts
    items, labels = (inputs.pairs.items, inputs.pairs.labels) if inputs.pairs else ([], [])
    image_files = list(dict.fromkeys(item.image for item in items if item.image))
    audio_files = [item.audio for item in items if item.audio]
    for group in (inputs.generated or {}).values():
        audio_files += [file for audio in group for file in audio.files]
    audio_files = list(dict.fromkeys(audio_files + inputs.reference_files))
    captions = [item.caption for item in items if item.caption]
    source_texts, target_texts = ([*captions, *map(prompt.format, labels)] for prompt in (IMAGE_PROMPT, AUDIO_PROMPT))
    has_texts = bool(source_texts or texts)
    clip = load_clip(bundle, request.clip, with_text=has_texts) if image_files or has_texts else None
    clap = load_clap(bundle, request.clap, with_audio=bool(audio_files)) if audio_files or has_texts else None
    with Progress() as bar:
        images, no_images = vectors.file_vectors("images", image_files, clip, bar) if clip else ({}, [])
        inputs.audio, no_audio = vectors.file_vectors("sounds", audio_files, clap, bar) if clap else ({}, [])
        arrays = [
            vectors.text_rows(texts, space, bar, "encoding captions") for space in (clip, clap) if space and texts
        ]
        source = vectors.text_vectors(source_texts, clip, bar, "encoding texts, CLIP") if clip else {}
        inputs.target_texts = vectors.text_vectors(target_texts, clap, bar, "encoding texts, CLAP") if clap else {}
    inputs.skipped += no_images + no_audio
    if arrays:
        inputs.captions = Captions(*arrays)
    if inputs.pairs:
        encoded = images, inputs.audio, source, inputs.target_texts
        inputs.pair_vectors = vectors.pair_vectors(inputs.pairs, *encoded, (bundle.source.dim, bundle.target.dim))
    return {role: space.id for role, space in (("clip", clip), ("clap", clap)) if space}


def _scores(request: EvalRequest, inputs: EvalInputs) -> tuple[list[Row], list[Missing], dict[str, np.ndarray]]:
    """Scores all tasks except generated sound. Returns the rows, what is missing, and the vectors for `vectors.npz`."""
    captions, pairs, bundle, bootstrap = inputs.captions, inputs.pair_vectors, inputs.bundle, request.bootstrap
    all_methods = [methods.as_method("translator", bundle.translator, bundle.means, bundle.memory)]
    caption_means = means = None
    if inputs.training and (captions or pairs):
        logger.info("going through %s captions for the baselines", f"{inputs.training.store.plan.rows:,}")
        caption_means, baselines = methods.caption_methods(inputs.training, bundle)
        all_methods += baselines
    csls, missing = _neighbours(request.csls, captions, pairs)
    if request.centre and (captions or pairs):
        means, without_means = scoring_means(bundle, captions, pairs, hubness=request.hubness)
        missing += without_means
    tasks = Tasks(captions=captions, pairs=pairs, bootstrap=bootstrap, csls=csls, means=means)
    rows = tasks.space_rows()
    if request.geometry:
        sides = vectors.both_sides(captions, pairs)
        for new_rows, new_missing in (
            geometry_rows(sides, bootstrap),
            rotation_rows(all_methods, captions, caption_means, bootstrap),
        ):
            rows, missing = rows + new_rows, missing + new_missing
    examples: dict[str, np.ndarray] = {}
    for method in all_methods:
        method_rows, translated = tasks.method_rows(method)
        rows += method_rows
        if not examples:  # the translator's, which comes first; copied, so that a method's large array is freed
            examples = {name: np.array(x_NE[:MAX_VECTORS]) for name, x_NE in translated.items()}
        del translated
    reference_rows, reference_missing = tasks.reference_rows()
    if captions:
        examples |= {"source_text": captions.source_NS, "target_text": captions.target_NE}
    if pairs and len(pairs.images.vectors_NE):
        has_pairs = len(pairs.pairs_P2) > 0
        examples["source_image"] = pairs.paired_images if has_pairs else pairs.images.vectors_NE
        examples |= {"target_audio": pairs.paired_audio} if has_pairs else {}
    return rows + reference_rows, reference_missing + missing, examples


def _neighbours(
    csls: int | None, captions: Captions | None, pairs: PairVectors | None
) -> tuple[int | None, list[Missing]]:
    """The number of neighbours for CSLS; None if that is not fewer than the candidates of every task."""
    counts = [len(captions.target_NE)] if captions else []
    if pairs and len(pairs.images.vectors_NE) and len(pairs.audio.vectors_NE):
        counts += [len(pairs.images.vectors_NE), len(pairs.audio.vectors_NE)]
    if csls is None or not counts or csls < min(counts):
        return csls, []
    why = f"there are only {min(counts):,} candidates; pass a smaller --csls"
    return None, [Missing(what=f"CSLS scores with {csls:,} neighbours", why=why)]


def _reference(request: EvalRequest, inputs: EvalInputs) -> tuple[np.ndarray, str] | None:
    """The audio vectors that generated sounds are compared with, and the name of their set."""
    if request.reference:
        encoded = [inputs.audio[path] for path in inputs.reference_files if path in inputs.audio]
        empty_NE = np.zeros((0, inputs.bundle.target.dim), np.float32)
        return np.stack(encoded) if encoded else empty_NE, f"the sounds of {request.reference.name}"
    if inputs.pairs and inputs.pair_vectors and len(inputs.pair_vectors.audio.vectors_NE):
        return inputs.pair_vectors.audio.vectors_NE, f"the pairs' sounds, {inputs.pairs.description}"
    return None


def _settings(request: EvalRequest, inputs: EvalInputs) -> dict[str, Any]:
    """What was evaluated on, and how, for `metrics.json`."""
    nnn_scores = (
        f"{SCORINGS[MINUS_HUBNESS]}: the mean of the {NEIGHBOURS} nearest of {REFERENCES:,} references at most, times "
        f"{WEIGHT}"
    )
    return {
        "captions": inputs.captions_text,
        "pairs": inputs.pairs.description if inputs.pairs else None,
        "sounds": request.generated.name if request.generated else None,
        "reference": request.reference.name if request.reference else None,
        "csls_neighbours": request.csls,
        "centred_scores": SCORINGS[CENTRED] if request.centre else None,
        "nnn_scores": nnn_scores if request.centre and request.hubness else None,
        "geometry": request.geometry or None,
        "seed": request.bootstrap.seed,
        "bootstrap_resamples": request.bootstrap.resamples,
        "picture_prompt": IMAGE_PROMPT,
        "sound_prompt": AUDIO_PROMPT,
        "nearest_caption_temperature": nearest_captions.TEMPERATURE,
        "inception_score_temperature": TEMPERATURE,
        "oracle_folds": methods.FOLDS,
    }
