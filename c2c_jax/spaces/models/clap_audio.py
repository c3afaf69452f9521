"""CLAP's audio tower: HTSAT, a Swin transformer over log-mel spectrograms folded to a square (Chen et al. 2022), with
the feature fusion of Wu et al. 2023, section 4.2. Attribute names are those of Hugging Face's
ClapAudioModelWithProjection. Batch norms use the checkpoint's running statistics.
"""

import dataclasses
import functools
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from c2c_jax.spaces.models.layers import ACTIVATIONS, Activation, Dense, Epsilon, Layers, Pixels, Width

EPSILON = 1e-5  # torch's default; only the two norms of a block use the config's layer_norm_eps
MASKED = -100.0  # added to scores of tokens that only the cyclic shift put into one window, as in Swin
CUBIC_PARAMETER = -0.75  # the free parameter of torch's bicubic interpolation (Keys 1981, eq. 4, has -0.5)


class Mels(NamedTuple):
    """Spectrograms of B sounds, the input of the tower. `AudioPreprocessor` creates them.

    C is 1, or 4 with fusion: the whole sound shrunk to T frames, then T frames each of its first, second and last
    third. A sound of at most T frames is repeated four times.
    """

    mel_BCTM: Float[Array | np.ndarray, "B C T M"]  # decibels
    is_longer_B: Bool[Array | np.ndarray, "B"]  # whether a sound is longer than T frames; False without fusion


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapAudioConfig:
    """Sizes of the audio tower and its projection. Published files omit values that equal transformers' defaults.
    Raises ValueError for sizes that do not fit together."""

    spec_size: Annotated[int, msgspec.Meta(ge=1, le=2**10)] = 256  # edge of the square, in pixels
    num_mel_bins: Annotated[int, msgspec.Meta(ge=1, le=2**10)] = 64
    patch_size: tuple[Pixels, Pixels] = (4, 4)
    patch_stride: tuple[Pixels, Pixels] = (4, 4)
    patch_embed_input_channels: Literal[1] = 1
    flatten_patch_embeds: bool = True
    patch_embeds_hidden_size: Width = 96  # of the first stage; it doubles from each to the next
    enable_patch_layer_norm: bool = True
    enable_fusion: bool = False
    fusion_type: str | None = None
    aff_block_r: Width = 4
    window_size: Annotated[int, msgspec.Meta(ge=1, le=2**7)] = 8  # patches
    depths: Annotated[tuple[Layers, ...], msgspec.Meta(min_length=1, max_length=8)] = (2, 2, 6, 2)
    num_attention_heads: Annotated[tuple[Width, ...], msgspec.Meta(min_length=1, max_length=8)] = (4, 8, 16, 32)
    qkv_bias: bool = True
    mlp_ratio: Annotated[float, msgspec.Meta(gt=0, le=2**10)] = 4.0
    hidden_act: Activation = "gelu"
    layer_norm_eps: Epsilon = 1e-5
    hidden_size: Width = 768  # of the last stage
    projection_dim: Width = 512
    projection_hidden_act: Activation = "relu"

    def __post_init__(self) -> None:
        last = len(self.depths) - 1
        if not self.flatten_patch_embeds:
            raise ValueError("flatten_patch_embeds must be true")
        if self.fusion_type == "channel_map" and self.enable_fusion:
            raise ValueError("fusion_type 'channel_map'; known is aff_2d")
        if len(self.num_attention_heads) != len(self.depths):
            raise ValueError(f"depths {self.depths} with heads {self.num_attention_heads}")
        for stage, heads in enumerate(self.num_attention_heads):
            if (width := self.patch_embeds_hidden_size * 2**stage) % heads:
                raise ValueError(f"stage {stage} of width {width} with {heads} heads")
        if self.enable_fusion and self.patch_embeds_hidden_size < self.aff_block_r:
            raise ValueError(f"aff_block_r {self.aff_block_r} of {self.patch_embeds_hidden_size} channels")
        for size, stride in zip(self.patch_size, self.patch_stride, strict=True):
            patches = (self.spec_size + 2 * ((size - stride) // 2) - size) // stride + 1
            if stride > size or patches != self.spec_size // stride:
                raise ValueError(f"patches of {size} every {stride} do not fill spec_size {self.spec_size}")
        if self.hidden_size != self.patch_embeds_hidden_size * 2**last:
            raise ValueError(f"hidden_size {self.hidden_size} is not the last of {last + 1} stages' width")
        if self.spec_size < self.num_mel_bins or self.spec_size % self.folds:
            raise ValueError(f"spec_size {self.spec_size} cannot be made of {self.num_mel_bins} mel bins")
        if any(edge % 2**last or edge >> last < self.window_size for edge in self.grid):
            raise ValueError(f"patches of {self.grid} cannot be merged {last} times into windows of {self.window_size}")

    @property
    def folds(self) -> int:
        """Number of consecutive pieces of a spectrogram that are stacked in the square."""
        return self.spec_size // self.num_mel_bins

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches of the first stage in height (frequency) and width (time)."""
        height, width = self.patch_stride
        return self.spec_size // height, self.spec_size // width


def _batch_norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """A batch norm with running statistics and torch's epsilon."""
    return nnx.BatchNorm(channels, use_running_average=True, epsilon=EPSILON, rngs=rngs)


def stretched(x_BCTM: Float[Array, "B C T M"], axis: int, size: int) -> Float[Array, "B C T2 M2"]:
    """Bicubic interpolation along one axis with aligned corners, as torch's `interpolate`. Only enlarges."""
    old_size = x_BCTM.shape[axis]
    # In float32 as in torch: exact positions would visibly move a steep edge.
    exact = np.float32(old_size - 1) / np.float32(size - 1) * np.arange(size, dtype=np.float32)
    before = np.floor(exact)
    fraction, a = exact - before, np.float32(CUBIC_PARAMETER)
    near, far = np.stack([fraction, 1 - fraction]), np.stack([fraction + 1, 2 - fraction])
    near = ((a + 2) * near - (a + 3)) * near * near + 1
    far = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    positions_KT = (before.astype(int) + np.arange(-1, 3)[:, None]).clip(0, old_size - 1)
    weights_KT = np.stack([far[0], near[0], near[1], far[1]])
    taps = (
        jnp.take(x_BCTM, positions_T, axis) * jnp.expand_dims(weights_T, [i for i in range(4) if i != axis])
        for positions_T, weights_T in zip(positions_KT, weights_KT, strict=True)
    )
    return functools.reduce(jnp.add, taps)


class ClapAudioAFFBlock(nnx.Module):
    """Attentional feature fusion (Dai et al. 2021, eq. 3) of two maps of D channels."""

    def __init__(self, config: ClapAudioConfig, *, rngs: nnx.Rngs):
        D = config.patch_embeds_hidden_size
        inner = D // config.aff_block_r

        def attention() -> list[Any]:
            squeezed = [nnx.Conv(D, inner, (1, 1), rngs=rngs), _batch_norm(inner, rngs)]
            return [*squeezed, jax.nn.relu, nnx.Conv(inner, D, (1, 1), rngs=rngs), _batch_norm(D, rngs)]

        self.local_att = nnx.List(attention())
        self.global_att = nnx.List([_mean, *attention()])

    def __call__(
        self, whole_BhwD: Float[Array, "B h w D"], parts_BhwD: Float[Array, "B h w D"]
    ) -> Float[Array, "B h w D"]:
        """Fuses the maps of the whole sound and of its parts."""
        both_BhwD = whole_BhwD + parts_BhwD
        local_BhwD = functools.reduce(lambda x, layer: layer(x), self.local_att, both_BhwD)
        global_B11D = functools.reduce(lambda x, layer: layer(x), self.global_att, both_BhwD)
        weight_BhwD = jax.nn.sigmoid(local_BhwD + global_B11D)
        return 2 * whole_BhwD * weight_BhwD + 2 * parts_BhwD * (1 - weight_BhwD)


def _mean(x_BhwD: Float[Array, "B h w D"]) -> Float[Array, "B 1 1 D"]:
    return x_BhwD.mean(axis=(1, 2), keepdims=True)


class ClapAudioPatchEmbed(nnx.Module):
    """Convolutions from the square to patches, and their fusion."""

    def __init__(self, config: ClapAudioConfig, *, rngs: nnx.Rngs):
        D, (height, width), stride = config.patch_embeds_hidden_size, config.patch_size, config.patch_stride
        padding = tuple(((size - step) // 2,) * 2 for size, step in zip(config.patch_size, stride, strict=True))
        self.proj = nnx.Conv(1, D, (height, width), strides=stride, padding=padding, rngs=rngs)
        self.norm = nnx.LayerNorm(D, epsilon=EPSILON, rngs=rngs) if config.enable_patch_layer_norm else None
        self.fusion_model = ClapAudioAFFBlock(config, rngs=rngs) if config.enable_fusion else None
        wide, wide_stride = (height, width * 3), (stride[0], stride[1] * 3)
        self.mel_conv2d = (
            nnx.Conv(1, D, wide, strides=wide_stride, padding=padding, rngs=rngs) if config.enable_fusion else None
        )

    def __call__(
        self, image_BChw: Float[Array, "B C height width"], is_longer_B: Bool[Array, "B"]
    ) -> Float[Array, "B h w D"]:
        """The patches of the square. With fusion, the patches of longer sounds are fused with those of their three
        parts, which are three times as wide and lie side by side."""
        patches_BhwD = self.proj(image_BChw[:, 0, :, :, None])
        if self.fusion_model and self.mel_conv2d:
            parts = self.mel_conv2d(image_BChw[:, 1:, :, :, None])
            B, C, height, width, D = parts.shape
            parts_BhwD = parts.transpose(0, 2, 1, 3, 4).reshape(B, height, C * width, D)
            missing = patches_BhwD.shape[2] - C * width
            parts_BhwD = jnp.pad(parts_BhwD, ((0, 0), (0, 0), (0, missing), (0, 0)))
            fused_BhwD = self.fusion_model(patches_BhwD, parts_BhwD)
            patches_BhwD = jnp.where(is_longer_B[:, None, None, None], fused_BhwD, patches_BhwD)
        return self.norm(patches_BhwD) if self.norm else patches_BhwD


class ClapAudioSelfAttention(nnx.Module):
    """Multi-head attention with a relative position bias, before its output projection."""

    def __init__(self, config: ClapAudioConfig, D: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.window_size = heads, config.window_size
        self.relative_position_bias_table = nnx.Param(
            nnx.initializers.truncated_normal(0.02)(rngs.params(), ((2 * config.window_size - 1) ** 2, heads))
        )
        self.query = nnx.Linear(D, D, use_bias=config.qkv_bias, rngs=rngs)
        self.key = nnx.Linear(D, D, use_bias=config.qkv_bias, rngs=rngs)
        self.value = nnx.Linear(D, D, use_bias=config.qkv_bias, rngs=rngs)

    def __call__(
        self, hidden_BWLD: Float[Array, "B W L D"], mask_WLL: Float[np.ndarray, "W L L"] | None = None
    ) -> Float[Array, "B W L D"]:
        """Attention within each of W windows of L tokens. mask_WLL: added to the scores of all heads."""
        B, W, L, D = hidden_BWLD.shape
        H, K = self.heads, D // self.heads
        q, k, v = (part(hidden_BWLD).reshape(B, W, L, H, K) for part in (self.query, self.key, self.value))
        bias_HLM = self.relative_position_bias_table[...][relative_position_index(self.window_size)].transpose(2, 0, 1)
        scores_BWHLM = jnp.einsum("bwlhk,bwmhk->bwhlm", q, k) / K**0.5 + bias_HLM[None, None]
        if mask_WLL is not None:
            scores_BWHLM += mask_WLL[None, :, None]
        return jnp.einsum("bwhlm,bwmhk->bwlhk", jax.nn.softmax(scores_BWHLM, axis=-1), v).reshape(B, W, L, D)


def relative_position_index(window: int) -> np.ndarray:
    """The row of the bias table for each pair of tokens of a window [L, L], by their offset."""
    positions_L2 = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij"), axis=-1).reshape(-1, 2)
    offset_LL2 = positions_L2[:, None] - positions_L2[None] + window - 1
    return offset_LL2 @ np.array([2 * window - 1, 1])


class ClapAudioAttention(nnx.Module):
    """Attention within windows, and its output projection."""

    def __init__(self, config: ClapAudioConfig, D: int, heads: int, *, rngs: nnx.Rngs):
        self.self = ClapAudioSelfAttention(config, D, heads, rngs=rngs)
        self.output = Dense(D, D, rngs=rngs)

    def __call__(
        self, hidden_BWLD: Float[Array, "B W L D"], mask_WLL: Float[np.ndarray, "W L L"] | None = None
    ) -> Float[Array, "B W L D"]:
        """See `ClapAudioSelfAttention`."""
        return self.output(self.self(hidden_BWLD, mask_WLL))


class ClapAudioLayer(nnx.Module):
    """A Swin block: attention within windows, shifted in every second block, and an MLP, both pre-norm."""

    def __init__(
        self, config: ClapAudioConfig, D: int, grid: tuple[int, int], heads: int, is_shifted: bool, *, rngs: nnx.Rngs
    ):
        # A grid of one window needs no shift.
        self.window_size = config.window_size
        self.shift_size = config.window_size // 2 if is_shifted and min(grid) > config.window_size else 0
        F = int(config.mlp_ratio * D)
        self.layernorm_before = nnx.LayerNorm(D, epsilon=config.layer_norm_eps, rngs=rngs)
        self.attention = ClapAudioAttention(config, D, heads, rngs=rngs)
        self.layernorm_after = nnx.LayerNorm(D, epsilon=config.layer_norm_eps, rngs=rngs)
        self.intermediate = Dense(D, F, ACTIVATIONS[config.hidden_act], rngs=rngs)
        self.output = Dense(F, D, rngs=rngs)

    def __call__(self, hidden_BhwD: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        """Transforms a grid of tokens."""
        _, height, width, _ = hidden_BhwD.shape
        window, shift = self.window_size, self.shift_size
        normed = self.layernorm_before(hidden_BhwD)
        padded = height + -height % window, width + -width % window
        normed = jnp.pad(normed, ((0, 0), (0, padded[0] - height), (0, padded[1] - width), (0, 0)))
        shifted = jnp.roll(normed, (-shift, -shift), axis=(1, 2)) if shift else normed
        mask_WLL = shift_mask(padded, window, shift) if shift else None
        attended = merge_windows(self.attention(split_windows(shifted, window), mask_WLL), window, padded)
        unshifted = jnp.roll(attended, (shift, shift), axis=(1, 2)) if shift else attended
        hidden_BhwD = hidden_BhwD + unshifted[:, :height, :width]
        return hidden_BhwD + self.output(self.intermediate(self.layernorm_after(hidden_BhwD)))


def split_windows(x_BhwD: Float[Array, "B h w D"], window: int) -> Float[Array, "B W L D"]:
    """Splits a grid into W windows of L = window² tokens."""
    B, height, width, D = x_BhwD.shape
    x = x_BhwD.reshape(B, height // window, window, width // window, window, D)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(B, -1, window * window, D)


def merge_windows(x_BWLD: Float[Array, "B W L D"], window: int, grid: tuple[int, int]) -> Float[Array, "B h w D"]:
    """Merges windows into a grid of (height, width) tokens: the inverse of `split_windows`."""
    B, _, _, D = x_BWLD.shape
    height, width = grid
    x = x_BWLD.reshape(B, height // window, width // window, window, window, D)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(B, height, width, D)


def shift_mask(grid: tuple[int, int], window: int, shift: int) -> Float[np.ndarray, "W L L"]:
    """Added to scores after a cyclic shift, so that tokens from opposite edges do not attend to each other (Liu et al.
    2021, section 3.2)."""

    def regions(size: int) -> np.ndarray:
        positions = np.arange(size)
        return (positions >= size - window).astype(int) + (positions >= size - shift)

    height, width = grid
    regions_hw = 3 * regions(height)[:, None] + regions(width)[None]
    cut = regions_hw.reshape(height // window, window, width // window, window).swapaxes(1, 2)
    regions_WL = cut.reshape(-1, window * window)
    return np.where(regions_WL[:, :, None] == regions_WL[:, None], 0, MASKED).astype(np.float32)


class ClapAudioPatchMerging(nnx.Module):
    """Halves the edges of a grid and doubles its channels."""

    def __init__(self, D: int, *, rngs: nnx.Rngs):
        self.reduction = nnx.Linear(4 * D, 2 * D, use_bias=False, rngs=rngs)
        self.norm = nnx.LayerNorm(4 * D, epsilon=EPSILON, rngs=rngs)

    def __call__(self, hidden_BhwD: Float[Array, "B h w D"]) -> Float[Array, "B h2 w2 D2"]:
        """Merges each square of four tokens, taken column by column from the top, into one token."""
        B, height, width, D = hidden_BhwD.shape
        squares = hidden_BhwD.reshape(B, height // 2, 2, width // 2, 2, D).transpose(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(squares.reshape(B, height // 2, width // 2, 4 * D)))


class ClapAudioStage(nnx.Module):
    """The blocks of one resolution, and the patch merging after them."""

    def __init__(self, config: ClapAudioConfig, stage: int, *, rngs: nnx.Rngs):
        D = config.patch_embeds_hidden_size * 2**stage
        height, width = config.grid
        grid, heads = (height // 2**stage, width // 2**stage), config.num_attention_heads[stage]
        self.blocks = nnx.List(
            [ClapAudioLayer(config, D, grid, heads, bool(i % 2), rngs=rngs) for i in range(config.depths[stage])]
        )
        is_last = stage == len(config.depths) - 1
        self.downsample = None if is_last else ClapAudioPatchMerging(D, rngs=rngs)

    def __call__(self, hidden_BhwD: Float[Array, "B h w D"]) -> Float[Array, "B h2 w2 D2"]:
        """Transforms a grid of tokens and merges it, except in the last stage."""
        for block in self.blocks:
            hidden_BhwD = block(hidden_BhwD)
        return self.downsample(hidden_BhwD) if self.downsample else hidden_BhwD


class ClapAudioEncoder(nnx.Module):
    """Maps each spectrogram to one state."""

    def __init__(self, config: ClapAudioConfig, *, rngs: nnx.Rngs):
        self.spec_size, self.folds = config.spec_size, config.folds
        self.batch_norm = _batch_norm(config.num_mel_bins, rngs)
        self.patch_embed = ClapAudioPatchEmbed(config, rngs=rngs)
        self.layers = nnx.List([ClapAudioStage(config, stage, rngs=rngs) for stage in range(len(config.depths))])
        self.norm = nnx.LayerNorm(config.hidden_size, epsilon=EPSILON, rngs=rngs)

    def reshape_mel2img(self, mel_BCTM: Float[Array, "B C T M"]) -> Float[Array, "B C height width"]:
        """Stretches a spectrogram to folds·edge frames of edge/folds bins, cuts it in time and stacks the pieces."""
        frames, bins = self.spec_size * self.folds, self.spec_size // self.folds
        if mel_BCTM.shape[2] < frames:
            mel_BCTM = stretched(mel_BCTM, 2, frames)
        if mel_BCTM.shape[3] < bins:
            mel_BCTM = stretched(mel_BCTM, 3, bins)
        B, C, _, _ = mel_BCTM.shape
        pieces = mel_BCTM.reshape(B, C, self.folds, frames // self.folds, bins).swapaxes(3, 4)
        return pieces.reshape(B, C, self.folds * bins, -1)

    def __call__(self, mels: Mels) -> Float[Array, "B D"]:
        """The mean of the last stage's normalised tokens, which equals HTSAT's pooling over frequency, then time."""
        image_BChw = self.reshape_mel2img(self.batch_norm(jnp.asarray(mels.mel_BCTM)))
        hidden = self.patch_embed(image_BChw, jnp.asarray(mels.is_longer_B))
        for layer in self.layers:
            hidden = layer(hidden)
        return self.norm(hidden).mean(axis=(1, 2))


class ClapAudioModel(nnx.Module):
    """Hugging Face's wrapper around the encoder."""

    def __init__(self, config: ClapAudioConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.audio_encoder = ClapAudioEncoder(config, rngs=rngs)

    def __call__(self, mels: Mels) -> Float[Array, "B D"]:
        """See `ClapAudioEncoder`."""
        return self.audio_encoder(mels)


class ClapProjectionLayer(nnx.Module):
    """A tower's projection into the joint space of width E. config: a ClapAudioConfig or ClapTextConfig."""

    def __init__(self, config: Any, *, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[config.projection_hidden_act]
        self.linear1 = nnx.Linear(config.hidden_size, config.projection_dim, rngs=rngs)
        self.linear2 = nnx.Linear(config.projection_dim, config.projection_dim, rngs=rngs)

    def __call__(self, pooled: Float[Array, "*rows D"]) -> Float[Array, "*rows E"]:
        """Projects pooled states."""
        return self.linear2(self.activation(self.linear1(pooled)))


class ClapAudioModelWithProjection(nnx.Module):
    """The audio tower and its projection into the joint space of width E = `projection_dim`."""

    def __init__(self, config: ClapAudioConfig, *, rngs: nnx.Rngs):
        self.audio_model = ClapAudioModel(config, rngs=rngs)
        self.audio_projection = ClapProjectionLayer(config, rngs=rngs)

    def encode_audio(self, mels: Mels) -> Float[Array, "B E"]:
        """Audio projections before L2 normalisation."""
        return self.audio_projection(self.audio_model(mels))
