"""The exact denoiser is exact, and more steps reduce a scheduler's error."""

import pytest
import torch

from bench import exact_denoiser
from bench.exact_denoiser import NOISE_LEVELS, Mixture, error
from c2c_jax.generation.audioldm import build_scheduler


def test_noise_equals_bayes_rule():
    """Against the expectation over many draws of data and noise that lie near one point."""
    means = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    mixture = Mixture(means, torch.zeros(2, 1, dtype=torch.float64))
    alpha, x = torch.tensor(0.6, dtype=torch.float64), torch.tensor([[0.4]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    draws = 4_000_000
    component = torch.randint(0, 2, (draws,), generator=generator)
    data = means[component, 0] + exact_denoiser.VARIANCE**0.5 * torch.randn(draws, generator=generator).double()
    noise = torch.randn(draws, generator=generator).double()
    near = (alpha.sqrt() * data + (1 - alpha).sqrt() * noise - x[0, 0]).abs() < 0.01
    expected_noise = mixture.noise(x, alpha, torch.ones(1, 2, dtype=torch.bool))
    assert float(expected_noise[0, 0]) == pytest.approx(float(noise[near].mean()), abs=0.02)
    of_first = mixture.noise(x, alpha, torch.tensor([[True, False]]))
    assert float(of_first[0, 0]) == pytest.approx(float(noise[near & (component == 0)].mean()), abs=0.02)


@pytest.mark.parametrize("name", ["dpm++", "unipc", "ddim"])
def test_more_steps_reduce_the_error(name):
    mixture = Mixture.drawn(0)
    reference = mixture.sample(build_scheduler("ddim", NOISE_LEVELS), exact_denoiser.FINEST, 2.5)
    few, many = (error(mixture, reference, build_scheduler(name, NOISE_LEVELS), steps, 2.5) for steps in (10, 100))
    assert many < few / 2
