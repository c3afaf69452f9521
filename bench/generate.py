"""Measures seconds per sound against diffusers' pipeline, and how many steps the fast schedulers need.

examples:
  python -m bench.generate
  python -m bench.generate --quick --json generate.json

Networks have the sizes of cvssp/audioldm-s-full-v2 and random weights; both implementations use the same ones, take
turns, and sample the same vector from the same noise, with guidance. The difference of their sounds is printed. Then
our fast default is timed against the paper's 200 steps of DDIM. The number of sufficient steps does not depend on a
checkpoint: it is measured on mixtures of Gaussians with an exact denoiser (`bench/exact_denoiser.py`), at AudioLDM's
noise levels and the same guidance, as the smallest number whose samples are as near to those of 999 steps of DDIM as
those of 200 steps are. Peak memory is the program's resident set.
"""

import functools
import logging
import statistics
from collections.abc import Sequence
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

from bench.checkpoints import generator_networks
from bench.exact_denoiser import FINEST, NOISE_LEVELS, Mixture, error
from bench.measure import bench_parser, medians, peak_gib, report, timed
from c2c_jax.generation.audioldm import AudioLDM, build_scheduler
from c2c_jax.generation.sampling import STEPS, Sampling

DIM = 512
COUNTED = (10, 15, 20, 25, 30, 35, 40, 50, 100, 200)  # steps
MIXTURES = 4


def published_parts() -> dict[str, Any]:
    """UNet, VAE and vocoder with the sizes of cvssp/audioldm-s-full-v2 and torch's own initialisation."""
    torch.manual_seed(0)
    networks = generator_networks(
        DIM,
        unet=dict(block_out_channels=(128, 256, 384, 640), layers_per_block=2),
        vae=dict(block_out_channels=(128, 256, 512), layers_per_block=2),
        vocoder=dict(
            upsample_initial_channel=1024, upsample_rates=[5, 4, 2, 2, 2], upsample_kernel_sizes=[16, 16, 8, 4, 4],
            resblock_kernel_sizes=[3, 7, 11], resblock_dilation_sizes=[[1, 3, 5]] * 3,
        ),
    )  # fmt: skip
    return dict(zip(("unet", "vae", "vocoder"), (network.eval() for network in networks), strict=True))


def contestants(parts: dict[str, Any], seconds: float, steps: int, clap: tuple[np.ndarray, np.ndarray]) -> dict:
    """Functions that generate a sound [1, samples] from a vector, guided away from another: ours and diffusers'."""
    ours = AudioLDM(**parts, noise_levels=NOISE_LEVELS)
    logging.getLogger("diffusers.pipelines.pipeline_utils").setLevel(
        logging.ERROR
    )  # a notice that it is not maintained
    tiny_text = transformers.ClapTextModelWithProjection(
        transformers.ClapTextConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    pipeline = diffusers.AudioLDMPipeline(
        **parts, text_encoder=tiny_text, tokenizer=None, scheduler=build_scheduler("ddim", NOISE_LEVELS)
    )
    pipeline.set_progress_bar_config(disable=True)
    prompt, negative = (torch.nn.functional.normalize(torch.from_numpy(vector)[None]) for vector in clap)
    sampling = Sampling(scheduler="ddim", steps=steps, seconds=seconds)

    def theirs() -> np.ndarray:
        return pipeline(
            prompt_embeds=prompt,
            negative_prompt_embeds=negative,
            audio_length_in_s=seconds,
            num_inference_steps=steps,
            guidance_scale=sampling.guidance,
            generator=[torch.Generator().manual_seed(0)],
        ).audios

    return {
        "ours": lambda: ours.generate(clap[0][None], sampling, seeds=[0], negative_E=clap[1]),
        "diffusers": theirs,
    }


def enough_steps(guidance: float, counted: Sequence[int], mixtures: int) -> dict[str, dict[int, float]]:
    """Scheduler → steps → mean error over mixtures. See the module's docstring."""
    drawn = [Mixture.drawn(seed) for seed in range(mixtures)]
    references = [m.sample(build_scheduler("ddim", NOISE_LEVELS), FINEST, guidance) for m in drawn]
    return {
        name: {
            steps: statistics.mean(
                error(mixture, reference, build_scheduler(name, NOISE_LEVELS), steps, guidance)
                for mixture, reference in zip(drawn, references, strict=True)
            )
            for steps in counted
        }
        for name in STEPS
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = bench_parser("bench.generate", __doc__)
    parser.add_argument("--seconds", type=float, default=5.12, help="duration of the sounds (default: 5.12)")
    parser.add_argument("--steps", type=int, default=5, help="for the comparison with diffusers (default: 5)")
    parser.add_argument("--quick", action="store_true", help="2.56 seconds of sound, 2 rounds, a tenth of all steps")
    flags = parser.parse_args(arguments)
    seconds, rounds = (2.56, 2) if flags.quick else (flags.seconds, 5)

    rng = np.random.default_rng(0)
    clap = rng.normal(size=DIM).astype(np.float32), rng.normal(size=DIM).astype(np.float32)
    parts = published_parts()
    runs = contestants(parts, seconds, flags.steps, clap)
    audio = {who: run() for who, run in runs.items()}  # also warms them up
    difference = float(np.abs(audio["ours"] - audio["diffusers"]).max() / np.abs(audio["diffusers"]).max())
    spent = medians(runs, rounds)
    figures = {
        "seconds_vs_diffusers": spent["ours"] / spent["diffusers"],
        "difference_from_diffusers": difference,
        "peak_gib": peak_gib(),
        **{f"{who}_seconds": value for who, value in spent.items()},
    }

    ours = AudioLDM(**parts, noise_levels=NOISE_LEVELS)
    for name in ("ddim", "dpm++", "unipc"):
        steps = max(STEPS[name] // (10 if flags.quick else 1), 1)
        sampling = Sampling(scheduler=name, steps=steps, seconds=seconds)
        work = functools.partial(ours.generate, clap[0][None], sampling, seeds=[0], negative_E=clap[1])
        figures[f"{name}_seconds"] = timed(work)
    figures["fast_vs_ddim200"] = figures["dpm++_seconds"] / figures["ddim_seconds"]

    errors = enough_steps(Sampling().guidance, COUNTED, 1 if flags.quick else MIXTURES)
    reference_error = errors["ddim"][STEPS["ddim"]]
    for name, by_steps in errors.items():
        figures |= {f"{name}_error_{steps}": value for steps, value in by_steps.items()}
        figures[f"{name}_enough_steps"] = next(
            (steps for steps, value in by_steps.items() if value <= reference_error), 0
        )
    report(f"{seconds} s of sound, {flags.steps} steps of DDIM against diffusers", figures, flags.json)


if __name__ == "__main__":
    main()
