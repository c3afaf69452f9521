"""A trained translator as a torch module, for AudioLDM pipelines and other torch programs. It works without JAX."""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch.nn import functional

from c2c_jax.errors import BundleError, one_line
from c2c_jax.io.files import describe_placeholder, open_regular
from c2c_jax.io.json import read_json
from c2c_jax.io.resolve import BUNDLE_FILES, bundle_folder

CLOSED_FORM = ("procrustes", "ridge")
KINDS = ("linear", "linear2", "mlp", "mlp_layernorm", "mlp5", "transformer", "residual", *CLOSED_FORM)
INPUT_NORMS = ("none", "unit", "centred")
FORMAT = 2  # of a bundle's config.json
MAX_DEPTH, MAX_WIDTH = 128, 2**16  # of a translator
CAPTIONS_AT_ONCE = 16_384  # captions whose cosines to a batch of images are computed together


class EncoderLayer(torch.nn.Module):
    """A post-norm transformer layer with ReLU."""

    def __init__(self, width: int, heads: int, mlp_width: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (torch.nn.Linear(width, width) for _ in "qkvo")
        self.linear1, self.linear2 = torch.nn.Linear(width, mlp_width), torch.nn.Linear(mlp_width, width)
        self.norm1, self.norm2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Transforms hidden states [B, L, width]; every token attends to all L tokens."""
        query, key, value = (
            layer(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        hidden = self.norm1(hidden + self.out_proj(attended))
        return self.norm2(hidden + self.linear2(functional.relu(self.linear1(hidden))))


class ModalityMeans(torch.nn.Module):
    """Means of captions, images and sounds in the source space [S] and the target space [E], as buffers; None: unknown.

    They are means of unit vectors, except that with input_norm "none" the source means are of raw vectors.
    """

    NAMES = ("source_text", "source_image", "target_text", "target_audio")
    source_text: torch.Tensor | None
    source_image: torch.Tensor | None
    target_text: torch.Tensor | None
    target_audio: torch.Tensor | None

    def __init__(self, source_dim: int, target_dim: int, **means: torch.Tensor):
        super().__init__()
        if unknown := means.keys() - set(self.NAMES):
            raise ValueError(f"unknown means {', '.join(sorted(unknown))}; known are {', '.join(self.NAMES)}")
        for text, other in (self.NAMES[:2], self.NAMES[2:]):
            if other in means and text not in means:
                raise ValueError(f"the mean {other} needs the mean {text}, which is missing")
        for name in self.NAMES:
            mean, width = means.get(name), source_dim if name.startswith("source") else target_dim
            if mean is not None and mean.shape != (width,):
                raise ValueError(f"mean {name} has shape {tuple(mean.shape)}; expected ({width},)")
            self.register_buffer(name, mean)

    @property
    def corrects(self) -> bool:
        """Whether the mean of images or of sounds is known."""
        return self.source_image is not None or self.target_audio is not None

    def mean(self, name: str) -> torch.Tensor:
        """Returns a mean by name. Raises ValueError if it is unknown."""
        if name not in self.NAMES or (mean := getattr(self, name)) is None:
            raise ValueError(f"the translator has no mean {name!r:.40}")
        return mean


def centred(vectors: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Centres vectors of any length: unit length, minus the mean of their modality, unit length again."""
    return functional.normalize(functional.normalize(vectors, dim=-1) - mean, dim=-1)


def uncentred(directions: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """The inverse of `centred`: the unit vectors whose centred vectors have these directions."""
    directions = functional.normalize(directions, dim=-1)
    along = (directions * mean).sum(dim=-1, keepdim=True)
    return mean + directions * ((along**2 + 1 - (mean**2).sum()).sqrt() - along)


class MemoryLayer(torch.nn.Module):
    """The caption memory: moves images' vectors [B, S] towards their nearest captions and keeps their lengths.

    source: float16 unit vectors M [M, S] of captions, centred if the translator's inputs are. With v the direction of
    an image and w = softmax(M v / temperature), it becomes weight · unit(w M) + (1 − weight) · v.
    """

    source: torch.Tensor

    def __init__(self, source_dim: int, source: torch.Tensor, *, weight: float, temperature: float):
        super().__init__()
        if source.dtype != torch.float16 or source.dim() != 2 or not len(source) or source.shape[1] != source_dim:
            found = f"{source.dtype} of shape {tuple(source.shape)}"
            raise ValueError(f"caption memory is {found}; expected torch.float16 of shape (M, {source_dim})")
        for name, number, low, high in (("weight", weight, 0, 1), ("temperature", temperature, 1e-6, 1e9)):
            if type(number) not in (int, float) or not low <= number <= high:
                raise ValueError(f"caption memory's {name} is {number!r:.40}; expected {low:g} to {high:g}")
        self.register_buffer("source", source)
        self.weight, self.temperature = weight, temperature

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        """Returns image vectors [B, S] moved towards their nearest captions, with their lengths unchanged."""
        if not self.weight:
            return source
        directions = functional.normalize(source, dim=-1)
        largest = torch.full_like(directions[:, :1], -math.inf)
        total, weighted = torch.zeros_like(largest), torch.zeros_like(directions)
        for start in range(0, len(self.source), CAPTIONS_AT_ONCE):
            captions = self.source[start : start + CAPTIONS_AT_ONCE].to(source.dtype)
            logits = directions @ captions.T / self.temperature
            now = torch.maximum(largest, logits.amax(dim=-1, keepdim=True))
            largest, shrunk, weights = now, torch.exp(largest - now), torch.exp(logits - now)
            total = total * shrunk + weights.sum(dim=-1, keepdim=True)
            weighted = weighted * shrunk + weights @ captions
        nearest = functional.normalize(weighted / total, dim=-1)
        moved = self.weight * nearest + (1 - self.weight) * directions
        return source.norm(dim=-1, keepdim=True) * functional.normalize(moved, dim=-1)


class Translator(torch.nn.Module):
    """Maps source vectors [B, S] to target vectors [B, E], which are unit vectors with input_norm "centred".

    Calling it translates captions' vectors; `from_image` translates images' vectors. Both expect the module's dtype,
    float32 unless changed by `.to(dtype)`, and raise TypeError or ValueError otherwise. The arguments are those under
    "translator" in a bundle's config.json; init and penalty only matter in training. Outputs equal the Flax
    translator's within 1e-5.
    """

    memory: MemoryLayer | None

    def __init__(
        self,
        *,
        kind: str,
        source_dim: int,
        target_dim: int,
        clamp: float,
        input_norm: str,
        width: int = 1,
        depth: int = 1,
        heads: int = 1,
        mlp_width: int = 1,
        dropout: float = 0.0,
        linear_first: bool = False,
        init: str = "",
        penalty: float = 0.0,
    ):
        super().__init__()
        sizes = dict(source_dim=source_dim, target_dim=target_dim, width=width, heads=heads, mlp_width=mlp_width)
        for name, size, largest in (*((*item, MAX_WIDTH) for item in sizes.items()), ("depth", depth, MAX_DEPTH)):
            if type(size) is not int or not 1 <= size <= largest:
                raise ValueError(f"{name} is {size!r:.40}: expected a whole number from 1 to {largest}")
        for name, number, bound in (("dropout", dropout, 1.0), ("clamp", clamp, math.inf)):
            if type(number) not in (int, float) or not 0 <= number < bound:
                raise ValueError(f"{name} is {number!r:.40}: expected a number from 0 to below {bound:g}")
        if type(linear_first) is not bool:
            raise ValueError(f"linear_first is {linear_first!r:.40}: expected true or false")
        for name, value, known in (("kind", kind, KINDS), ("input_norm", input_norm, INPUT_NORMS)):
            if value not in known:
                raise ValueError(f"{name} is {value!r:.40}: this version knows {', '.join(known)}")
        self.kind, self.clamp, self.input_norm = kind, clamp, input_norm
        self.source_dim, self.target_dim = source_dim, target_dim
        self.gap = ModalityMeans(source_dim, target_dim)  # named like its tensors in a bundle
        self.register_module("memory", None)
        if kind in ("residual", *CLOSED_FORM):
            self.linear = torch.nn.Linear(source_dim, target_dim)
        if kind == "transformer":
            has_linear = linear_first or source_dim != target_dim
            self.resized = torch.nn.ModuleList([torch.nn.Linear(source_dim, target_dim)] if has_linear else [])
            self.into, self.out = torch.nn.Linear(1, width), torch.nn.Linear(width, 1)
            self.positions = torch.nn.Embedding(target_dim, width)
            self.layers = torch.nn.ModuleList(EncoderLayer(width, heads, mlp_width) for _ in range(depth))
        elif kind not in CLOSED_FORM:
            widths = [source_dim, *[width] * (depth - 1), target_dim]
            pairs = zip(widths[:-1], widths[1:], strict=True)
            self.layers = torch.nn.ModuleList(torch.nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairs)
            normed = widths[1:] if kind == "mlp_layernorm" else []
            self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(features) for features in normed)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> "Translator":
        """Loads the translator of a bundle, with its means and caption memory, in evaluation mode.

        name: the work directory of a run, a bundle folder, a translator of the package (`miniworld/translator`) or a
        hub name, OWNER/NAME or OWNER/NAME@REVISION; see `c2c_jax.io.resolve.bundle_folder`. revision: a branch, tag or
        commit of the hub repository; None: its main branch.
        Raises BundleNotFoundError (also a FileNotFoundError) if there is no such bundle, BundleError (also a
        ValueError) if it is damaged.
        """
        config_file, weights_file = (bundle_folder(name, revision) / file for file in BUNDLE_FILES)
        try:
            config, tensors = _read_config(config_file), _read_tensors(weights_file)
            fields, layers = config["translator"], {key.split(".")[1] for key in tensors if key.startswith("layers.")}
            if fields["kind"] not in CLOSED_FORM and fields["depth"] != len(layers):
                raise ValueError(f"config.json has depth {fields['depth']!r:.20}, the weights {len(layers)} layers")
            with torch.device("meta"):  # allocates nothing until the weights are checked
                translator = cls(**fields)
            means = {key.removeprefix("gap."): tensor for key, tensor in tensors.items() if key.startswith("gap.")}
            translator.gap = ModalityMeans(translator.source_dim, translator.target_dim, **means)
            if translator.input_norm == "centred":
                _require_means(translator.gap)
            if ((memory := config.get("memory")) is None) != ("memory.source" not in tensors):
                raise ValueError("a caption memory needs settings in config.json and captions among the tensors")
            if memory is not None:
                translator.memory = MemoryLayer(
                    translator.source_dim,
                    tensors["memory.source"],
                    weight=memory.get("weight", memory.get("share")),  # "share" in version 0.1
                    temperature=memory.get("temperature"),
                )
            translator.load_state_dict(tensors, strict=True, assign=True)
            if wrong := {x.dtype for key, x in tensors.items() if key != "memory.source"} - {torch.float32}:
                raise ValueError(f"its weights are {wrong.pop()}; expected torch.float32")
        except BundleError:
            raise
        except Exception as error:  # damaged files raise many kinds of exceptions
            raise BundleError(f"{name} has no readable translator ({one_line(error)}); fetch it again") from error
        return translator.eval()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights and of the expected vectors."""
        return next(self.parameters()).dtype

    def _check(self, source: torch.Tensor) -> None:
        """Raises TypeError or ValueError unless these are source vectors [B, S] in the module's dtype."""
        if not isinstance(source, torch.Tensor):
            raise TypeError(f"expected a torch tensor, found {type(source).__name__}: pass torch.as_tensor(vectors)")
        if source.dim() != 2 or source.shape[1] != self.source_dim:
            found = f"{tuple(source.shape)}{': pass one vector as vector[None]' if source.dim() == 1 else ''}"
            raise ValueError(f"expected source vectors of shape (B, {self.source_dim}), found {found}")
        if source.dtype != self.dtype and not torch.is_autocast_enabled(source.device.type):
            raise TypeError(f"expected {self.dtype} vectors, found {source.dtype}: pass vectors.to({self.dtype})")

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        """Translates captions' source vectors [B, S] to target vectors [B, E].

        Raises TypeError for anything but a tensor of the module's dtype (autocast allows any), and ValueError for
        another shape or a missing mean.
        """
        self._check(source)
        if self.input_norm != "centred":
            return self._translated(source)
        centred_source = centred(source, self.gap.mean("source_text"))
        return uncentred(self._translated(centred_source), self.gap.mean("target_text"))

    def _translated(self, source: torch.Tensor) -> torch.Tensor:
        if self.input_norm != "none":
            source = functional.normalize(source, dim=-1) * math.sqrt(source.shape[-1])
        if self.kind == "transformer":
            out = self._transformed(source)
        elif self.kind in CLOSED_FORM:
            out = self.linear(source)
        elif self.kind == "residual":
            out = self.linear(source) + self._through_layers(source, functional.gelu)
        else:
            out = self._through_layers(source, torch.tanh)
        return out.clamp(-self.clamp, self.clamp) if self.clamp else out

    def from_image(self, source: torch.Tensor, output_mean: str = "text") -> torch.Tensor:
        """Translates images' raw source vectors [B, S] to target vectors [B, E].

        With input_norm "centred", images are centred by their own mean (if it is unknown, their component along the
        captions' mean is removed instead), moved towards the memory's captions, translated, and un-centred to unit
        vectors. With other input norms, images are shifted from the mean of images to that of captions before
        translation, and results from the mean of captions to that of sounds, if these means are known.
        output_mean: with input_norm "centred": "text" un-centres with the mean of captions, "audio" with that of
        sounds.
        """
        self._check(source)
        means, is_centred = self.gap, self.input_norm == "centred"
        if is_centred:
            source = self._centred_images(source)
        elif means.source_text is not None and means.source_image is not None:
            if self.input_norm == "unit":
                source = functional.normalize(source, dim=-1)
            source = source - means.source_image + means.source_text
        if self.memory is not None:
            source = self.memory(source)
        target = self._translated(source)
        if is_centred:
            return uncentred(target, means.mean(f"target_{output_mean}"))
        if means.target_text is None or means.target_audio is None:
            return target
        return functional.normalize(target, dim=-1) - means.target_text + means.target_audio

    def _centred_images(self, source: torch.Tensor) -> torch.Tensor:
        if self.gap.source_image is not None:
            return centred(source, self.gap.source_image)
        source, mean = (functional.normalize(x, dim=-1) for x in (source, self.gap.mean("source_text")))
        return functional.normalize(source - (source @ mean)[:, None] * mean, dim=-1)

    def _through_layers(self, hidden: torch.Tensor, activation) -> torch.Tensor:
        is_normed = self.kind == "mlp_layernorm"
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden)
            if number < len(self.layers) - 1 or is_normed or self.kind == "mlp5":
                hidden = activation(hidden)
            hidden = self.norms[number](hidden) if is_normed else hidden
        return hidden

    def _transformed(self, source: torch.Tensor) -> torch.Tensor:
        for resize in self.resized:
            source = resize(source)
        hidden = self.into(source[:, :, None]) + self.positions.weight
        for layer in self.layers:
            hidden = layer(hidden)
        return self.out(hidden)[:, :, 0]


