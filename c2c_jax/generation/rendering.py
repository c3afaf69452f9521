"""Writes sound files for CLAP vectors, each with a mel-spectrogram and a record."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from c2c_jax.generation.audioldm import AudioLDM
from c2c_jax.generation.plan import Input, candidate_file, control_file, record_file, spectrogram_file
from c2c_jax.generation.ranking import Ranker
from c2c_jax.generation.records import Content, RecordedAudio, Versions, write_record
from c2c_jax.generation.sampling import Sampling
from c2c_jax.io.audio_output import defects, draw_mel_spectrogram, write_audio
from c2c_jax.io.files import path_to_text, sha256_of

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderJob:
    """A sound to render. outs: its output file, or several for copies; further candidates get the names of
    `plan.candidate_file`. record: the record fields that describe the origin of the vector.
    """

    outs: tuple[Path, ...]
    vector_E: Float[np.ndarray, "E"]
    record: dict[str, Any]


def render_jobs(
    inputs: Sequence[Input],
    vectors_BE: Float[np.ndarray, "B E"],
    records: Sequence[dict[str, Any]],
    generator: AudioLDM,
) -> list[RenderJob]:
    """Returns a job for each input, each followed by a job for its control text, if any. A text that all inputs share
    gets one job, after the first input.

    records: the record fields of each input.
    """
    texts = list(dict.fromkeys(item.control for item in inputs if item.control))
    vectors = dict(zip(texts, generator.encode_text(texts), strict=True)) if texts else {}
    jobs: list[RenderJob] = []
    for item, vector_E, record in zip(inputs, vectors_BE, records, strict=True):
        jobs.append(RenderJob(outs=(item.out,), vector_E=vector_E, record=record))
        if item.control and (len(texts) > 1 or item is inputs[0]):
            outs = tuple(control_file(other.out) for other in (inputs if len(texts) == 1 else [item]))
            jobs.append(RenderJob(outs=outs, vector_E=vectors[item.control], record={"control": item.control}))
    return jobs


def steps_of(jobs: Sequence[RenderJob], sampling: Sampling, at_once: int) -> int:
    """Returns about how often `Renderer` calls `on_step`; a scheduler may take one step more or less."""
    return -(-len(jobs) * sampling.candidates // at_once) * sampling.number_of_steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Renderer:
    """Samples sounds and writes them.

    ranker: orders candidates; None: keep the order of their seeds. at_once: batch size of sampling. shared_record:
    fields of all records. on_step: called after each step of the scheduler.
    """

    generator: AudioLDM
    sampling: Sampling
    ranker: Ranker | None
    at_once: int
    shared_record: dict[str, Any]
    on_step: Callable[[], None]

    def render(self, jobs: Sequence[RenderJob]) -> Iterator[Path]:
        """Samples the jobs, writes each sound as soon as it is ready, and yields its file.

        A mel-spectrogram (`.mel.png`) and a record of what is needed to reproduce the sound (`.sound.json`) are written
        next to it. Silent and clipped sounds are logged. Raises GenerationError; sounds written before are kept.
        """
        generator, sampling = self.generator, self.sampling
        clips = [(number, seed) for number in range(len(jobs)) for seed in sampling.seeds]
        negative_E = generator.encode_text([sampling.negative_prompt])[0] if sampling.guidance > 1 else None
        audio: dict[int, list[np.ndarray]] = {}
        for start in range(0, len(clips), self.at_once):
            part = clips[start : start + self.at_once]
            sampled = generator.generate(
                np.stack([jobs[number].vector_E for number, _ in part]),
                sampling,
                seeds=[seed for _, seed in part],
                negative_E=negative_E,
                on_step=self.on_step,
            )
            for (number, _), samples in zip(part, sampled, strict=True):
                audio.setdefault(number, []).append(samples)
            for number in [number for number, candidates in audio.items() if len(candidates) == sampling.candidates]:
                yield from self._write(jobs[number], np.stack(audio.pop(number)))

    def _write(self, job: RenderJob, audio_CS: Float[np.ndarray, "C samples"]) -> Iterator[Path]:
        rate = self.generator.sample_rate
        scores = self.ranker.scores(audio_CS, rate, job.vector_E) if self.ranker else None
        order = np.arange(len(audio_CS)) if scores is None else np.argsort(-scores, kind="stable")
        for out in job.outs:
            record_file(out).unlink(missing_ok=True)  # it describes earlier sounds
            written = []
            for rank, candidate in enumerate(order):
                path, samples = candidate_file(out, rank), audio_CS[candidate]
                sound_defects = defects(samples)
                for defect in sound_defects:
                    logger.warning("%s is %s", path, defect)
                write_audio(path, samples, rate)
                draw_mel_spectrogram(spectrogram_file(path), samples, rate, path.name)
                written.append(
                    RecordedAudio(
                        file=path_to_text(Path(path.name)),
                        sha256=sha256_of(path),
                        seed=self.sampling.seeds[candidate],
                        clap_score=None if scores is None else float(scores[candidate]),
                        peak=float(np.abs(samples).max()),
                        rms=float(np.sqrt(np.mean(samples.astype(np.float64) ** 2))),
                        defects=sound_defects,
                    )
                )
                yield path
            content = Content(
                sounds=written,
                **job.record,
                **self.shared_record,
                sampling=dataclasses.replace(self.sampling, steps=self.sampling.number_of_steps),
                sample_rate=rate,
                clap_vector=job.vector_E.tolist(),
                versions=Versions(**{item.name: version(item.name) for item in dataclasses.fields(Versions)}),
            )
            write_record(record_file(out), content)
