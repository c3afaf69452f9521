"""Joint embedding spaces: one pretrained checkpoint with its tokenizer, image processor, towers and projection."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float
from PIL import Image

from c2c_jax.errors import CheckpointError, one_line
from c2c_jax.files import written_whole
from c2c_jax.models.clap_text import ClapTextModelWithProjection
from c2c_jax.models.clip import CLIPModel, CLIPVisionModelWithProjection
from c2c_jax.models.layers import ACTIVATIONS
from c2c_jax.packing import TextBatch, TokenRows, pack
from c2c_jax.pixels import FILE as PIXELS_FILE
from c2c_jax.pixels import PixelRecipe
from c2c_jax.weights import clap, clip
from c2c_jax.weights.folders import checkpoint_folder, digest_of, read_json, read_tensors, weight_files
from c2c_jax.weights.rules import Table, fill, ignored_keys, unfill

if TYPE_CHECKING:  # transformers imports torch: it is loaded where texts are read, and there alone
    from transformers import PreTrainedTokenizerBase


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceId:
    """What tells one space from another: a name for people and a fingerprint for comparison; "": it is unknown."""

    name: str
    dim: int
    fingerprint: str


@dataclasses.dataclass(kw_only=True)
class Space:
    """A joint embedding space. `encode_*` return projections before L2 normalisation, float32 [B, E].

    name: as it was given to `load_space`. dim: E. fingerprint: SHA-256 of weights, config and tokenizer files.
    ignored: keys of the checkpoint that were passed over by the table's leave. One that was loaded for images alone has
    no tokenizer.
    """

    name: str
    dim: int
    fingerprint: str
    config: Any
    model: CLIPModel | CLIPVisionModelWithProjection | ClapTextModelWithProjection
    tokenizer: "PreTrainedTokenizerBase | None"
    pixels: PixelRecipe | None
    max_tokens: int
    ignored: list[str]

    @property
    def id(self) -> SpaceId:
        return SpaceId(name=self.name, dim=self.dim, fingerprint=self.fingerprint)

    def encode_text(self, texts: Sequence[str], *, batch_tokens: int = 2048) -> Float[np.ndarray, "B E"]:
        """Text projections [B, E] of B texts, in their order. Texts beyond the checkpoint's longest are cut as its
        tokenizer cuts them. batch_tokens: tokens that each of this process's devices sees at once.
        """
        vectors = np.empty((len(texts), self.dim), np.float32)
        for batch in self.text_batches(texts, batch_tokens):
            batch.put(self.run_text(batch.tokens), vectors)
        return vectors

    def text_batches(self, texts: Sequence[str], batch_tokens: int) -> list[TextBatch]:
        """The texts tokenised and packed, for all of this process's devices. batch_tokens: as for `encode_text`."""
        is_clip = isinstance(self.model, CLIPModel)
        return pack(
            self._tokenised(texts),
            longest=self.max_tokens,
            batch_tokens=batch_tokens,
            devices=jax.local_device_count(),
            is_causal=is_clip,
            uncounted=None if is_clip else self.config.pad_token_id,
        )

    def _tokenised(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:  # which transformers' tokenizers do not take
            return []
        if self.tokenizer is None:
            raise CheckpointError(f"space {self.name} was loaded for images alone: load it whole")
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens, padding=False)["input_ids"]
        if not isinstance(self.model, CLIPModel):
            return ids
        # CLIP pools at the first end of text, which nothing behind it touches. Configs older than transformers PR 24773
        # say eos_token_id 2, while the true one is the largest id.
        end = self.config.text_config.eos_token_id
        ends = [max(text) if end == 2 else end for text in ids]
        return [text[: text.index(end) + 1 if end in text else 1] for text, end in zip(ids, ends, strict=True)]

    def run_text(self, tokens: TokenRows) -> jax.Array:
        """Starts the text tower on a batch's tokens; the projections [R, Q, E] are there when they are asked for."""
        return self._run("encode_text", tokens)

    def text_flops(self, tokens: TokenRows) -> float:
        """Floating-point operations of the text tower on a batch's tokens, as XLA counts them."""
        graphdef, state, over_data = self._replicated
        lowered = _encoder().lower("encode_text", graphdef, state, jax.device_put(tokens, over_data))
        return lowered.cost_analysis()["flops"]

    def computing_in(self, dtype: str) -> "Space":
        """This space with its towers' arithmetic in "float32" or "bfloat16"; projections stay float32."""
        cast = jax.tree.map(lambda value: value.astype(dtype), nnx.state(self.model))
        return dataclasses.replace(self, model=nnx.merge(nnx.graphdef(self.model), cast))

    def encode_image(self, images: Sequence[Image.Image], *, batch_size: int = 64) -> Float[np.ndarray, "B E"]:
        """Image projections [B, E] of B RGB pictures, resized, cropped and normalised by the checkpoint's own recipe.

        Raises CheckpointError for a space that has no image tower.
        """
        pixels = [self.pixels_of(image) for image in images]
        return (
            self.encode_pixels(np.stack(pixels), batch_size=batch_size)
            if pixels
            else np.zeros((0, self.dim), np.float32)
        )

    def pixels_of(self, image: Image.Image) -> Float[np.ndarray, "height width C"]:
        """What the vision tower takes of an RGB picture. Raises CheckpointError for a space that has no image tower."""
        if self.pixels is None:
            raise CheckpointError(f"space {self.name} has no image tower; pass a CLIP checkpoint")
        return self.pixels([image])[0]

    def encode_pixels(
        self, pixels_BHWC: Float[np.ndarray, "B height width C"], *, batch_size: int = 64
    ) -> Float[np.ndarray, "B E"]:
        """Image projections [B, E] of pixels as `pixels_of` makes them."""
        batch_size = _rounded_up(min(batch_size, len(pixels_BHWC)), jax.local_device_count())
        vectors = np.empty((len(pixels_BHWC), self.dim), np.float32)
        for start in range(0, len(pixels_BHWC), batch_size):
            part = pixels_BHWC[start : start + batch_size]
            whole = np.resize(part, (batch_size, *part.shape[1:]))
            vectors[start : start + len(part)] = np.asarray(self._run("encode_image", whole))[: len(part)]
        return vectors

    def save(self, folder: Path) -> None:
        """Writes the space as a Hugging Face folder that transformers loads: the way back through the same table."""
        with written_whole(folder) as beside:
            self.config.save_pretrained(beside)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(beside)
            if self.pixels is not None:
                (beside / PIXELS_FILE).write_text(json.dumps(self.pixels.content, indent=2) + "\n", encoding="utf-8")
            tensors = unfill(self.model, _FORMATS[self.config.model_type][1], self.config)
            safetensors.numpy.save_file(tensors, beside / "model.safetensors", metadata={"format": "pt"})

    @functools.cached_property
    def _replicated(self) -> tuple[nnx.GraphDef, nnx.State, NamedSharding]:
        mesh = Mesh(np.asarray(jax.local_devices()), ("data",))
        graphdef, state = nnx.split(self.model)
        state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
        return graphdef, state, NamedSharding(mesh, PartitionSpec("data"))

    def _run(self, method: str, batch: np.ndarray | TokenRows) -> jax.Array:
        graphdef, state, over_data = self._replicated
        return _encoder()(method, graphdef, state, jax.device_put(batch, over_data))


