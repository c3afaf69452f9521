"""Turns CLAP vectors into sound files, each with a mel-spectrogram and a record beside it."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from c2c_jax.generation.audioldm import AudioLDM
from c2c_jax.generation.plan import Input, control_file, numbered, record_file, spectrogram_file
from c2c_jax.generation.ranking import Ranker
from c2c_jax.generation.records import Content, RecordedAudio, Versions, write_record
from c2c_jax.generation.sampling import Sampling
from c2c_jax.io.audio_output import defects, draw_mel_spectrogram, write_audio
from c2c_jax.io.files import path_to_text, sha256_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderJob:
    """One sound to be rendered. outs: its file, or several that get the same sound; for candidates beyond the best see
    `plan.numbered`. about: the fields of its record that say where the vector comes from."""

    outs: tuple[Path, ...]
    vector_E: Float[np.ndarray, "E"]
    about: dict[str, Any]


def render_jobs(
    inputs: Sequence[Input],
    vectors_BE: Float[np.ndarray, "B E"],
    abouts: Sequence[dict[str, Any]],
    generator: AudioLDM,
) -> list[RenderJob]:
    """The sound of each input, and behind it the sound of its control text. A text that all inputs share is rendered
    once, behind the first of them."""
    texts = list(dict.fromkeys(one.control for one in inputs if one.control))
    vectors = dict(zip(texts, generator.encode_text(texts), strict=True)) if texts else {}
    jobs: list[RenderJob] = []
    for one, vector_E, about in zip(inputs, vectors_BE, abouts, strict=True):
        jobs.append(RenderJob(outs=(one.out,), vector_E=vector_E, about=about))
        if one.control and (len(texts) > 1 or one is inputs[0]):
            outs = tuple(control_file(other.out) for other in (inputs if len(texts) == 1 else [one]))
            jobs.append(RenderJob(outs=outs, vector_E=vectors[one.control], about={"control": one.control}))
    return jobs


def steps_of(jobs: Sequence[RenderJob], sampling: Sampling, at_once: int) -> int:
    """About how often `Renderer` calls `on_step`: a scheduler may take a step more or less."""
    return -(-len(jobs) * sampling.candidates // at_once) * sampling.number_of_steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Renderer:
    """Samples sounds and writes them.

    ranker: orders candidates; None: they stay in the order of their seeds. at_once: clips sampled together. about:
    fields of all records. on_note: called with a line about each silent or clipped sound. on_step: called after each
    step of the scheduler.
    """

    generator: AudioLDM
    sampling: Sampling
    ranker: Ranker | None
    at_once: int
    about: dict[str, Any]
    on_note: Callable[[str], None]
    on_step: Callable[[], None]

    def render(self, jobs: Sequence[RenderJob]) -> Iterator[Path]:
        """Writes each sound as soon as it is sampled, with a mel-spectrogram (`.mel.png`) and a record (`.sound.json`)
        of all that is needed to repeat it; yields the sound files. Raises GenerationError; files that were written
        before stay."""
        generator, sampling = self.generator, self.sampling
        clips = [(number, seed) for number in range(len(jobs)) for seed in sampling.seeds]
        negative_E = generator.encode_text([sampling.negative_prompt])[0] if sampling.guidance > 1 else None
        sounds: dict[int, list[np.ndarray]] = {}
        for start in range(0, len(clips), self.at_once):
            part = clips[start : start + self.at_once]
            sampled = generator.generate(
                np.stack([jobs[number].vector_E for number, _ in part]),
                sampling,
                seeds=[seed for _, seed in part],
                negative_E=negative_E,
                on_step=self.on_step,
            )
            for (number, _), sound in zip(part, sampled, strict=True):
                sounds.setdefault(number, []).append(sound)
            for number in [number for number, candidates in sounds.items() if len(candidates) == sampling.candidates]:
                yield from self._write(jobs[number], np.stack(sounds.pop(number)))

    def _write(self, job: RenderJob, sounds_CS: Float[np.ndarray, "C samples"]) -> Iterator[Path]:
        rate = self.generator.sample_rate
        scores = self.ranker.scores(sounds_CS, rate, job.vector_E) if self.ranker else None
        order = np.arange(len(sounds_CS)) if scores is None else np.argsort(-scores, kind="stable")
        for out in job.outs:
            record_file(out).unlink(missing_ok=True)  # it is not of the sounds that are written now
            written = []
            for place, candidate in enumerate(order):
                path, sound = numbered(out, place), sounds_CS[candidate]
                found = defects(sound)
                for defect in found:
                    self.on_note(f"{path} is {defect}")
                write_audio(path, sound, rate)
                draw_mel_spectrogram(spectrogram_file(path), sound, rate, path.name)
                written.append(
                    RecordedAudio(
                        file=path_to_text(Path(path.name)),
                        sha256=sha256_of(path),
                        seed=self.sampling.seeds[candidate],
                        clap_score=None if scores is None else float(scores[candidate]),
                        peak=float(np.abs(sound).max()),
                        rms=float(np.sqrt(np.mean(sound.astype(np.float64) ** 2))),
                        defects=found,
                    )
                )
                yield path
            content = Content(
                sounds=written,
                **job.about,
                **self.about,
                sampling=dataclasses.replace(self.sampling, steps=self.sampling.number_of_steps),
                sample_rate=rate,
                clap_vector=job.vector_E.tolist(),
                versions=Versions(**{one.name: version(one.name) for one in dataclasses.fields(Versions)}),
            )
            write_record(record_file(out), content)
