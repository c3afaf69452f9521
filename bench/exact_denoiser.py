"""An exact denoiser, which measures the error of a scheduler by its number of steps.

The data are mixtures of Gaussians in several classes, for which the expected noise at any noise level has a formula
(Bayes' rule over the components). Noise levels are those of the published AudioLDM.
"""

import dataclasses
from typing import Any

import torch

NOISE_LEVELS = dict(
    beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
    steps_offset=1, prediction_type="epsilon", num_train_timesteps=1000,
)  # fmt: skip
DIM, COMPONENTS, CLASSES, VARIANCE = 8, 32, 4, 0.05
SAMPLES = 512
FINEST = 999  # maximum number of DDIM steps: the reference


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Means of the components and initial noise of the samples. Component k has class k modulo CLASSES; sample n is
    guided to class n modulo CLASSES."""

    means_KD: torch.Tensor
    noise_ND: torch.Tensor

    @classmethod
    def drawn(cls, seed: int) -> "Mixture":
        generator = torch.Generator().manual_seed(seed)
        draw = lambda rows: torch.randn(rows, DIM, generator=generator, dtype=torch.float64)  # noqa: E731
        return cls(draw(COMPONENTS), draw(SAMPLES))

    def noise(self, x_ND: torch.Tensor, alpha: torch.Tensor, is_used_NK: torch.Tensor) -> torch.Tensor:
        """The expected noise in x = √alpha · data + √(1 − alpha) · noise, for data of the components in use."""
        variance = alpha * VARIANCE + 1 - alpha
        distances_NK = ((x_ND[:, None] - alpha.sqrt() * self.means_KD[None]) ** 2).sum(-1)
        weights_NK = torch.softmax((-distances_NK / (2 * variance)).masked_fill(~is_used_NK, -torch.inf), 1)
        means_ND = weights_NK @ self.means_KD
        data_ND = means_ND + alpha.sqrt() * VARIANCE / variance * (x_ND - alpha.sqrt() * means_ND)
        return (x_ND - alpha.sqrt() * data_ND) / (1 - alpha).sqrt()

    def sample(self, scheduler: Any, steps: int, guidance: float) -> torch.Tensor:
        """Denoises the initial noise to samples [SAMPLES, DIM]."""
        classes_K = torch.arange(len(self.means_KD)) % CLASSES
        is_own_class_NK = classes_K[None] == (torch.arange(len(self.noise_ND)) % CLASSES)[:, None]
        scheduler.set_timesteps(steps)
        log_ratios = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).double().log()
        x_ND = self.noise_ND * scheduler.init_noise_sigma
        for time in scheduler.timesteps:
            # Some schedulers use fractional times, between which the ratio of noise to signal is geometric.
            before = int(time)
            after, part = min(before + 1, len(log_ratios) - 1), float(time) - before
            alpha = 1 / (1 + ((1 - part) * log_ratios[before] + part * log_ratios[after]).exp())
            noisy_ND = scheduler.scale_model_input(x_ND, time)
            unconditional = self.noise(noisy_ND, alpha, torch.ones_like(is_own_class_NK))
            conditional = self.noise(noisy_ND, alpha, is_own_class_NK)
            x_ND = scheduler.step(unconditional + guidance * (conditional - unconditional), time, x_ND).prev_sample
        return x_ND


def error(mixture: Mixture, reference_ND: torch.Tensor, scheduler: Any, steps: int, guidance: float) -> float:
    """Root mean square difference to the reference, relative to the reference's standard deviation."""
    sample_ND = mixture.sample(scheduler, steps, guidance)
    return float((sample_ND - reference_ND).square().mean().sqrt() / reference_ND.std())
