"""Joint embedding spaces: one pretrained checkpoint with its tokenizer, preprocessors and towers."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
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

from c2c_jax.errors import AudioError, CheckpointError
from c2c_jax.io.atomic import atomic_write
from c2c_jax.io.images import as_list, to_image
from c2c_jax.io.json import format_json
from c2c_jax.spaces.audio_preprocessing import AudioPreprocessor
from c2c_jax.spaces.devices import tower_options
from c2c_jax.spaces.image_preprocessing import ImagePreprocessor
from c2c_jax.spaces.models.clap_audio import Mels
from c2c_jax.spaces.packing import TextBatch, TokenRows, encode_packed, pack
from c2c_jax.spaces.preprocessors import FILE
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.spaces.weights.formats import FORMATS, Tower, open_checkpoint, read_format
from c2c_jax.spaces.weights.laion_clap import no_tokenizer
from c2c_jax.spaces.weights.rules import fill, ignored_keys, require_layers, unfill

if TYPE_CHECKING:  # transformers imports torch: it is loaded only where texts are read
    from transformers import PreTrainedTokenizerBase


@dataclasses.dataclass(kw_only=True, repr=False)
class Space:
    """A joint embedding space. `encode_*` return projections before L2 normalisation, float32 [B, E].

    name: as passed to `load_space`. dim: width E of the vectors. fingerprint: SHA-256 of weights, config and tokenizer
    files. config: content of config.json. model: an instance of a class in `weights.formats.FORMATS`. tokenizer,
    image_preprocessor, audio_preprocessor: None if their tower was not loaded. ignored: tensors of the checkpoint that
    the model does not need.
    """

    name: str
    dim: int
    fingerprint: str
    config: dict[str, Any]
    model: Any
    tokenizer: "PreTrainedTokenizerBase | None"
    image_preprocessor: ImagePreprocessor | None
    audio_preprocessor: AudioPreprocessor | None = None
    max_tokens: int
    ignored: list[str]

    def __repr__(self) -> str:
        towers = ("image", self.image_preprocessor), ("audio", self.audio_preprocessor), ("text", self.tokenizer)
        loaded = ", ".join(name for name, part in towers if part is not None)
        return f"Space({self.name!r}, dim={self.dim}, towers: {loaded})"

    @property
    def id(self) -> SpaceId:
        """The space's name, width and fingerprint."""
        return SpaceId(name=self.name, dim=self.dim, fingerprint=self.fingerprint)

    def encode_text(self, texts: str | Iterable[str], *, batch_tokens: int = 2048) -> Float[np.ndarray, "B E"]:
        """Text projections [B, E] of one text or several. The tokenizer truncates long texts. batch_tokens: tokens per
        device and batch.
        """
        texts = as_list(texts)
        vectors = np.empty((len(texts), self.dim), np.float32)
        for batch in self.text_batches(texts, batch_tokens):
            batch.scatter(self.run_text(batch.tokens), vectors)
        return self._require_directions(vectors)

    def text_batches(self, texts: Sequence[str], batch_tokens: int) -> list[TextBatch]:
        """Tokenises texts and packs them into batches for all local devices. batch_tokens: see `encode_text`."""
        if not (ids := self.token_ids(texts)):
            return []
        config = self.model.text_model.config
        return pack(
            ids,
            max_length=self.max_tokens,
            batch_tokens=batch_tokens,
            devices=jax.local_device_count(),
            is_causal=config.is_causal,
            pad_token_id=None if config.is_causal else config.pad_token_id,
        )

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, truncated for the text tower. Raises CheckpointError without a tokenizer."""
        if not texts:  # transformers' tokenizers raise for an empty list
            return []
        if self.tokenizer is None and hasattr(self.model, "encode_text"):
            raise CheckpointError(no_tokenizer(self.name))
        if self.tokenizer is None:
            raise CheckpointError(f"space {self.name} was loaded without its text tower: load it without `only`")
        config = self.model.text_model.config
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens, padding=False)["input_ids"]
        if (max_size := max(max(text, default=0) for text in ids)) >= config.vocab_size:
            raise CheckpointError(
                f"space {self.name}: its tokenizer gives token {max_size}, and its text tower has {config.vocab_size}: "
                "they belong to different models"
            )
        if not config.is_causal:
            return ids
        # A causal text is pooled at its first end token, so later tokens do not matter. See `CLIPTextConfig`.
        end = config.eos_token_id
        ends = [max(text) if end == 2 else end for text in ids]
        return [text[: text.index(end) + 1 if end in text else 1] for text, end in zip(ids, ends, strict=True)]

    def run_text(self, tokens: TokenRows) -> jax.Array:
        """Starts the text tower on packed tokens and returns its projections [R, Q, E] without waiting for them."""
        return self._run(encode_packed, tokens)

    def text_flops(self, tokens: TokenRows) -> float:
        """Floating-point operations of the text tower on a batch's tokens, as XLA counts them."""
        graphdef, state, over_data = self._replicated
        lowered = _encoder().lower(encode_packed, graphdef, state, jax.device_put(tokens, over_data))
        return lowered.cost_analysis()["flops"]

    def with_dtype(self, dtype: str) -> "Space":
        """A copy of the space that computes in "float32" or "bfloat16"; its projections stay float32."""
        cast = jax.tree.map(lambda value: value.astype(dtype), nnx.state(self.model))
        return dataclasses.replace(self, model=nnx.merge(nnx.graphdef(self.model), cast))

    def encode_images(self, images: Any, *, batch_size: int = 64) -> Float[np.ndarray, "B E"]:
        """Image projections [B, E] of one image or several: paths, PIL images or arrays, see `io.images.to_image`.
        Raises CheckpointError for a space without an image tower, ImageError for an image that cannot be read."""
        images = as_list(images)
        starts = range(0, len(images), batch_size)
        pixels = (
            np.stack([self.preprocess_image(to_image(image)) for image in images[start : start + batch_size]])
            for start in starts
        )
        return self._encode(_encode_image, pixels, min(batch_size, len(images)))

    def preprocess_image(self, image: Image.Image) -> Float[np.ndarray, "height width C"]:
        """Converts an RGB image to the vision tower's pixels. Raises CheckpointError for a space without one."""
        if self.image_preprocessor is None:
            raise CheckpointError(f"space {self.name} has no image tower; pass a CLIP checkpoint")
        return self.image_preprocessor([image])[0]

    def encode_pixels(
        self, pixels_BHWC: Float[np.ndarray, "B height width C"], *, batch_size: int = 64
    ) -> Float[np.ndarray, "B E"]:
        """Image projections [B, E] of pixels from `preprocess_image`."""
        starts = range(0, len(pixels_BHWC), batch_size)
        parts = (pixels_BHWC[start : start + batch_size] for start in starts)
        return self._encode(_encode_image, parts, min(batch_size, len(pixels_BHWC)))

    def encode_audio(
        self, waveforms: Sequence[Float[np.ndarray, "_"]], *, batch_size: int = 16
    ) -> Float[np.ndarray, "B E"]:
        """Audio projections [B, E] of B mono sounds of any length, in -1..1 at `audio_preprocessor.sample_rate`.

        batch_size: sounds per batch over all local devices. Raises CheckpointError for a space without an audio tower,
        AudioError for a sound that is empty or not an array [samples] of floats.
        """
        preprocessor = self.require_audio_preprocessor()
        for waveform in waveforms:
            if getattr(waveform, "ndim", 0) != 1 or np.asarray(waveform).dtype.kind != "f":
                raise AudioError("a sound must be an array [samples] of floats in -1..1: average its channels first")
        batch_size = batch_size_for(len(waveforms), batch_size)
        parts = (waveforms[start : start + batch_size] for start in range(0, len(waveforms), batch_size))
        return self._encode(_encode_audio, (preprocessor(part) for part in parts), batch_size)

    def require_audio_preprocessor(self) -> AudioPreprocessor:
        """The preprocessor of the audio tower. Raises CheckpointError for a space without one."""
        if self.audio_preprocessor is None:
            raise CheckpointError(
                f"space {self.name} has no audio tower; pass a whole CLAP, such as laion/clap-htsat-unfused"
            )
        return self.audio_preprocessor

    def encode_mels(self, mels: Mels, *, batch_size: int = 16) -> Float[np.ndarray, "B E"]:
        """Audio projections [B, E] of B spectrograms from `audio_preprocessor`."""
        starts = range(0, len(mels.mel_BCTM), batch_size)
        parts = (Mels(*(x[start : start + batch_size] for x in mels)) for start in starts)
        return self._encode(_encode_audio, parts, batch_size)

    def _encode(
        self, encode: Callable[[Any, Any], jax.Array], batches: Iterable[Any], batch_size: int
    ) -> Float[np.ndarray, "B E"]:
        """Encodes batches of up to `batch_size`, each padded to a multiple of the devices. The next batch is prepared
        while one is encoded."""
        size = -(-max(batch_size, 1) // jax.local_device_count()) * jax.local_device_count()
        started: list[tuple[jax.Array, int]] = []
        for batch in batches:
            filled = jax.tree.map(lambda x: np.resize(x, (size, *x.shape[1:])), batch)
            started.append((self._run(encode, filled), len(jax.tree.leaves(batch)[0])))
            if len(started) > 1:
                started[-2][0].block_until_ready()
        vectors = (np.asarray(vectors_BE)[:count] for vectors_BE, count in started)
        return self._require_directions(np.concatenate([np.zeros((0, self.dim), np.float32), *vectors]))

    def _require_directions(self, vectors_BE: Float[np.ndarray, "B E"]) -> Float[np.ndarray, "B E"]:
        """Returns the vectors. Raises CheckpointError if one is zero or not finite, and so has no direction."""
        lengths_B = np.linalg.norm(vectors_BE, axis=1)
        if not (np.isfinite(lengths_B) & (lengths_B > 0)).all():
            raise CheckpointError(
                f"space {self.name} gives vectors that are zero or not finite: fetch its weights again"
            )
        return vectors_BE

    def save(self, folder: Path) -> None:
        """Writes the space as a Hugging Face folder that transformers can load."""
        format = FORMATS[self.config["model_type"]]
        contents = {"config.json": self.config}
        if preprocessor := self.image_preprocessor or self.audio_preprocessor:
            contents[FILE] = preprocessor.to_dict()
        with atomic_write(folder) as temporary:
            temporary.mkdir()
            for file, content in contents.items():
                (temporary / file).write_bytes(format_json(content))
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(temporary)
            tensors = unfill(self.model, format.table, format.config(self.config))
            safetensors.numpy.save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})

    @functools.cached_property
    def _replicated(self) -> tuple[nnx.GraphDef, nnx.State, NamedSharding]:
        mesh = Mesh(np.asarray(jax.local_devices()), ("data",))
        graphdef, state = nnx.split(self.model)
        state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
        return graphdef, state, NamedSharding(mesh, PartitionSpec("data"))

    def _run(self, encode: Callable[[Any, Any], jax.Array], batch: Any) -> jax.Array:
        graphdef, state, over_data = self._replicated
        return _encoder()(encode, graphdef, state, jax.device_put(batch, over_data))


