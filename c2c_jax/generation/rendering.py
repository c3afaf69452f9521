"""CLAP vectors to files that are made to be looked at and repeated: sounds, their pictures, and a record of each."""

import dataclasses
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from c2c_jax.generation.audioldm import AudioLDM
from c2c_jax.generation.plan import Subject, control_file, numbered
from c2c_jax.generation.ranking import Ranker
from c2c_jax.generation.sampling import Sampling, Versions
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.files import sha256_of, text_of
from c2c_jax.io.sound_files import defects, draw_mel_spectrogram, write_sound


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """One sound that is asked for. outs: its file, or several that get the same; for candidates beyond the best see
    `plan.numbered`. about: where the vector comes from, for the record."""

    outs: tuple[Path, ...]
    vector_E: Float[np.ndarray, "E"]
    about: dict[str, Any]


def render(
    wanted: Sequence[Wanted],
    generator: AudioLDM,
    sampling: Sampling,
    *,
    ranker: Ranker | None,
    at_once: int,
    about: dict[str, Any],
    tell: Callable[[str], None],
    on_step: Callable[[], None],
) -> Iterator[Path]:
    """Writes every wanted sound as soon as it is there, with a mel-spectrogram (`.mel.png`) beside each file and a
    record (`.sound.json`) of all that is needed to repeat it; gives the sound files.

    at_once: clips that are sampled together. about: goes into every record. tell: is given what a listener should know
    (silence, clipping). on_step: called after each step of the scheduler. Raises GenerationError; files that were
    written before stay.
    """
    clips = [(number, seed) for number in range(len(wanted)) for seed in sampling.seeds]
    negative_E = generator.encode_text([sampling.negative_prompt])[0] if sampling.guidance > 1 else None
    sounds: dict[int, list[np.ndarray]] = {}
    for start in range(0, len(clips), at_once):
        part = clips[start : start + at_once]
        sampled = generator.generate(
            np.stack([wanted[number].vector_E for number, _ in part]),
            sampling,
            seeds=[seed for _, seed in part],
            negative_E=negative_E,
            on_step=on_step,
        )
        for (number, _), sound in zip(part, sampled, strict=True):
            sounds.setdefault(number, []).append(sound)
        for number in [number for number, made in sounds.items() if len(made) == sampling.candidates]:
            yield from _write(wanted[number], np.stack(sounds.pop(number)), generator, sampling, ranker, about, tell)


def steps_of(wanted: Sequence[Wanted], sampling: Sampling, at_once: int) -> int:
    """How often `render` calls `on_step`, about: a scheduler may take a step more or less."""
    return -(-len(wanted) * sampling.candidates // at_once) * sampling.number_of_steps


def _write(
    one: Wanted,
    sounds_CS: Float[np.ndarray, "C samples"],
    generator: AudioLDM,
    sampling: Sampling,
    ranker: Ranker | None,
    about: dict[str, Any],
    tell: Callable[[str], None],
) -> Iterator[Path]:
    scores = ranker.scores(sounds_CS, generator.sample_rate, one.vector_E) if ranker else None
    order = np.arange(len(sounds_CS)) if scores is None else np.argsort(-scores, kind="stable")
    for out in one.outs:
        out.with_suffix(".sound.json").unlink(missing_ok=True)  # it is not of the sounds that are written now
        written = []
        for place, candidate in enumerate(order):
            path, sound = numbered(out, place), sounds_CS[candidate]
            wrong = defects(sound)
            for told in wrong:
                tell(f"{path} is {told}")
            write_sound(path, sound, generator.sample_rate)
            draw_mel_spectrogram(path.with_suffix(".mel.png"), sound, generator.sample_rate, path.name)
            written.append(
                {
                    "file": text_of(Path(path.name)),
                    "sha256": sha256_of(path),
                    "seed": sampling.seeds[candidate],
                    "clap_score": None if scores is None else float(scores[candidate]),
                    "peak": float(np.abs(sound).max()),
                    "rms": float(np.sqrt(np.mean(sound.astype(np.float64) ** 2))),
                    "defects": wrong,
                }
            )
            yield path
        record = {
            "sounds": written,
            **one.about,
            **about,
            "sampling": {**dataclasses.asdict(sampling), "steps": sampling.number_of_steps},
            "sample_rate": generator.sample_rate,
            "clap_vector": [float(value) for value in one.vector_E],
            "versions": {one.name: importlib.metadata.version(one.name) for one in dataclasses.fields(Versions)},
        }
        with atomic_write(out.with_suffix(".sound.json")) as beside:
            beside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def controls_of(subjects: Sequence[Subject], generator: AudioLDM) -> list[Wanted | None]:
    """The control sound of each subject; where all share a text, of the first one for all."""
    texts = list(dict.fromkeys(subject.control for subject in subjects if subject.control))
    vectors = dict(zip(texts, generator.encode_text(texts), strict=True)) if texts else {}
    controls: list[Wanted | None] = []
    for subject in subjects:
        if subject.control is None or (len(texts) == 1 and controls):
            controls.append(None)
            continue
        sharing = subjects if len(texts) == 1 else [subject]
        outs = tuple(control_file(one.out) for one in sharing)
        controls.append(Wanted(outs=outs, vector_E=vectors[subject.control], about={"control": subject.control}))
    return controls