def tower_options() -> dict[str, str] | None:
    """What the compiler is told about the towers: on a CPU, to multiply matrices by Eigen and not by YNNPACK, which is
    a fifth slower at these sizes (`bench/embed.py`)."""
    return {"xla_cpu_experimental_ynn_fusion_type": ""} if jax.default_backend() == "cpu" else None


@functools.cache
def _encoder() -> Any:
    """The jitted towers, made at first use: the compiler's options depend on the backend."""
    return jax.jit(_encode, static_argnums=(0, 1), compiler_options=tower_options())


def _encode(method: str, graphdef: nnx.GraphDef, state: nnx.State, batch: Any) -> jax.Array:
    # Accelerators round float32 products to tf32 or bfloat16 unless told otherwise.
    with jax.default_matmul_precision("float32"):
        return getattr(nnx.merge(graphdef, state), method)(batch).astype(jnp.float32)


def _rounded_up(count: int, multiple: int) -> int:
    return -(-max(count, 1) // multiple) * multiple


def _clap_text_config(config: Any) -> Any:
    """A whole ClapModel keeps the text tower's sizes in `text_config` and the projection's beside it."""
    text = config.text_config
    text.projection_dim, text.projection_hidden_act = config.projection_dim, config.projection_hidden_act
    text.architectures = ["ClapTextModelWithProjection"]
    return text


# config.json's model_type → how to build the module, and the table of its weights
_FORMATS: dict[str, tuple[Any, Table]] = {
    "clip": (clip.build, clip.TABLE),
    "clap_text_model": (clap.build, clap.TABLE),
}


def load_space(name: str, *, only_images: bool = False) -> Space:
    """The space of a checkpoint.

    name: a hub name, a local folder, or either with `:SUBFOLDER` (`cvssp/audioldm-s-full-v2:text_encoder`).
    only_images: of CLIP the vision tower alone is read, which takes half the time.
    Raises CheckpointError for a checkpoint that is missing, incomplete, of another kind, or whose tensors do not fit
    its config.json.
    """
    folder = checkpoint_folder(name)
    config: Any
    if only_images:
        config = _vision_config(folder, name)
        build, table, dim = clip.build_vision, clip.VISION_TABLE, clip.projection_dim(config)
    else:
        config = _read_config(folder, name)
        (build, table), dim = _FORMATS[config.model_type], config.projection_dim
    has_images = only_images or config.model_type == "clip"
    with ThreadPoolExecutor(1) as beside:
        hashed = beside.submit(fingerprint, folder)  # reads every byte
        tensors = read_tensors(folder, table.ignored)
        model = fill(functools.partial(build, config), tensors, table, str(folder))
        tokenizer = None if only_images else _load_tokenizer(folder)
        return Space(
            name=name,
            dim=dim,
            fingerprint=hashed.result(),
            config=config,
            model=model,
            tokenizer=tokenizer,
            pixels=PixelRecipe.read(folder) if has_images else None,
            max_tokens=min(_positions(config), tokenizer.model_max_length) if tokenizer else 0,
            ignored=ignored_keys(tensors, table),
        )


def identify(name: str, *, download: bool = True) -> SpaceId:
    """Name, width and fingerprint of a checkpoint, without loading its towers. Raises as `load_space`.

    download: whether the hub may be asked for it; where it may not, one that is not here raises AbsentError.
    """
    folder = checkpoint_folder(name, download=download)
    return SpaceId(name=name, dim=_read_config(folder, name).projection_dim, fingerprint=fingerprint(folder))


def _read_config(folder: Path, name: str) -> Any:
    """A checkpoint's config as transformers reads it. Raises CheckpointError for one of another kind, or for none."""
    if (folder / "model_index.json").is_file() and not (folder / "config.json").is_file():
        raise CheckpointError(f"{name} is a whole generator; its CLAP is {name}:text_encoder")
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in (*_FORMATS, "clap"):
        raise CheckpointError(f"{name}: config.json says model_type {kind!r}; expected clip, clap or clap_text_model")
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers checks sizes against each other, by exceptions of many kinds
        raise CheckpointError(f"{folder / 'config.json'} makes no model ({one_line(error)}); fetch it again") from error
    if kind == "clap":
        config = _clap_text_config(config)
    towers: list[Any] = [config.text_config, config.vision_config] if kind == "clip" else [config]
    for tower in towers:
        _require_activation(folder, tower.hidden_act)
    return config


def _vision_config(folder: Path, name: str) -> dict[str, Any]:
    """config.json of a CLIP checkpoint as it is. Raises CheckpointError for one of another kind."""
    content = read_json(folder / "config.json")
    if content.get("model_type") != "clip":
        raise CheckpointError(f"space {name} has no image tower; pass a CLIP checkpoint")
    _require_activation(folder, clip.vision_sizes(content).hidden_act)
    return content


def _require_activation(folder: Path, name: str) -> None:
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise CheckpointError(f"{folder / 'config.json'}: hidden_act {name!r}; known are {known}")


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of a checkpoint folder's weights, config and tokenizer files."""
    files = {*weight_files(folder), *_tokenizer_files(folder), folder / "config.json"}
    return digest_of({path.name: path for path in files})


def _positions(config: Any) -> int:
    """The longest text of a checkpoint in tokens; RoBERTa counts positions from pad_token_id + 1."""
    if config.model_type == "clip":
        return config.text_config.max_position_embeddings
    return config.max_position_embeddings - config.pad_token_id - 1


def _tokenizer_folder(folder: Path) -> Path:
    own = any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json", "tokenizer_config.json"))
    return folder if own else folder.parent / "tokenizer"


def _tokenizer_files(folder: Path) -> list[Path]:
    tokens = _tokenizer_folder(folder)
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
    return [tokens / name for name in names if (tokens / name).is_file()]


def _load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    tokens = _tokenizer_folder(folder)
    if not _tokenizer_files(folder):
        raise CheckpointError(
            f"{folder} holds no tokenizer: expected tokenizer.json, or vocab.json and merges.txt, there or in {tokens}"
        )
    try:
        return AutoTokenizer.from_pretrained(tokens, local_files_only=True)
    except Exception as error:  # JSON's, the tokenizers library's own, and plain ones
        raise CheckpointError(
            f"the tokenizer in {tokens} cannot be read ({one_line(error)}); fetch it again"
        ) from error
