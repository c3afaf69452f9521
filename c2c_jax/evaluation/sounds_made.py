"""Sounds that infer.py made, by their records, and their scores."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from c2c_jax.errors import SoundError
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.frechet import ENOUGH, frechet_distance, frechet_infinite
from c2c_jax.evaluation.generated import clap_scores, diversities, inception_score, label_shares
from c2c_jax.evaluation.image_sound import NONE, prompt_rows
from c2c_jax.evaluation.manifest import Item
from c2c_jax.evaluation.rows import LeftOut, Missing, Row
from c2c_jax.generation.records import Record, read_records
from c2c_jax.io.files import path_of
from c2c_jax.io.vectors import unit_rows

TASK = "generated"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """The sounds of one picture, or of one control text. files: candidates, the one that counts first. wanted_E: the
    vector that they were made to sound like. item: the picture's entry among the pairs, where it has one. ranked: how
    many candidates a CLAP chose the first among; 1: it was not chosen."""

    files: tuple[Path, ...]
    wanted_E: Float[np.ndarray, "E"]
    item: Item | None = None
    ranked: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeSounds:
    """What a folder of infer.py's holds, by method: "translator", of pictures, and "control", of texts."""

    made: Mapping[str, Sequence[Made]]
    left_out: list[LeftOut]

    @property
    def files(self) -> list[Path]:
        """All candidates, each once."""
        return list(dict.fromkeys(file for made in self.made.values() for one in made for file in one.files))


def read_made(folder: Path, translator_sha256: str, dim: int, items: Sequence[Item]) -> MadeSounds:
    """The sounds below a folder that this translator's vectors, or control texts, were made into.

    items: entries of the pairs; a record's picture is found among them by its file name, where one alone has it. Sounds
    of another translator, and what is wrong with records, are left out. Raises ReportError where there is no record.
    """
    records, controls, errors = read_records(folder)
    left_out = [LeftOut(file=str(folder), why=str(error)) for error in errors]
    by_name: dict[str, list[Item]] = {}
    for item in items:
        if item.image:
            by_name.setdefault(item.image.name, []).append(item)

    def usable(record: Record) -> bool:
        width = len(record.content.clap_vector)
        if width != dim:
            left_out.append(
                LeftOut(file=str(record.path), why=f"its vector is {width} wide, the translator's are {dim}")
            )
        elif record.content.translator and record.content.translator.sha256 != translator_sha256:
            left_out.append(LeftOut(file=str(record.path), why="its sounds are of another translator"))
        else:
            return True
        return False

    def files_of(record: Record) -> Iterator[Path]:
        for sound in record.content.sounds:
            try:
                yield record.require_file(sound)
            except SoundError as error:
                left_out.append(LeftOut(file=str(record.path.parent / sound.path), why=str(error)))

    def made(record: Record) -> Made:
        sounds, pictures = record.content.sounds, record.content.pictures
        named = by_name.get(path_of(pictures[0].path).name, []) if len(pictures) == 1 else []
        return Made(
            files=tuple(files_of(record)),
            wanted_E=np.asarray(record.content.clap_vector, np.float32),
            item=named[0] if len(named) == 1 else None,
            ranked=len(sounds) if all(sound.clap_score is not None for sound in sounds) else 1,
        )

    by_method = {"translator": records, "control": _different(controls)}
    found = {method: [made(record) for record in some if usable(record)] for method, some in by_method.items()}
    return MadeSounds(made={method: some for method, some in found.items() if some}, left_out=left_out)


