"""1-D convolutions as planes, against torch's own."""

import copy

import pytest
import torch
import transformers
from torch import nn

from bench.checkpoints import randomise
from c2c_jax.generation.planes import Plane, on_planes


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(6, 4, 5, padding=2),
        nn.Conv1d(6, 4, 3, dilation=3, padding=3, bias=False),
        nn.Conv1d(6, 4, 4, stride=2, groups=2),
        nn.ConvTranspose1d(6, 4, 8, stride=4, padding=2),
        nn.ConvTranspose1d(6, 4, 5, stride=3, padding=1, output_padding=1),
    ],
    ids=lambda conv: str(conv)[:60],
)
@torch.inference_mode()
def test_a_plane_is_the_convolution(conv):
    x = torch.randn(2, 6, 40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Plane(conv)(x), conv(x), atol=1e-6, rtol=0)


@torch.inference_mode()
def test_a_vocoder_on_planes_makes_the_same_sound():
    config = transformers.SpeechT5HifiGanConfig(
        model_in_dim=64, upsample_initial_channel=32, upsample_rates=[5, 4, 4, 2], upsample_kernel_sizes=[10, 8, 8, 4],
        resblock_kernel_sizes=[3, 7], resblock_dilation_sizes=[[1, 3], [1, 3]], normalize_before=True,
    )  # fmt: skip
    vocoder = transformers.SpeechT5HifiGan(config).eval()
    randomise(vocoder, (), torch.Generator().manual_seed(0))
    vocoder.scale.abs_().add_(0.5)
    mels = torch.randn(2, 12, 64, generator=torch.Generator().manual_seed(1))
    flat = on_planes(copy.deepcopy(vocoder))
    assert not any(isinstance(module, nn.Conv1d | nn.ConvTranspose1d) for module in flat.modules())
    expected = vocoder(mels)
    torch.testing.assert_close(flat(mels), expected, atol=1e-5, rtol=0)
    assert expected.std() > 1e-3
