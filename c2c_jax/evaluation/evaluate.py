"""`c2c evaluate`: finds the inputs, encodes them, and scores every method in every task."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from c2c_jax.data.store import SIDES
from c2c_jax.errors import ManifestError
from c2c_jax.evaluation import generated, methods, vectors
from c2c_jax.evaluation.gaps import collapsed
from c2c_jax.evaluation.geometry import geometry_rows, rotation_rows
from c2c_jax.evaluation.inputs import EvalInputs, EvalRequest, find_inputs
from c2c_jax.evaluation.oracle import FOLDS
from c2c_jax.evaluation.results import VECTORS, Results, require_same_settings
from c2c_jax.evaluation.rows import CENTRED, LESS_HUBNESS, SCORINGS, Missing, Row
from c2c_jax.evaluation.scoring import means_of
from c2c_jax.evaluation.tasks import Tasks, in_order
from c2c_jax.evaluation.vectors import IMAGE_PROMPT, SOUND_PROMPT, Captions, PairVectors
from c2c_jax.io.progress import Progress, phase
from c2c_jax.publishing.names import public_name, without_local_paths
from c2c_jax.retrieval import nearest_captions
from c2c_jax.retrieval.scoring import NEIGHBOURS, WEIGHT
from c2c_jax.spaces.space import SpaceId
from c2c_jax.translator.inference import load_clap, load_clip
from c2c_jax.translator.memory import REFERENCES
from c2c_jax.translator.resolve import run_name


def evaluate(request: EvalRequest, console: Console, kept: Path | None = None) -> Results:
    """Scores a translator and its baselines in every task that there are inputs for. console: shows progress. kept: a
    folder whose evaluation must not be replaced by one with other settings; ConfigError is raised before anything is
    encoded.

    Files that cannot be read are in the results' `left_out`. Raises as `find_inputs`, and CheckpointError or
    BundleError for checkpoints that are missing or of another space than the bundle's.
    """
    with phase(console, "looking for files"):
        inputs = find_inputs(request, console)
    settings = _settings(request, inputs)
    if kept:
        require_same_settings(kept, settings)
    spaces = _encode(request, inputs, console)
    with phase(console, "scoring"):
        rows, missing, examples = _scores(request, inputs, console)
    warnings = [*inputs.warnings, *collapsed(rows)]
    if inputs.generated is not None:
        found, without = generated.generated_rows(
            inputs.generated,
            inputs.audios,
            labels=inputs.pairs.labels if inputs.pairs else [],
            prompts_CE=inputs.pair_vectors.sounds.prompts_CE if inputs.pair_vectors else None,
            captions=inputs.target_texts,
            reference=_reference(request, inputs),
            bootstrap=request.bootstrap,
        )
        rows, missing = rows + found, missing + without
    if not rows:
        first = f", such as {inputs.skipped[0]}" if inputs.skipped else ""
        raise ManifestError(f"nothing could be evaluated: {len(inputs.skipped):,} files or rows were skipped{first}")
    public = without_local_paths(inputs.bundle)
    spaces = {side: getattr(public, side) for side in SIDES} | spaces
    return Results(
        bundle={
            "name": run_name(request.run),
            "spec": dataclasses.asdict(public.spec),
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


def _encode(request: EvalRequest, inputs: EvalInputs, console: Console) -> dict[str, SpaceId]:
    """Loads and checks both spaces, then encodes all inputs. Returns the spaces by role."""
    bundle, texts = inputs.bundle, inputs.texts
    items, labels = (inputs.pairs.items, inputs.pairs.labels) if inputs.pairs else ([], [])
    image_files = list(dict.fromkeys(item.image for item in items if item.image))
    audio_files = [item.audio for item in items if item.audio]
    audio_files += [file for sounds in (inputs.generated or {}).values() for one in sounds for file in one.files]
    audio_files = list(dict.fromkeys(audio_files + inputs.reference_files))
    captions = [item.caption for item in items if item.caption]
    source_texts, target_texts = ([*captions, *map(prompt.format, labels)] for prompt in (IMAGE_PROMPT, SOUND_PROMPT))
    reads_texts = bool(source_texts or texts)
    clip = load_clip(bundle, request.clip, with_text=reads_texts) if image_files or reads_texts else None
    clap = load_clap(bundle, request.clap, with_audio=bool(audio_files)) if audio_files or reads_texts else None
    with Progress(console) as bar:
        images, no_images = vectors.image_vectors(image_files, clip, bar) if clip and image_files else ({}, [])
        inputs.audios, no_audios = vectors.audio_vectors(audio_files, clap, bar) if clap and audio_files else ({}, [])
        read = [vectors.text_rows(texts, space, bar, "encoding captions") for space in (clip, clap) if space and texts]
        source = vectors.text_vectors(source_texts, clip, bar, "encoding texts, CLIP") if clip else {}
        inputs.target_texts = vectors.text_vectors(target_texts, clap, bar, "encoding texts, CLAP") if clap else {}
    inputs.skipped += no_images + no_audios
    if read:
        inputs.captions = Captions(*read)
    if inputs.pairs:
        encoded = images, inputs.audios, source, inputs.target_texts
        inputs.pair_vectors = vectors.pair_vectors(inputs.pairs, *encoded, (bundle.source.dim, bundle.target.dim))
    return {role: space.id for role, space in (("clip", clip), ("clap", clap)) if space}


def _scores(
    request: EvalRequest, inputs: EvalInputs, console: Console
) -> tuple[list[Row], list[Missing], dict[str, np.ndarray]]:
    """The rows of all tasks but generated sound, what they go without, and the vectors for `vectors.npz`."""
    captions, pairs, bundle, bootstrap = inputs.captions, inputs.pair_vectors, inputs.bundle, request.bootstrap
    all_methods = [methods.method_of("translator", bundle.translator, bundle.means, bundle.memory)]
    caption_means = means = None
    if inputs.training and (captions or pairs):
        console.print(f"going through {inputs.training.store.plan.rows:,} captions for the baselines")
        caption_means, baselines = methods.caption_methods(inputs.training, bundle)
        all_methods += baselines
    csls, missing = _neighbours(request.csls, captions, pairs)
    if request.centre and (captions or pairs):
        means, without = means_of(bundle, captions, pairs, hubness=request.hubness)
        missing += without
    tasks = Tasks(captions=captions, pairs=pairs, bootstrap=bootstrap, csls=csls, means=means)
    rows = tasks.space_rows()
    if request.geometry:
        sides = vectors.both_sides(captions, pairs)
        described = geometry_rows(sides, bootstrap), rotation_rows(all_methods, captions, caption_means, bootstrap)
        for found, without in described:
            rows, missing = rows + found, missing + without
    examples: dict[str, np.ndarray] = {}
    for method in all_methods:
        found, translated = tasks.method_rows(method)
        rows += found
        if not examples:  # the translator's, which comes first; copied, so that a method's large array is freed
            examples = {name: np.array(x_NE[:VECTORS]) for name, x_NE in translated.items()}
        del translated
    found, without = tasks.reference_rows()
    if captions:
        examples |= {"source_text": captions.source_NS, "target_text": captions.target_NE}
    if pairs and len(pairs.images.vectors_NE):
        has_pairs = len(pairs.pairs_P2) > 0
        examples["source_image"] = pairs.paired_images if has_pairs else pairs.images.vectors_NE
        examples |= {"target_audio": pairs.paired_audio} if has_pairs else {}
    return rows + found, without + missing, examples


def _neighbours(
    csls: int | None, captions: Captions | None, pairs: PairVectors | None
) -> tuple[int | None, list[Missing]]:
    """The number of neighbours for CSLS; None if a task has no more candidates than that."""
    counts = [len(captions.target_NE)] if captions else []
    if pairs and len(pairs.images.vectors_NE) and len(pairs.sounds.vectors_NE):
        counts += [len(pairs.images.vectors_NE), len(pairs.sounds.vectors_NE)]
    if csls is None or not counts or csls < min(counts):
        return csls, []
    why = f"there are only {min(counts):,} candidates; pass a smaller --csls"
    return None, [Missing(what=f"CSLS scores with {csls:,} neighbours", why=why)]


def _reference(request: EvalRequest, inputs: EvalInputs) -> tuple[np.ndarray, str] | None:
    """The audio vectors that generated sounds are compared with, and their set's name."""
    if request.reference:
        found = [inputs.audios[path] for path in inputs.reference_files if path in inputs.audios]
        none_NE = np.zeros((0, inputs.bundle.target.dim), np.float32)
        return np.stack(found) if found else none_NE, f"the sounds of {request.reference.name}"
    if inputs.pairs and inputs.pair_vectors and len(inputs.pair_vectors.sounds.vectors_NE):
        return inputs.pair_vectors.sounds.vectors_NE, f"the pairs' sounds, {inputs.pairs.description}"
    return None


def _settings(request: EvalRequest, inputs: EvalInputs) -> dict[str, Any]:
    """What was evaluated on, and how, for `metrics.json`."""
    nnn_scores = (
        f"{SCORINGS[LESS_HUBNESS]}: the mean of the {NEIGHBOURS} nearest of {REFERENCES:,} references at most, times "
        f"{WEIGHT}"
    )
    return {
        "captions": inputs.described,
        "pairs": inputs.pairs.description if inputs.pairs else None,
        "sounds": request.sounds.name if request.sounds else None,
        "reference": request.reference.name if request.reference else None,
        "csls_neighbours": request.csls,
        "centred_scores": SCORINGS[CENTRED] if request.centre else None,
        "nnn_scores": nnn_scores if request.centre and request.hubness else None,
        "geometry": request.geometry or None,
        "seed": request.bootstrap.seed,
        "bootstrap_resamples": request.bootstrap.resamples,
        "picture_prompt": IMAGE_PROMPT,
        "sound_prompt": SOUND_PROMPT,
        "nearest_caption_temperature": nearest_captions.TEMPERATURE,
        "inception_score_temperature": generated.TEMPERATURE,
        "oracle_folds": FOLDS,
    }
