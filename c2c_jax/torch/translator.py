"""A trained translator as a torch module, for AudioLDM pipelines and any other torch program."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file


class Translator(torch.nn.Module):
    """Source vectors [B, S] → target vectors [B, E], float32, not normalised.

    The arguments are those under "translator" in a bundle's config.json. Equal to the Flax translator within 1e-5.
    """

    def __init__(
        self, *, kind: str, source_dim: int, target_dim: int, width: int, depth: int, clamp: float, input_norm: str
    ):
        super().__init__()
        if kind != "mlp":
            raise ValueError(f"this version knows the translator kind 'mlp', not {kind!r}")
        if input_norm not in ("none", "unit"):
            raise ValueError(f"this version knows the input norms 'none' and 'unit', not {input_norm!r}")
        widths = [source_dim, *[width] * (depth - 1), target_dim]
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(fan_in, fan_out) for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True)
        )
        self.clamp = clamp
        self.input_norm = input_norm

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Translator":
        """The translator of a bundle folder (`config.json` and `model.safetensors`), in evaluation mode."""
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        translator = cls(**config["translator"])
        translator.load_state_dict(load_file(Path(folder) / "model.safetensors"), strict=True)
        return translator.eval()

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        hidden = source
        if self.input_norm == "unit":
            hidden = torch.nn.functional.normalize(source, dim=-1) * math.sqrt(source.shape[-1])
        for layer in self.layers[:-1]:
            hidden = torch.tanh(layer(hidden))
        out = self.layers[-1](hidden)
        return out.clamp(-self.clamp, self.clamp) if self.clamp else out
