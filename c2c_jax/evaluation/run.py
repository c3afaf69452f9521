"""`c2c evaluate`: what was looked up is encoded and scored, method by method."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from c2c_jax.data.store import SIDES
from c2c_jax.errors import ManifestError
from c2c_jax.evaluation import generated
from c2c_jax.evaluation.encoding import heard_vectors, picture_vectors, text_rows, text_vectors
from c2c_jax.evaluation.gaps import collapsed
from c2c_jax.evaluation.geometry import geometry_rows, rotation_rows
from c2c_jax.evaluation.lookup import Asked, Found, look_up
from c2c_jax.evaluation.material import Captions, Encoded, PairMaterial, pair_material
from c2c_jax.evaluation.oracle import FOLDS
from c2c_jax.evaluation.references import means_of
from c2c_jax.evaluation.results import VECTORS, Results, require_same_settings
from c2c_jax.evaluation.rows import CENTRED, LESS_HUBNESS, SCORINGS, LeftOut, Missing, Row
from c2c_jax.evaluation.sounds_made import Judge, made_rows
from c2c_jax.evaluation.tasks import in_order, method_rows, reference_rows, space_rows
from c2c_jax.evaluation.trained_on import vectors_of
from c2c_jax.evaluation.translation import closed_form_methods, means_of_units, method_of, nearest_caption_method
from c2c_jax.io.progress import Progress, phase
from c2c_jax.publishing.names import public_name, without_places
from c2c_jax.retrieval import nearest_captions as baselines
from c2c_jax.retrieval.scoring import NEIGHBOURS, WEIGHT
from c2c_jax.spaces.space import SpaceId
from c2c_jax.translator.inference import load_clap, load_clip
from c2c_jax.translator.memory import REFERENCES
from c2c_jax.translator.resolve import run_name

REFITTED = (
    "after selection, this translator's closed-form part was fitted to the held-out captions as well, so that scores "
    "on them are optimistic; pass --captions with captions that were not used in training"
)
PICTURE_PROMPT, SOUND_PROMPT = "a photo of a {}", "the sound of a {}"


def evaluate(asked: Asked, console: Console, kept: Path | None = None) -> Results:
    """Scores a translator, and what it is held against, in every task that there is material for. console: for
    progress. kept: a folder whose evaluation is not to be replaced by one with other settings: before anything is
    encoded, ConfigError is raised.

    Files that cannot be read are in the results' `left_out`. Raises as `lookup.look_up`, and CheckpointError or
    BundleError for checkpoints that are missing or of another space than the bundle's.
    """
    with phase(console, "looking for files"):
        found = look_up(asked, console)
    settings = _settings(asked, found)
    if kept:
        require_same_settings(kept, settings)
    encoded, spaces, unread = _encoded(asked, found, console)
    captions = _captions(found, encoded)
    labels = found.pairs.labels if found.pairs else []
    material = _material(found, labels, encoded)
    with phase(console, "scoring"):
        rows, missing, vectors = _scores(asked, found, captions, material, console)
    warnings = [*([REFITTED] if found.is_refitted else []), *collapsed(rows)]
    if found.made:
        prompts_CE = material.given.prompts_CE if material else None
        judge = Judge(
            labels=labels,
            prompts_CE=prompts_CE,
            captions=encoded.target_texts,
            reference=_reference(asked, found, encoded, material),
            bootstrap=asked.bootstrap,
        )
        made, without = made_rows(found.made.made, encoded.audios, judge)
        rows, missing = rows + made, missing + without
    left_out = found.left_out + unread
    if not rows:
        first = f", such as {left_out[0].file}: {left_out[0].why}" if left_out else ""
        raise ManifestError(f"nothing could be evaluated: {len(left_out):,} files or rows were skipped{first}")
    public = without_places(found.bundle)
    named = {side: getattr(public, side) for side in SIDES} | spaces
    return Results(
        bundle={
            "name": run_name(asked.run),
            "spec": dataclasses.asdict(public.spec),
            "recipe": public.recipe,
            "metrics": public.metrics,
            "gap_statistics": public.gap.used,
            "caption_memory": public.memory.record if public.memory and public.memory.weight else None,
        },
        spaces={role: dataclasses.asdict(space) | {"name": public_name(space.name)} for role, space in named.items()},
        settings=settings,
        rows=in_order(rows),
        left_out=left_out,
        missing=found.missing + missing,
        vectors=vectors,
        warnings=warnings,
    )


def _encoded(asked: Asked, found: Found, console: Console) -> tuple[Encoded, dict[str, SpaceId], list[LeftOut]]:
    """All vectors that are asked for, the spaces that they are of, and the files that could not be read. Both spaces
    are loaded and checked before anything is encoded."""
    items = found.pairs.items if found.pairs else []
    labels = found.pairs.labels if found.pairs else []
    captions = [item.caption for item in items if item.caption]
    images = list(dict.fromkeys(item.image for item in items if item.image))
    heard = [item.audio for item in items if item.audio] + (found.made.files if found.made else [])
    audios = list(dict.fromkeys(heard + found.reference_files))
    source_texts = [*captions, *map(PICTURE_PROMPT.format, labels)]
    target_texts = [*captions, *map(SOUND_PROMPT.format, labels)]
    reads_texts = bool(source_texts or found.texts)
    clip = load_clip(found.bundle, asked.clip, reads_texts=reads_texts) if images or reads_texts else None
    clap = load_clap(found.bundle, asked.clap, hears=bool(audios)) if audios or reads_texts else None
    with Progress(console) as bar:
        seen, unseen = picture_vectors(images, clip, bar) if clip and images else ({}, [])
        sounds, unheard = heard_vectors(audios, clap, bar) if clap and audios else ({}, [])
        read = [text_rows(found.texts, space, bar, "captions") for space in (clip, clap) if space and found.texts]
        encoded = Encoded(
            images=seen,
            audios=sounds,
            source_texts=text_vectors(source_texts, clip, bar, "reading, CLIP") if clip else {},
            target_texts=text_vectors(target_texts, clap, bar, "reading, CLAP") if clap else {},
            captions=(read[0], read[1]) if read else None,
        )
    spaces = {role: space.id for role, space in (("clip", clip), ("clap", clap)) if space}
    return encoded, spaces, unseen + unheard


def _captions(found: Found, encoded: Encoded) -> Captions | None:
    """Those that were asked for, or training's held-out ones; a store's in its own dtype."""
    if found.store and found.rows is None:
        source_NS, target_NE = (found.store.read(side) for side in SIDES)
    elif found.store and found.rows is not None:
        source_NS, target_NE = vectors_of(found.store, found.rows)
    elif encoded.captions:
        source_NS, target_NE = encoded.captions
    elif found.trained and found.captions:
        source_NS, target_NE = found.trained.held_out_vectors()
    else:
        return None
    return Captions(source_NS=source_NS, target_NE=target_NE, told=found.captions)


def _material(found: Found, labels: list[str], encoded: Encoded) -> PairMaterial | None:
    if not found.pairs:
        return None
    prompts = [PICTURE_PROMPT.format(label) for label in labels], [SOUND_PROMPT.format(label) for label in labels]
    dims = found.bundle.source.dim, found.bundle.target.dim
    return pair_material(found.pairs.items, labels, prompts, encoded, dims)


def _scores(
    asked: Asked, found: Found, captions: Captions | None, material: PairMaterial | None, console: Console
) -> tuple[list[Row], list[Missing], dict[str, np.ndarray]]:
    """The rows of all tasks but generated sound, what they go without, and the vectors for `vectors.npz`."""
    methods = [method_of("translator", found.bundle.translator, found.bundle.gap, found.bundle.memory)]
    gap = None
    if found.trained and (captions or material):
        console.print(f"going through {found.trained.store.plan.rows:,} captions for the baselines")
        captions_of = found.trained.store, found.trained.untrained
        gap = means_of_units(*captions_of, found.bundle)
        methods.append(nearest_caption_method(*captions_of, gap))
        methods += closed_form_methods(*captions_of, found.bundle, gap)
    csls, missing = _neighbours(asked.csls, captions, material)
    means = None
    if asked.centre and (captions or material):
        means, without = means_of(found.bundle, captions, material, hubness=asked.hubness)
        missing += without
    rows = space_rows(captions, material, asked.bootstrap)
    if asked.geometry:
        for found_rows, without in (
            geometry_rows(captions, material, asked.bootstrap),
            rotation_rows(methods, captions, gap, asked.bootstrap),
        ):
            rows, missing = rows + found_rows, missing + without
    vectors: dict[str, np.ndarray] = {}
    for method in methods:
        found_rows, found_vectors = method_rows(method, captions, material, asked.bootstrap, csls, means)
        rows += found_rows
        if not vectors:  # the translator's, which comes first; copied, so that a method's large array goes with it
            vectors = {name: np.array(x_NE[:VECTORS]) for name, x_NE in found_vectors.items()}
        del found_vectors
    others, without = reference_rows(captions, material, asked.bootstrap, csls, means)
    if captions:
        vectors |= {"source_text": captions.source_NS, "target_text": captions.target_NE}
    if material and len(material.given.image_BS):
        has_pairs = len(material.pairs_P2) > 0
        vectors["source_image"] = material.paired_images if has_pairs else material.given.image_BS
        vectors |= {"target_audio": material.paired_audios} if has_pairs else {}
    return rows + others, without + missing, vectors


def _neighbours(
    csls: int | None, captions: Captions | None, material: PairMaterial | None
) -> tuple[int | None, list[Missing]]:
    """How many neighbours CSLS takes: none where a task has no more candidates than that."""
    counts = [len(captions.target_NE)] if captions else []
    if material and len(material.given.image_BS) and len(material.given.audio_NE):
        counts += [len(material.given.image_BS), len(material.given.audio_NE)]
    if csls is None or not counts or csls < min(counts):
        return csls, []
    why = f"there are only {min(counts):,} candidates; pass a smaller --csls"
    return None, [Missing(what=f"CSLS scores with {csls:,} neighbours", why=why)]


def _reference(
    asked: Asked, found: Found, encoded: Encoded, material: PairMaterial | None
) -> tuple[np.ndarray, str] | None:
    """The audio vectors that generated sounds are compared with, and their set's name."""
    if asked.reference:
        heard = [encoded.audios[path] for path in found.reference_files if path in encoded.audios]
        dim = found.bundle.target.dim
        return np.stack(heard) if heard else np.zeros((0, dim), np.float32), f"the sounds of {asked.reference.name}"
    if material and found.pairs and len(material.given.audio_NE):
        return material.given.audio_NE, f"the pairs' sounds, {found.pairs.told}"
    return None


def _settings(asked: Asked, found: Found) -> dict[str, Any]:
    return {
        "captions": found.captions or None,
        "pairs": found.pairs.told if found.pairs else None,
        "sounds": asked.sounds.name if asked.sounds else None,
        "reference": asked.reference.name if asked.reference else None,
        "csls_neighbours": asked.csls,
        "centred_scores": SCORINGS[CENTRED] if asked.centre else None,
        "nnn_scores": f"{SCORINGS[LESS_HUBNESS]}: the mean of the {NEIGHBOURS} nearest of {REFERENCES:,} references at "
        f"most, times {WEIGHT}"
        if asked.centre and asked.hubness
        else None,
        "geometry": asked.geometry or None,
        "seed": asked.bootstrap.seed,
        "bootstrap_resamples": asked.bootstrap.resamples,
        "picture_prompt": PICTURE_PROMPT,
        "sound_prompt": SOUND_PROMPT,
        "nearest_caption_temperature": baselines.TEMPERATURE,
        "inception_score_temperature": generated.TEMPERATURE,
        "oracle_folds": FOLDS,
    }