def _read_config(path: Path) -> dict[str, Any]:
    """Reads a bundle's config.json. Raises BundleError if it is invalid."""
    config = read_json(path, BundleError)
    if (format := config.get("format")) != FORMAT:
        raise BundleError(f"{path} is of format {format!r:.20}; this version reads format {FORMAT}")
    if not isinstance(config.get("translator"), dict):
        raise BundleError(f'{path} has no object "translator"; fetch it again')
    return config


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads a bundle's tensors. Raises BundleError if the file is damaged or of another kind."""
    with open_regular(path, "a bundle's weights", BundleError, "fetch it again") as file:
        if placeholder := describe_placeholder(file.read(256)):
            raise BundleError(f"{path} {placeholder}; fetch it again")
    try:
        tensors = load(path.read_bytes())  # Windows could not replace a memory-mapped file
    except SafetensorError as error:
        raise BundleError(f"{path} is not a whole safetensors file ({error}); fetch it again") from None
    if invalid := next((key for key, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise BundleError(f"{path}: {invalid} has values that are not finite; fetch it again")
    return tensors


def _require_means(means: ModalityMeans) -> None:
    """Raises ValueError unless the captions' means are known and all means are shorter than 1."""
    for name in ("source_text", "target_text"):
        means.mean(name)
    for name, mean in means.named_buffers():
        if not mean.norm() < 1:
            raise ValueError(f"gap.{name} has length 1 or more, so it is not a mean of unit vectors")
