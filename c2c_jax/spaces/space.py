"""Joint embedding spaces: one pretrained checkpoint with its tokenizer, recipe for images or sounds, and towers."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import safetensors.numpy
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float
from PIL import Image

from c2c_jax.errors import CheckpointError
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.files import is_there, local_path, sha256_of
from c2c_jax.spaces.audio_preprocessing import FILE as MELS_FILE
from c2c_jax.spaces.audio_preprocessing import MelRecipe
from c2c_jax.spaces.devices import gpu_options
from c2c_jax.spaces.image_preprocessing import FILE as PIXELS_FILE
from c2c_jax.spaces.image_preprocessing import PixelRecipe
from c2c_jax.spaces.models.clap import ClapModel
from c2c_jax.spaces.models.clap_audio import ClapAudioModelWithProjection, Mels
from c2c_jax.spaces.models.clap_text import ClapTextModelWithProjection
from c2c_jax.spaces.models.clip import CLIPModel, CLIPVisionModelWithProjection
from c2c_jax.spaces.models.layers import Width
from c2c_jax.spaces.packing import TextBatch, TokenRows, pack
from c2c_jax.spaces.weights import clip, laion_clap
from c2c_jax.spaces.weights.folders import checkpoint_folder, digest_of, read_tensors, weight_files
from c2c_jax.spaces.weights.formats import (
    Tower,
    audio_config,
    format_of,
    longest_text,
    read_config,
    text_config,
    towers_of,
)
from c2c_jax.spaces.weights.rules import fill, ignored_keys, require_layers, unfill
from c2c_jax.spaces.weights.tokenizers import read_tokenizer

if TYPE_CHECKING:  # transformers imports torch: it is loaded where texts are read, and there alone
    from transformers import PreTrainedTokenizerBase


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceId:
    """What tells one space from another: a name for people and a fingerprint for comparison; "": it is unknown."""

    name: Annotated[str, msgspec.Meta(max_length=4096)]
    dim: Width
    fingerprint: Annotated[str, msgspec.Meta(max_length=64)]


@dataclasses.dataclass(kw_only=True)
class Space:
    """A joint embedding space. `encode_*` return projections before L2 normalisation, float32 [B, E].

    name: as it was given to `load_space`. dim: E. fingerprint: SHA-256 of weights, config and tokenizer files.
    pixels, mels: what the towers that were loaded take of pictures and sounds. ignored: keys of the checkpoint that
    were passed over by the table's leave. One that was loaded for images or sounds alone has no tokenizer.
    """

    name: str
    dim: int
    fingerprint: str
    config: Any
    model: (
        CLIPModel
        | CLIPVisionModelWithProjection
        | ClapModel
        | ClapTextModelWithProjection
        | ClapAudioModelWithProjection
    )
    tokenizer: "PreTrainedTokenizerBase | None"
    pixels: PixelRecipe | None
    mels: MelRecipe | None = None
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
        return self._require_directions(vectors)

    def text_batches(self, texts: Sequence[str], batch_tokens: int) -> list[TextBatch]:
        """The texts tokenised and packed, for all of this process's devices. batch_tokens: as for `encode_text`."""
        is_clip = isinstance(self.model, CLIPModel)
        return pack(
            self.token_ids(texts),
            longest=self.max_tokens,
            batch_tokens=batch_tokens,
            devices=jax.local_device_count(),
            is_causal=is_clip,
            uncounted=None if is_clip else text_config(self.config).pad_token_id,
        )

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text that its tower sees. Raises CheckpointError for a space without a tokenizer."""
        if not texts:  # which transformers' tokenizers do not take
            return []
        if self.tokenizer is None and hasattr(self.model, "encode_text"):
            raise CheckpointError(laion_clap.no_tokenizer(self.name))
        if self.tokenizer is None:
            raise CheckpointError(f"space {self.name} was loaded without its text tower: load it whole")
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens, padding=False)["input_ids"]
        words = text_config(self.config).vocab_size
        if (largest := max(max(text, default=0) for text in ids)) >= words:
            raise CheckpointError(
                f"space {self.name}: its tokenizer gives token {largest}, and its text tower has {words}: they "
                "belong to different models"
            )
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
        return self._require_directions(vectors)

    def _require_directions(self, vectors_BE: Float[np.ndarray, "B E"]) -> Float[np.ndarray, "B E"]:
        """Raises CheckpointError for a vector that is zero or not finite: it has no direction."""
        lengths_B = np.linalg.norm(vectors_BE, axis=1)
        if not (np.isfinite(lengths_B) & (lengths_B > 0)).all():
            raise CheckpointError(
                f"space {self.name} gives vectors that are zero or not finite: fetch its weights again"
            )
        return vectors_BE

    def encode_audio(
        self, sounds: Sequence[Float[np.ndarray, "_"]], *, batch_size: int = 16
    ) -> Float[np.ndarray, "B E"]:
        """Audio projections [B, E] of B mono sounds in -1..1 at `mels.sample_rate`, of any lengths.

        batch_size: sounds that are heard at once by all of this process's devices. Raises CheckpointError for a space
        that has no audio tower, SoundError for an empty sound.
        """
        recipe = self.require_mels()
        if not sounds:
            return np.zeros((0, self.dim), np.float32)
        batch_size = batch_size_for(len(sounds), batch_size)
        parts = (sounds[start : start + batch_size] for start in range(0, len(sounds), batch_size))
        return self._encode_batches((recipe(part) for part in parts), batch_size)

    def require_mels(self) -> MelRecipe:
        """What makes spectrograms of sounds. Raises CheckpointError for a space that has no audio tower."""
        if self.mels is None:
            raise CheckpointError(
                f"space {self.name} has no audio tower; pass a whole CLAP, such as laion/clap-htsat-unfused"
            )
        return self.mels

    def encode_mels(self, mels: Mels, *, batch_size: int = 16) -> Float[np.ndarray, "B E"]:
        """Audio projections [B, E] of B spectrograms as `mels` makes them, in batches filled up to one size."""
        starts = range(0, len(mels.mel_BCTM), batch_size)
        return self._encode_batches((Mels(*(x[i : i + batch_size] for x in mels)) for i in starts), batch_size)

    def _encode_batches(self, batches: Iterable[Mels], batch_size: int) -> Float[np.ndarray, "B E"]:
        """While a batch is heard, the next is made."""
        size = _rounded_up(batch_size, jax.local_device_count())
        vectors, before = [np.zeros((0, self.dim), np.float32)], None
        for mels in batches:
            filled = Mels(*(np.resize(x, (size, *x.shape[1:])) for x in mels))
            heard = self._run("encode_audio", filled)[: len(mels.is_longer_B)]
            vectors += [] if before is None else [np.asarray(before)]
            before = heard
        return self._require_directions(np.concatenate([*vectors, *([] if before is None else [np.asarray(before)])]))

    def save(self, folder: Path) -> None:
        """Writes the space as a Hugging Face folder that transformers loads: the way back through the same table."""
        with atomic_write(folder) as beside:
            self.config.save_pretrained(beside)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(beside)
            for file, recipe in ((PIXELS_FILE, self.pixels), (MELS_FILE, self.mels)):
                if recipe is not None:
                    (beside / file).write_text(json.dumps(recipe.content, indent=2) + "\n", encoding="utf-8")
            tensors = unfill(self.model, format_of(self.config)[1], self.config)
            safetensors.numpy.save_file(tensors, beside / "model.safetensors", metadata={"format": "pt"})

    @functools.cached_property
    def _replicated(self) -> tuple[nnx.GraphDef, nnx.State, NamedSharding]:
        mesh = Mesh(np.asarray(jax.local_devices()), ("data",))
        graphdef, state = nnx.split(self.model)
        state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
        return graphdef, state, NamedSharding(mesh, PartitionSpec("data"))

    def _run(self, method: str, batch: np.ndarray | TokenRows | Mels) -> jax.Array:
        graphdef, state, over_data = self._replicated
        return _encoder()(method, graphdef, state, jax.device_put(batch, over_data))


def tower_options() -> dict[str, str | bool]:
    """What the compiler is told about the towers: `gpu_options`, and on a CPU, to multiply matrices by Eigen and not by
    YNNPACK, which is a fifth slower at these sizes (`bench/embed.py`)."""
    is_cpu = jax.default_backend() == "cpu"
    return {"xla_cpu_experimental_ynn_fusion_type": ""} if is_cpu else gpu_options()


@functools.cache
def _encoder() -> Any:
    """The jitted towers, made at first use: the compiler's options depend on the backend."""
    return jax.jit(_encode, static_argnums=(0, 1), compiler_options=tower_options())