@functools.cache
def _encoder() -> Any:
    """The jitted encoder, created at first use, since compiler options depend on the backend."""
    return jax.jit(_merge_and_encode, static_argnums=(0, 1), compiler_options=tower_options())


def _merge_and_encode(
    encode: Callable[[Any, Any], jax.Array], graphdef: nnx.GraphDef, state: nnx.State, batch: Any
) -> jax.Array:
    # Accelerators round float32 products to tf32 or bfloat16 by default.
    with jax.default_matmul_precision("float32"):
        return encode(nnx.merge(graphdef, state), batch).astype(jnp.float32)


def _encode_image(model: Any, pixels_BHWC: jax.Array) -> jax.Array:
    return model.encode_image(pixels_BHWC)


def _encode_audio(model: Any, mels: Mels) -> jax.Array:
    return model.encode_audio(mels)


def batch_size_for(count: int, max_size: int) -> int:
    """Batch size for `count` sounds: a power of two up to `max_size`, since the tower compiles for each size."""
    return min(max_size, 1 << (count - 1).bit_length()) if count else max_size


def load_space(name: str | Path, *, only: Tower | None = None) -> Space:
    """Loads a space from a checkpoint.

    name: a hub name or a local folder, with `:SUBFOLDER` if needed (`cvssp/audioldm-s-full-v2:text_encoder`), or an
    original file of laion_clap or AudioLDM (`630k-audioset-best.pt`, `audioldm-s-full-v2.ckpt`). only: "text", "image"
    or "audio", to load this tower alone; None: all towers. CLIP's image tower and each of CLAP's towers alone load in
    half the time.
    Raises CheckpointError for a checkpoint that is missing, incomplete or of an unknown kind, that lacks the tower, or
    whose tensors do not fit its config.json.
    """
    name = str(name)
    checkpoint = open_checkpoint(name)
    format, content, config = read_format(checkpoint, only)
    table, origin = checkpoint.table(content["model_type"]), str(checkpoint.path)
    with ThreadPoolExecutor(1) as pool:
        fingerprint = pool.submit(checkpoint.fingerprint)  # reads every byte
        tensors = checkpoint.tensors(table)
        require_layers(tensors, table.layers(config), origin)
        model: Any = fill(
            lambda rngs: format.model(config, rngs=rngs), tensors, table, origin, sizes=checkpoint.shape_source
        )
        image_preprocessor, audio_preprocessor, tokenizer = None, None, None
        if "image" in format.towers:
            image_preprocessor = checkpoint.preprocessor(ImagePreprocessor, model.vision_model.config)
        if "audio" in format.towers:
            audio_preprocessor = checkpoint.preprocessor(AudioPreprocessor, model.audio_model.config)
        if "text" in format.towers:
            tokenizer = checkpoint.tokenizer(model.text_model.config)
        return Space(
            name=name,
            dim=config.projection_dim,
            fingerprint=fingerprint.result(),
            config=content,
            model=model,
            tokenizer=tokenizer,
            image_preprocessor=image_preprocessor,
            audio_preprocessor=audio_preprocessor,
            max_tokens=min(model.text_model.config.max_tokens, tokenizer.model_max_length) if tokenizer else 0,
            ignored=sorted([*ignored_keys(tensors, table), *checkpoint.other_keys]),
        )


def identify(name: str | Path, *, download: bool = True) -> SpaceId:
    """Name, width and fingerprint of a checkpoint, without loading its towers. Raises like `load_space`.

    download: whether it may be downloaded; if not, a checkpoint that is not on this machine raises AbsentError.
    """
    name = str(name)
    checkpoint = open_checkpoint(name, download=download)
    _, _, config = read_format(checkpoint)
    return SpaceId(name=name, dim=config.projection_dim, fingerprint=checkpoint.fingerprint())