def _different(controls: Sequence[Record]) -> list[Record]:
    """Each control sound once: infer.py writes that of a text beside every picture. Copies have one text, one vector,
    and the same seeds and settings."""

    def made_of(record: Record) -> str:
        seeds = [sound.seed for sound in record.content.sounds]
        return json.dumps({**record.raw, "sounds": seeds, "versions": None}, sort_keys=True)

    return list({made_of(record): record for record in reversed(controls)}.values())[::-1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """What sounds are judged by. labels: the classes, whose prompts' target vectors are `prompts_CE`, None without.
    captions: target vectors of the pairs' captions. reference: audio vectors of the set that distances are to, and its
    name."""

    labels: Sequence[str]
    prompts_CE: Float[np.ndarray, "C E"] | None
    captions: Mapping[str, Float[np.ndarray, "E"]]
    reference: tuple[Float[np.ndarray, "M E"], str] | None
    bootstrap: Bootstrap


def made_rows(
    made: Mapping[str, Sequence[Made]], vectors: Mapping[Path, Float[np.ndarray, "E"]], judge: Judge
) -> tuple[list[Row], list[Missing]]:
    """All figures of generated sounds. vectors: audio vectors of the files that could be read.

    clap_score: mean cosine of a sound and the vector that it was made of; caption_clap_score: and its picture's
    caption. class_accuracy: see `image_sound.prompt_rows`. inception_score: over the labels' prompts. fad_clap,
    fad_clap_inf: see `frechet.py`, over CLAP's audio vectors as unit ones, which laion_clap gives and fadtk takes; the
    reference set is named in the row. diversity: see `generated.py`. The first candidate that could be read counts,
    diversity takes all. Where a CLAP chose it among N, the method is called "…, best of N".
    """
    rows: list[Row] = []
    missing: dict[str, str] = {}
    for name, some in made.items():
        method = name + _chosen(some)
        heard = [(one, [vectors[file] for file in one.files if file in vectors]) for one in some]
        heard = [(one, candidates) for one, candidates in heard if candidates]
        if not heard:
            continue
        ones, first_NE = [one for one, _ in heard], np.stack([candidates[0] for _, candidates in heard])
        scores_N = clap_scores(first_NE, np.stack([one.wanted_E for one in ones]))
        rows.append(_mean_row(method, "clap_score", scores_N, judge.bootstrap))
        rows += _caption_rows(method, ones, first_NE, judge)
        rows += _label_rows(method, ones, first_NE, judge)
        rows += _distance_rows(method, first_NE, judge, missing)
        several = [np.stack(candidates) for _, candidates in heard if len(candidates) > 1]
        if several:
            rows.append(_mean_row(method, "diversity", diversities(several), judge.bootstrap))
        elif name == "translator":
            missing["diversity"] = "one sound of each picture; make several with --candidates"
    if judge.prompts_CE is None:
        missing["inception_score, class_accuracy"] = "no labels; pass --pairs with a label column"
    if judge.reference is None:
        missing["fad_clap"] = "no reference set; pass --reference, or --pairs with sounds"
    elif judge.prompts_CE is not None and len(judge.reference[0]):
        rows.append(_inception_row("reference", judge.reference[0], judge.prompts_CE, judge.bootstrap))
    return rows, [Missing(what=f"generated sound: {what}", why=why) for what, why in missing.items()]


def _chosen(some: Sequence[Made]) -> str:
    """ ", best of N" where a CLAP chose sounds among N, which raises their scores by a CLAP; "" where none was."""
    least, most = min(one.ranked for one in some), max(one.ranked for one in some)
    if most == 1:
        return ""
    return f", best of {most}" if least == most else f", best of {least} to {most}"


def _caption_rows(method: str, ones: Sequence[Made], first_NE: Float[np.ndarray, "N E"], judge: Judge) -> list[Row]:
    captions = [one.item.caption if one.item else None for one in ones]
    known = [number for number, caption in enumerate(captions) if caption in judge.captions]
    if not known:
        return []
    wanted = np.stack([judge.captions[captions[number]] for number in known])  # type: ignore[index]
    return [_mean_row(method, "caption_clap_score", clap_scores(first_NE[known], wanted), judge.bootstrap)]


def _label_rows(method: str, ones: Sequence[Made], first_NE: Float[np.ndarray, "N E"], judge: Judge) -> list[Row]:
    if judge.prompts_CE is None:
        return []
    number_of = {label: number for number, label in enumerate(judge.labels)}
    labels = [one.item.label if one.item else None for one in ones]
    labels_N = np.array([NONE if label is None else number_of[label] for label in labels])
    rows = prompt_rows(method, first_NE, labels_N, judge.prompts_CE, judge.bootstrap, task=TASK)
    return [*rows, _inception_row(method, first_NE, judge.prompts_CE, judge.bootstrap)]


def _inception_row(
    method: str, vectors_NE: Float[np.ndarray, "N E"], prompts_CE: Float[np.ndarray, "C E"], bootstrap: Bootstrap
) -> Row:
    value, (low, high) = inception_score(label_shares(vectors_NE, prompts_CE), bootstrap)
    return Row(task=TASK, method=method, metric="inception_score", value=value, low=low, high=high, n=len(vectors_NE))


def _distance_rows(
    method: str, vectors_NE: Float[np.ndarray, "N E"], judge: Judge, missing: dict[str, str]
) -> list[Row]:
    if judge.reference is None:
        return []
    (reference_ME, name), (N, E) = judge.reference, vectors_NE.shape
    of = "" if method.startswith("translator") else f" of {method} sounds"
    if min(N, len(reference_ME)) < 2:
        told = f"{N} different sounds and {len(reference_ME)} of the reference; it takes two of each or more"
        missing[f"fad_clap{of}"] = told
        return []
    unit_NE, unit_ME = unit_rows(vectors_NE), unit_rows(reference_ME)
    values = {"fad_clap": frechet_distance(unit_NE, unit_ME)}
    if N >= ENOUGH * E:
        values["fad_clap_inf"] = frechet_infinite(unit_NE, unit_ME, judge.bootstrap.seed)
    else:
        missing[f"fad_clap_inf{of}"] = f"{N} sounds; in {E} dimensions it takes {ENOUGH * E} or more"
    return [
        Row(task=TASK, method=method, metric=metric, value=value, n=N, reference=name)
        for metric, value in values.items()
    ]


def _mean_row(method: str, metric: str, values_N: Float[np.ndarray, "N"], bootstrap: Bootstrap) -> Row:
    low, high = bootstrap.of_mean(values_N)
    return Row(
        task=TASK, method=method, metric=metric, value=float(values_N.mean()), low=low, high=high, n=len(values_N)
    )
