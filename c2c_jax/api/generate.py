"""Generates sounds from images: CLIP, the translator and AudioLDM, loaded once."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import msgspec
import numpy as np
from jaxtyping import Float

from c2c_jax.api.audio import Audio
from c2c_jax.api.messages import as_integer, flags_to_arguments
from c2c_jax.api.translator import Translator, as_translator
from c2c_jax.errors import CheckpointError, ConfigError, GenerationError
from c2c_jax.generation.pipeline import Blend, Generation, default_generator, load_generator
from c2c_jax.generation.sampling import Sampling, checkpoint_sampling
from c2c_jax.io.images import as_list, is_several
from c2c_jax.io.progress import Progress
from c2c_jax.io.text import require_text
from c2c_jax.io.vectors import as_vectors
from c2c_jax.spaces.space import Space
from c2c_jax.spaces.weights.folders import checkpoint_folder
from c2c_jax.translator.inference import PROBE

if TYPE_CHECKING:  # torch is imported only if sounds are generated
    from c2c_jax.generation.audioldm import AudioLDM
    from c2c_jax.generation.ranking import Ranker


class Pipeline:
    """Turns images into sounds. Create it with `c2c_jax.pipeline`.

    translator: the `Translator` in use.
    """

    def __init__(
        self,
        translator: Translator,
        *,
        clip: str | Path | Space | None,
        generator: str | None,
        clap: str | Path | Space | None,
        device: str | None,
        dtype: str,
        offload: bool,
        batch_size: int,
        progress: bool,
    ):
        self.translator, self._clip, self._clap, self._progress = translator, clip, clap, progress
        self._generator_name = generator or default_generator(translator.bundle)
        self._options: dict[str, Any] = {"device": device, "dtype": dtype, "offload": offload, "at_once": batch_size}

    def __repr__(self) -> str:
        clip = self._clip.name if isinstance(self._clip, Space) else self._clip or self.translator.source.name
        return f"Pipeline({clip} → {self.translator.name} → {self._generator_name or 'no generator'})"

    @flags_to_arguments
    def encode_images(self, images: Any, *, output_mean: str = "text") -> Float[np.ndarray, "B E"]:
        """Encodes images with CLIP and translates them to unit CLAP vectors [B, E]; see `Translator.encode_images`."""
        return self.translator.encode_images(images, clip=self._clip, output_mean=output_mean)

    @flags_to_arguments
    def encode_text(self, texts: str | Sequence[str]) -> Float[np.ndarray, "B E"]:
        """Encodes one text or several with the generator's CLAP text tower: unit vectors [B, E]."""
        texts = as_list(texts)
        for text in texts:
            require_text(text, "the text")
        return self.generator.encode_text(texts) if texts else np.zeros((0, self.translator.target.dim), np.float32)

    @overload
    def __call__(
        self, images: Sequence[Any], *, prompt: str | None = None, mix: float = 0.5, **settings: Any
    ) -> list[Audio]: ...

    @overload
    def __call__(self, images: Any, *, prompt: str | None = None, mix: float = 0.5, **settings: Any) -> Audio: ...

    @flags_to_arguments  # type: ignore[misc]
    def __call__(
        self,
        images: Any,
        *,
        prompt: str | None = None,
        mix: float = 0.5,
        output_mean: str = "text",
        seconds: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        negative_prompt: str | None = None,
        scheduler: str | None = None,
        seed: int = 0,
        candidates: int = 1,
    ) -> Audio | list[Audio]:
        """Generates a sound for an image: returns an `Audio`; for several images, a list of them.

        images: one image or several, see `Translator.encode_images`. prompt: a text to mix in. mix: weight of the
        prompt, from 0 to 1; the image gets the rest. output_mean: see `Translator.translate`. The other arguments are
        those of `generate`.
        """
        is_single, images = not is_several(images), as_list(images)
        vectors_BE = self.encode_images(images, output_mean=output_mean)
        if prompt is not None:
            blend = Blend(prompts=(prompt,), weights=(mix,))
            blend.check()
            vectors_BE = blend(vectors_BE, self.encode_text(prompt))
        sounds = self.generate(
            vectors_BE,
            seconds=seconds,
            steps=steps,
            guidance=guidance,
            negative_prompt=negative_prompt,
            scheduler=scheduler,
            seed=seed,
            candidates=candidates,
        )
        return sounds[0] if is_single else sounds

    @flags_to_arguments
    def generate(
        self,
        vectors: Any,
        *,
        seconds: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        negative_prompt: str | None = None,
        scheduler: str | None = None,
        seed: int = 0,
        candidates: int = 1,
    ) -> list[Audio]:
        """Generates a sound for each of B CLAP vectors [B, E], which need not be unit vectors. Settings that are None
        take the value that the generator's checkpoint recommends, or else the default of `Sampling`.

        seconds: duration of the sounds. steps: number of denoising steps. guidance: scale of classifier-free guidance;
        1 = no guidance. negative_prompt: a text that guidance steers away from. scheduler: "dpm++", "unipc" or "ddim".
        seed: seed of the initial noise; a sound depends on its vector and the seed, not on the other vectors.
        candidates: number of sounds sampled for each vector, of which the one with the best CLAP score is returned.
        Raises GenerationError for settings that the generator does not support.
        """
        generator = self.generator
        flags = {
            "seconds": seconds,
            "steps": steps,
            "guidance": guidance,
            "negative_prompt": negative_prompt,
            "scheduler": scheduler,
        }
        given = {name: value for name, value in flags.items() if value is not None}
        given |= {"seed": as_integer("seed", seed), "candidates": as_integer("candidates", candidates)}
        try:
            sampling = msgspec.convert(self._sampling | given, Sampling)
        except msgspec.ValidationError as error:
            raise GenerationError(f"a setting has a wrong type: {error}") from None
        generator.check(sampling)
        if candidates > 1 and self.ranker is None:
            raise ConfigError(f"{candidates} candidates need a CLAP with an audio tower to rank them: pass clap")
        vectors_BE = as_vectors(vectors, "vectors", self.translator.target.dim).astype(np.float32)
        negative_E = generator.encode_text([sampling.negative_prompt])[0] if sampling.guidance > 1 else None
        clips = [(row, seed) for row in range(len(vectors_BE)) for seed in sampling.seeds]
        sounds: list[list[Audio]] = [[] for _ in vectors_BE]
        size = self._options["at_once"]
        with Progress(quiet=not self._progress) as bar:
            task = bar.add_task("sampling", total=-(-len(clips) // size) * sampling.number_of_steps)
            for start in range(0, len(clips), size):
                part = clips[start : start + size]
                sampled = generator.generate(
                    np.stack([vectors_BE[row] for row, _ in part]),
                    sampling,
                    seeds=[seed for _, seed in part],
                    negative_E=negative_E,
                    on_step=lambda: bar.advance(task),
                )
                for (row, seed), samples in zip(part, sampled, strict=True):
                    sounds[row].append(self._audio(samples, vectors_BE[row], seed))
        return [max(candidates, key=lambda audio: audio.clap_score or 0.0) for candidates in sounds]

    def _audio(self, samples: Float[np.ndarray, "n"], vector_E: Float[np.ndarray, "E"], seed: int) -> Audio:
        rate = self.generator.sample_rate
        score = float(self.ranker.scores(samples[None], rate, vector_E)[0]) if self.ranker else None
        unit_E = vector_E / np.linalg.norm(vector_E)
        return Audio(samples=samples, sample_rate=rate, clap_vector=unit_E, clap_score=score, seed=seed)

    @functools.cached_property
    def generator(self) -> "AudioLDM":
        """The sound generator, loaded at first use. Raises ConfigError if there is none, CheckpointError if it cannot
        be loaded, BundleError if it has another CLAP than the translator's."""
        if self._generator_name is None:
            raise ConfigError(
                f"translators to {self.translator.target.name} have no default generator: pass generator= with an "
                "AudioLDM, such as cvssp/audioldm-s-full-v2"
            )
        generation = Generation(audioldm=self._generator_name, sampling=Sampling(**self._sampling), **self._options)
        return load_generator(generation, self.translator.bundle, has_prompts=False)[0]

    @functools.cached_property
    def ranker(self) -> "Ranker | None":
        """The CLAP that scores sounds, loaded at first use; None if `clap` was not passed and the translator's own CLAP
        has no audio tower or is not on this machine."""
        from c2c_jax.generation.ranking import Ranker

        try:
            if self._clap is None:
                checkpoint_folder(self.translator.target.name, download=False)
            ranker = Ranker(self._clap or self.translator.target.name)
        except CheckpointError:
            if self._clap is not None:
                raise
            return None
        ranker.require_same_space(self.generator.encode_text([PROBE])[0])
        return ranker

    @functools.cached_property
    def _sampling(self) -> dict[str, Any]:
        """The sampling settings that the generator's checkpoint recommends."""
        return checkpoint_sampling(checkpoint_folder(str(self._generator_name)))


@flags_to_arguments
def pipeline(
    translator: str | Path | Translator,
    *,
    clip: str | Path | Space | None = None,
    generator: str | Path | None = None,
    clap: str | Path | Space | None = None,
    device: str | None = None,
    dtype: str = "float32",
    offload: bool = False,
    batch_size: int = 4,
    progress: bool = True,
) -> Pipeline:
    """Creates a pipeline that turns images into sounds.

    translator: a `Translator`, or a name for `load`. clip: the CLIP, loaded or by name; None: the translator's
    own. generator: an AudioLDM, by hub name or folder in diffusers' layout; None: the bundled one for translators of
    the mini world; other translators can then only encode images. clap: a CLAP with an audio tower, for CLAP scores;
    None: the translator's own, if it has an audio tower. device: torch device of the generator; None: cuda if
    available. dtype: precision of the generator, "float32", "bfloat16" or "float16". offload: whether to keep networks
    in main memory while they are not in use. batch_size: number of sounds sampled together. progress: whether to show
    progress on stderr.

    CLIP is loaded immediately. The generator is loaded immediately if it is named, otherwise at first use. Raises
    BundleError or CheckpointError for a part that cannot be loaded or does not fit the others.
    """
    if as_integer("batch_size", batch_size) < 1:
        raise ConfigError(f"batch_size must be 1 or more, found {batch_size}")
    pipe = Pipeline(
        as_translator(translator),
        clip=clip,
        generator=None if generator is None else str(generator),
        clap=clap,
        device=device,
        dtype=dtype,
        offload=offload,
        batch_size=batch_size,
        progress=progress,
    )
    pipe.translator.load_clip(clip)
    if generator is not None:
        _ = pipe.generator
    return pipe
