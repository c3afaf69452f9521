"""Scores of the sounds that infer.py generated, found by their records."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import AudioError
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.geometry import MIN_ROWS_PER_DIMENSION, frechet_distance, frechet_infinite
from c2c_jax.evaluation.pairs import Item
from c2c_jax.evaluation.results import Missing, Row, SkippedFile
from c2c_jax.evaluation.retrieval import Scorer
from c2c_jax.evaluation.scoring import Comparison, cosines
from c2c_jax.evaluation.vectors import NONE, FileVectors, TextVectors
from c2c_jax.generation.records import Record, read_records
from c2c_jax.io.files import text_to_path
from c2c_jax.io.vectors import unit_rows

TASK = "generated"
TEMPERATURE = 0.01  # of the softmax over labels; CLIP clips its logit scale at 100 in training


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedAudio:
    """The sounds generated from one image, or from one control text.

    files: the candidates; the first that can be read is scored. target_E: the vector that they were generated from.
    item: the image's entry among the pairs; None: it has none. ranked: number of candidates that a CLAP ranked to
    choose the first; 1: no ranking.
    """

    files: tuple[Path, ...]
    target_E: Float[np.ndarray, "E"]
    item: Item | None = None
    ranked: int = 1


Generated = dict[str, list[GeneratedAudio]]  # by method: "translator", from images, and "control", from texts


def read_generated(
    folder: Path, translator_sha256: str, dim: int, items: Sequence[Item]
) -> tuple[Generated, list[SkippedFile]]:
    """Reads the records in an output folder of infer.py that are of this translator or of control texts.

    items: entries of the pairs; a record's image is looked up among them by its file name, which must be unique. Sounds
    of other translators and damaged records are skipped. Raises ReportError if there is no record.
    """
    records, controls, errors = read_records(folder)
    skipped = [SkippedFile(file=str(folder), why=str(error)) for error in errors]
    by_name: dict[str, list[Item]] = {}
    for item in items:
        if item.image:
            by_name.setdefault(item.image.name, []).append(item)
    generated: Generated = {}
    for method, of_method in {"translator": records, "control": _distinct(controls)}.items():
        for record in of_method:
            content, width = record.content, len(record.content.clap_vector)
            if width != dim:
                why = f"its vector is {width} wide, the translator's are {dim}"
                skipped.append(SkippedFile(file=str(record.path), why=why))
                continue
            if content.translator and content.translator.sha256 != translator_sha256:
                skipped.append(SkippedFile(file=str(record.path), why="its sounds are of another translator"))
                continue
            files = []
            for sound in content.sounds:
                try:
                    files.append(record.require_file(sound))
                except AudioError as error:
                    skipped.append(SkippedFile(file=str(record.path.parent / sound.path), why=str(error)))
            matches = by_name.get(text_to_path(content.pictures[0].path).name, []) if len(content.pictures) == 1 else []
            is_ranked = all(sound.clap_score is not None for sound in content.sounds)
            audio = GeneratedAudio(
                files=tuple(files),
                target_E=np.asarray(content.clap_vector, np.float32),
                item=matches[0] if len(matches) == 1 else None,
                ranked=len(content.sounds) if is_ranked else 1,
            )
            generated.setdefault(method, []).append(audio)
    return generated, skipped


def _distinct(controls: Sequence[Record]) -> list[Record]:
    """Drops copies of control sounds: infer.py writes the sound of a control text next to every image. Copies have the
    same text, vector, seeds and settings."""

    def content_of(record: Record) -> str:
        seeds = [sound.seed for sound in record.content.sounds]
        return json.dumps({**record.raw, "sounds": seeds, "versions": None}, sort_keys=True)

    return list({content_of(record): record for record in reversed(controls)}.values())[::-1]


def generated_rows(
    generated: Generated,
    vectors: FileVectors,
    labels: Sequence[str],
    prompts_CE: Float[np.ndarray, "C E"] | None,
    captions: TextVectors,
    reference: tuple[Float[np.ndarray, "M E"], str] | None,
    bootstrap: Bootstrap,
) -> tuple[list[Row], list[Missing]]:
    """Scores generated sounds; also returns what could not be computed.

    vectors: audio vectors of the files that could be read. labels, prompts_CE: the classes and the target vectors of
    their prompts; None without classes. captions: target vectors of the pairs' captions. reference: audio vectors of
    the set that distances are measured to, and its name; None without a set.

    clap_score: mean cosine of a sound and the vector that it was generated from (as in Huang et al. 2023,
    "Make-An-Audio"). caption_clap_score: mean cosine of a sound and its image's caption. class_accuracy: see
    `Scorer.prompt_rows`. inception_score: over the labels' prompts. fad_clap, fad_clap_inf: Fréchet distances over
    CLAP's unit audio vectors, as from laion_clap and in fadtk; the row names the reference set. diversity: mean of
    1 − cosine over the pairs of an image's candidates. All others use the first candidate that could be read. If a CLAP
    chose it from N candidates, ", best of N" is added to the method's name.
    """
    rows: list[Row] = []
    missing: dict[str, str] = {}
    for method, group in generated.items():
        candidates = {audio: [vectors[file] for file in audio.files if file in vectors] for audio in group}
        candidates = {audio: encoded for audio, encoded in candidates.items() if encoded}
        if not candidates:
            continue
        scorer, items = Scorer(method + _best_of(group), bootstrap), [audio.item for audio in candidates]
        first_NE = np.stack([encoded[0] for encoded in candidates.values()])
        target_NE = np.stack([audio.target_E for audio in candidates])
        rows.append(scorer.mean_row(TASK, "clap_score", cosines(first_NE, target_NE)))
        captioned = {n: item.caption for n, item in enumerate(items) if item and item.caption}
        if captioned:
            caption_AE = np.stack([captions[text] for text in captioned.values()])
            rows.append(scorer.mean_row(TASK, "caption_clap_score", cosines(first_NE[list(captioned)], caption_AE)))
        if prompts_CE is not None:
            labels_N = np.array([labels.index(item.label) if item and item.label else NONE for item in items])
            rows += scorer.prompt_rows(TASK, Comparison(query_QE=first_NE, candidate_NE=prompts_CE), labels_N)
            rows.append(inception_row(scorer.method, first_NE, prompts_CE, bootstrap))
        if reference:
            distance_rows, without_distance = _distance_rows(scorer, first_NE, *reference)
            rows, missing = rows + distance_rows, missing | without_distance
        several = [np.stack(encoded) for encoded in candidates.values() if len(encoded) > 1]
        if several:
            rows.append(scorer.mean_row(TASK, "diversity", diversities(several)))
        elif method == "translator":
            missing["diversity"] = "one sound of each image; make several with --candidates"
    if prompts_CE is None:
        missing["inception_score, class_accuracy"] = "no labels; pass --pairs with a label column"
    if reference is None:
        missing["fad_clap"] = "no reference set; pass --reference, or --pairs with sounds"
    elif prompts_CE is not None and len(reference[0]):
        rows.append(inception_row("reference", reference[0], prompts_CE, bootstrap))
    return rows, [Missing(what=f"generated sound: {what}", why=why) for what, why in missing.items()]


def _best_of(group: Sequence[GeneratedAudio]) -> str:
    """Returns ", best of N" if a CLAP chose the sounds from N candidates, which raises their scores by a CLAP; else
    ""."""
    low, high = min(audio.ranked for audio in group), max(audio.ranked for audio in group)
    if high == 1:
        return ""
    return f", best of {high}" if low == high else f", best of {low} to {high}"


def _distance_rows(
    scorer: Scorer, first_NE: Float[np.ndarray, "N E"], reference_ME: Float[np.ndarray, "M E"], reference: str
) -> tuple[list[Row], dict[str, str]]:
    """Fréchet distances to the reference set, and which of them are missing."""
    method, (N, E) = scorer.method, first_NE.shape
    of = "" if method.startswith("translator") else f" of {method} sounds"
    if min(N, len(reference_ME)) < 2:
        why = f"{N} different sounds and {len(reference_ME)} of the reference; it takes two of each or more"
        return [], {f"fad_clap{of}": why}
    unit_NE, unit_ME = unit_rows(first_NE), unit_rows(reference_ME)
    rows = [Row(TASK, method, "fad_clap", frechet_distance(unit_NE, unit_ME), N, reference=reference)]
    if N < MIN_ROWS_PER_DIMENSION * E:
        why = f"{N} sounds; in {E} dimensions it takes {MIN_ROWS_PER_DIMENSION * E} or more"
        return rows, {f"fad_clap_inf{of}": why}
    distance = frechet_infinite(unit_NE, unit_ME, scorer.bootstrap.seed)
    return [*rows, Row(TASK, method, "fad_clap_inf", distance, N, reference=reference)], {}


def label_probabilities(
    audio_NE: Float[np.ndarray, "N E"], prompts_CE: Float[np.ndarray, "C E"], temperature: float = TEMPERATURE
) -> Float[np.ndarray, "N C"]:
    """p(label | sound): softmax over C label prompts of their cosines to each sound, divided by the temperature."""
    logits_NC = unit_rows(audio_NE) @ unit_rows(prompts_CE).T / temperature
    exp_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return exp_NC / exp_NC.sum(axis=1, keepdims=True)


def inception_row(
    method: str, audio_NE: Float[np.ndarray, "N E"], prompts_CE: Float[np.ndarray, "C E"], bootstrap: Bootstrap
) -> Row:
    """The inception score with CLAP's zero-shot classifier in place of Inception: exp of the mean KL divergence of
    p(label | sound) from its mean over sounds (Salimans et al. 2016, section 4). 1 if all sounds have the same
    probabilities, C at most."""
    probability_NC, N = label_probabilities(audio_NE, prompts_CE), len(audio_NE)
    negative_entropy_N = np.sum(probability_NC * np.log(np.maximum(probability_NC, 1e-300)), axis=1)

    def score(counts_RN: np.ndarray) -> np.ndarray:
        mean_RC = counts_RN @ probability_NC / N
        entropy_R = -np.sum(mean_RC * np.log(np.maximum(mean_RC, 1e-300)), axis=1)
        return np.exp(counts_RN @ negative_entropy_N / N + entropy_R)

    value, interval = float(score(np.ones((1, N)))[0]), bootstrap.of_counts(score, N)
    return Row(TASK, method, "inception_score", value, N, *interval)


def diversities(candidates: Sequence[Float[np.ndarray, "_ E"]]) -> Float[np.ndarray, "P"]:
    """For each image, the mean of 1 − cosine over the pairs of its candidates, of which there must be two or more."""
    units = (unit_rows(audio_KE) for audio_KE in candidates)
    return np.array([np.mean(1 - (x_KE @ x_KE.T)[np.triu_indices(len(x_KE), 1)]) for x_KE in units])