def _encode(method: str, graphdef: nnx.GraphDef, state: nnx.State, batch: Any) -> jax.Array:
    # Accelerators round float32 products to tf32 or bfloat16 unless told otherwise.
    with jax.default_matmul_precision("float32"):
        return getattr(nnx.merge(graphdef, state), method)(batch).astype(jnp.float32)


def batch_size_for(count: int, most: int) -> int:
    """How many of so many sounds are heard at once: of few sizes, since the tower compiles for each."""
    return min(most, 1 << (count - 1).bit_length()) if count else most


def _rounded_up(count: int, multiple: int) -> int:
    return -(-max(count, 1) // multiple) * multiple


def load_space(name: str, *, only: Tower | None = None) -> Space:
    """The space of a checkpoint.

    name: a hub name, a local folder, either with `:SUBFOLDER` (`cvssp/audioldm-s-full-v2:text_encoder`), or a file of
    laion_clap's or AudioLDM's own (`630k-audioset-best.pt`, `audioldm-s-full-v2.ckpt`).
    only: the tower that is wanted, where others are not: of CLIP "image", and of CLAP either, is then read alone, which
    takes half the time.
    Raises CheckpointError for a checkpoint that is missing, incomplete, of another kind, has no such tower, or whose
    tensors do not fit its config.json.
    """
    if (path := local_path(name, CheckpointError)).is_file():
        return _load_file(name, path, only)
    folder = checkpoint_folder(name)
    config = read_config(folder, name, only)
    build, table = format_of(config)
    towers = towers_of(config)
    mels = MelRecipe.read(folder) if "audio" in towers else None
    if mels:
        mels.require_tower(audio_config(config), folder)
    pixels = PixelRecipe.read(folder) if "image" in towers else None
    if pixels:
        pixels.require_tower(clip.vision_sizes(config) if isinstance(config, dict) else config.vision_config, folder)
    with ThreadPoolExecutor(1) as beside:
        hashed = beside.submit(fingerprint, folder)  # reads every byte
        tensors = read_tensors(folder, table.ignored)
        require_layers(tensors, table.layers(config), str(folder))
        model: Any = fill(functools.partial(build, config), tensors, table, str(folder))
        tokenizer = _load_tokenizer(folder, config) if "text" in towers else None
        return Space(
            name=name,
            dim=clip.projection_dim(config) if isinstance(config, dict) else config.projection_dim,
            fingerprint=hashed.result(),
            config=config,
            model=model,
            tokenizer=tokenizer,
            pixels=pixels,
            mels=mels,
            max_tokens=min(longest_text(config), tokenizer.model_max_length) if tokenizer else 0,
            ignored=ignored_keys(tensors, table),
        )


def _load_file(name: str, path: Path, only: Tower | None) -> Space:
    with ThreadPoolExecutor(1) as beside:
        hashed = beside.submit(fingerprint, path)
        file = laion_clap.LaionClap.read(path)
        config = file.narrowed(only)
        (build, _), table = format_of(config), laion_clap.TABLES[only]
        tensors = file.tensors(table)
        model: Any = fill(functools.partial(build, config), tensors, table, str(path), sizes="its other tensors")
        tokenizer = None if only == "audio" else file.load_tokenizer()
        return Space(
            name=name,
            dim=config.projection_dim,
            fingerprint=hashed.result(),
            config=config,
            model=model,
            tokenizer=tokenizer,
            pixels=None,
            mels=None if only == "text" else MelRecipe.checked(file.preprocessor(), path),
            max_tokens=min(longest_text(config), tokenizer.model_max_length) if tokenizer else 0,
            ignored=sorted([*ignored_keys(tensors, table), *file.others]),
        )


def identify(name: str, *, download: bool = True) -> SpaceId:
    """Name, width and fingerprint of a checkpoint, without loading its towers. Raises as `load_space`.

    download: whether the hub may be asked for it; where it may not, one that is not here raises AbsentError.
    """
    if (path := local_path(name, CheckpointError)).is_file():
        config: Any = laion_clap.LaionClap.read(path).config
        return SpaceId(name=name, dim=config.projection_dim, fingerprint=fingerprint(path))
    folder = checkpoint_folder(name, download=download)
    return SpaceId(name=name, dim=read_config(folder, name).projection_dim, fingerprint=fingerprint(folder))


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of a checkpoint folder's weights, config and tokenizer files, or over the one
    file that holds a checkpoint."""
    if folder.is_file():
        return sha256_of(folder)
    files = {*weight_files(folder), *_tokenizer_files(folder), folder / "config.json"}
    return digest_of({path.name: path for path in files})


def _tokenizer_folder(folder: Path) -> Path:
    own = any(is_there(folder / file) for file in ("tokenizer.json", "vocab.json", "tokenizer_config.json"))
    return folder if own else folder.parent / "tokenizer"


def _tokenizer_files(folder: Path) -> list[Path]:
    tokens = _tokenizer_folder(folder)
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
    return [tokens / name for name in names if is_there(tokens / name)]


def _load_tokenizer(folder: Path, config: Any) -> "PreTrainedTokenizerBase":
    from transformers import PreTrainedConfig

    tokens = _tokenizer_folder(folder)
    if not _tokenizer_files(folder):
        raise CheckpointError(
            f"{folder} holds no tokenizer: expected tokenizer.json, or vocab.json and merges.txt, there or in {tokens}"
        )
    tokenizer = read_tokenizer(tokens, config=config if tokens == folder else PreTrainedConfig())
    if config.model_type != "clip" and tokenizer.pad_token_id not in (None, text_config(config).pad_token_id):
        raise CheckpointError(
            f"config.json in {folder} says pad_token_id {text_config(config).pad_token_id}, and the tokenizer in "
            f"{tokens} {tokenizer.pad_token_id}: they belong to different models"
        )
    if config.model_type == "clip" and (end := config.text_config.eos_token_id) not in (
        2,
        *tokenizer("a")["input_ids"],
    ):
        raise CheckpointError(
            f"the tokenizer in {tokens} does not end texts with eos_token_id {end} of config.json in {folder}: "
            "they belong to different models"
        )
    return tokenizer
