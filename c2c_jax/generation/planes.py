"""Convolutions along time as convolutions of planes one row high, for CPUs.

oneDNN has its good kernels for 2-D convolutions whose channels lie side by side in memory. Those of a HiFi-GAN's fine
layers gain most by them; its coarse layers, which take most of the time, are as fast either way, so that a vocoder of
AudioLDM's size gains 3 % (`python -m bench.generate`).
"""

from typing import Any

import torch
from torch import nn


class Plane(nn.Module):
    """A Conv1d or ConvTranspose1d over [B, C, T] by a 2-D convolution over [B, C, 1, T] with the same weights.

    What comes out has its channels side by side, and stays so through what works entry by entry: of a row of such
    convolutions the first alone rearranges its input.
    """

    def __init__(self, conv: nn.Conv1d | nn.ConvTranspose1d):
        super().__init__()
        is_transposed = isinstance(conv, nn.ConvTranspose1d)
        kind: Any = nn.ConvTranspose2d if is_transposed else nn.Conv2d
        more = {"output_padding": (0, *conv.output_padding)} if is_transposed else {}
        plane = kind(
            conv.in_channels,
            conv.out_channels,
            (1, *conv.kernel_size),
            stride=(1, *conv.stride),
            padding=(0, *conv.padding),
            dilation=(1, *conv.dilation),
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",
            **more,
        )
        plane.weight = nn.Parameter(conv.weight.data.unsqueeze(2))
        plane.bias = conv.bias
        self.plane = plane.to(memory_format=torch.channels_last)

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        return self.plane(x_BCT.unsqueeze(2)).squeeze(2)


def on_planes(model: nn.Module) -> nn.Module:
    """The model itself, its convolutions along time replaced."""
    for name, child in model.named_children():
        if isinstance(child, nn.Conv1d | nn.ConvTranspose1d):
            setattr(model, name, Plane(child))
        else:
            on_planes(child)
    return model
