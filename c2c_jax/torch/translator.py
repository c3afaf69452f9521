"""A trained translator as a torch module, for AudioLDM pipelines and any other torch program."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional

KINDS = ("linear", "linear2", "mlp", "mlp_layernorm", "mlp5", "transformer", "residual", "procrustes", "ridge")


class EncoderLayer(torch.nn.Module):
    """A post-norm transformer layer with ReLU."""

    def __init__(self, width: int, heads: int, mlp_width: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (torch.nn.Linear(width, width) for _ in "qkvo")
        self.linear1, self.linear2 = torch.nn.Linear(width, mlp_width), torch.nn.Linear(mlp_width, width)
        self.norm1, self.norm2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        hidden = self.norm1(hidden + self.out_proj(attended))
        return self.norm2(hidden + self.linear2(functional.relu(self.linear1(hidden))))


class Translator(torch.nn.Module):
    """Source vectors [B, S] → target vectors [B, E], float32, not normalised.

    The arguments are those under "translator" in a bundle's config.json. Equal to the Flax translator within 1e-5.
    """

    def __init__(
        self,
        *,
        kind: str,
        source_dim: int,
        target_dim: int,
        width: int,
        depth: int,
        heads: int,
        mlp_width: int,
        dropout: float,
        clamp: float,
        input_norm: str,
    ):
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"this version knows the translator kinds {', '.join(KINDS)}, not {kind!r}")
        if input_norm not in ("none", "unit"):
            raise ValueError(f"this version knows the input norms 'none' and 'unit', not {input_norm!r}")
        self.kind, self.clamp, self.input_norm = kind, clamp, input_norm
        if kind in ("residual", "procrustes", "ridge"):
            self.linear = torch.nn.Linear(source_dim, target_dim)
        if kind == "transformer":
            self.resized = torch.nn.ModuleList(
                [torch.nn.Linear(source_dim, target_dim)] if source_dim != target_dim else []
            )
            self.into, self.out = torch.nn.Linear(1, width), torch.nn.Linear(width, 1)
            self.positions = torch.nn.Embedding(target_dim, width)
            self.layers = torch.nn.ModuleList(EncoderLayer(width, heads, mlp_width) for _ in range(depth))
        elif kind not in ("procrustes", "ridge"):
            widths = [source_dim, *[width] * (depth - 1), target_dim]
            self.layers = torch.nn.ModuleList(
                torch.nn.Linear(fan_in, fan_out) for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True)
            )
            normed = widths[1:] if kind == "mlp_layernorm" else []
            self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(features) for features in normed)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Translator":
        """The translator of a bundle folder (`config.json` and `model.safetensors`), in evaluation mode."""
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        translator = cls(**config["translator"])
        translator.load_state_dict(load_file(Path(folder) / "model.safetensors"), strict=True)
        return translator.eval()

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        if self.input_norm == "unit":
            source = functional.normalize(source, dim=-1) * math.sqrt(source.shape[-1])
        if self.kind == "transformer":
            out = self._transformed(source)
        elif self.kind in ("procrustes", "ridge"):
            out = self.linear(source)
        elif self.kind == "residual":
            out = self.linear(source) + self._through_layers(source, functional.gelu)
        else:
            out = self._through_layers(source, torch.tanh)
        return out.clamp(-self.clamp, self.clamp) if self.clamp else out

    def _through_layers(self, hidden: torch.Tensor, activation) -> torch.Tensor:
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden)
            if number < len(self.layers) - 1 or self.kind in ("mlp5", "mlp_layernorm"):
                hidden = activation(hidden)
            if self.kind == "mlp_layernorm":
                hidden = self.norms[number](hidden)
        return hidden

    def _transformed(self, source: torch.Tensor) -> torch.Tensor:
        for resize in self.resized:
            source = resize(source)
        hidden = self.into(source[:, :, None]) + self.positions.weight
        for layer in self.layers:
            hidden = layer(hidden)
        return self.out(hidden)[:, :, 0]
