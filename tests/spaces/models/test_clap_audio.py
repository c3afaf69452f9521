"""CLAP's audio tower against transformers' torch classes: submodules and the whole, with random tensors."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from bench.checkpoints import quiet, randomise
from c2c_jax.errors import CheckpointError
from c2c_jax.spaces.models.clap_audio import Mels, shift_mask, split_windows, stretched
from c2c_jax.spaces.space import Space, load_space
from c2c_jax.spaces.weights.clap import AUDIO_TABLE
from c2c_jax.spaces.weights.rules import unfill

TOLERANCE = dict(atol=1e-5, rtol=0)
TINY = dict(
    spec_size=64, num_mel_bins=16, window_size=4, depths=[2, 1], num_attention_heads=[2, 4],
    patch_embeds_hidden_size=16, hidden_size=32, projection_dim=24,
)  # fmt: skip
KINDS = {
    "unfused": TINY,
    "fused": TINY | dict(enable_fusion=True, fusion_type="aff_2d", aff_block_r=2),
    # Overlapping patches, more bins than mel bins, windows that do not fill the grid, and other unusual sizes.
    "other": TINY | dict(
        spec_size=80, num_mel_bins=38, patch_size=[6, 8], patch_stride=[4, 4], qkv_bias=False,
        enable_patch_layer_norm=False, mlp_ratio=2.5, hidden_act="relu", projection_hidden_act="gelu",
        layer_norm_eps=1e-2, enable_fusion=True,
    ),
}  # fmt: skip
FRAMES = {"unfused": 250, "fused": 250, "other": 160}  # the square takes 256, and 160
QUICKLY = {"xla_backend_optimization_level": 0}
LONGER = np.array([True, False, True, False])


def build(folder: Path, frames: int, seed: int = 0, **sizes) -> transformers.ClapAudioModelWithProjection:
    """Writes a random tower and a preprocessor with this many frames; returns transformers' model of it."""
    model = transformers.ClapAudioModelWithProjection(transformers.ClapAudioConfig(**sizes))
    randomise(model, ((r"query|key|bias_table", 2.0),), torch.Generator().manual_seed(seed))
    recipe = dict(
        feature_size=model.config.num_mel_bins, sampling_rate=frames - 1, hop_length=1, max_length_s=1,
        fft_window_size=8, frequency_max=frames // 2 - 1,
        truncation="fusion" if model.config.enable_fusion else "rand_trunc",
    )  # fmt: skip
    with quiet():
        model.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(recipe))
        return transformers.ClapAudioModelWithProjection.from_pretrained(folder).eval()


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def space_and_oracle(kind: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Space, torch.nn.Module]:
    folder = tmp_path_factory.mktemp(kind)
    oracle = build(folder, FRAMES[kind], **KINDS[kind])
    return load_space(str(folder)), oracle


@pytest.fixture(scope="module")
def encoders(space_and_oracle) -> tuple[nnx.Module, torch.nn.Module]:
    space, oracle = space_and_oracle
    return space.model.audio_model.audio_encoder, oracle.audio_model.audio_encoder


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def mels_of(kind: str, frames: int = 0) -> Mels:
    channels = 4 if KINDS[kind].get("enable_fusion") else 1
    spectrograms = random(4, channels, frames or FRAMES[kind], KINDS[kind]["num_mel_bins"]) * 20 - 30
    return Mels(spectrograms, LONGER & (channels == 4))


@torch.no_grad()
def audio_vectors(oracle: torch.nn.Module, mels: Mels) -> np.ndarray:
    spectrograms, longer = (torch.from_numpy(np.asarray(x)) for x in mels)
    return oracle(input_features=spectrograms, is_longer=longer[:, None]).audio_embeds.numpy()


@torch.no_grad()
def apply(module: torch.nn.Module, *inputs: np.ndarray) -> np.ndarray:
    outputs = module(*(torch.from_numpy(x) for x in inputs))
    return (outputs[0] if isinstance(outputs, tuple) else outputs).numpy()


@pytest.mark.parametrize(("frames", "size"), [(1001, 1024), (250, 256), (129, 256), (255, 256), (2, 9)])
def test_bicubic_equals_torch(frames, size):
    x = random(2, 1, frames, 3)
    expected = torch.nn.functional.interpolate(torch.from_numpy(x), (size, 3), mode="bicubic", align_corners=True)
    np.testing.assert_allclose(stretched(jnp.asarray(x), 2, size), expected.numpy(), **TOLERANCE)
    other_axis = stretched(jnp.asarray(x.swapaxes(2, 3)), 3, size)
    np.testing.assert_allclose(other_axis, expected.numpy().swapaxes(2, 3), **TOLERANCE)


@pytest.mark.parametrize("kind", ["unfused", "other"], indirect=True)
def test_the_square(kind, encoders):
    ours, oracle = encoders
    normed = random(*mels_of(kind).mel_BCTM.shape)
    expected = apply(oracle.reshape_mel2img, normed)
    np.testing.assert_allclose(ours.reshape_mel2img(jnp.asarray(normed)), expected, **TOLERANCE)


@pytest.mark.parametrize("kind", ["unfused"], indirect=True)
def test_batch_norm_over_mel_bins(kind, encoders):
    ours, oracle = encoders
    x = random(*mels_of(kind).mel_BCTM.shape)
    expected = apply(oracle.batch_norm, x.swapaxes(1, 3)).swapaxes(1, 3)
    np.testing.assert_allclose(ours.batch_norm(jnp.asarray(x)), expected, **TOLERANCE)


def test_patches(kind, encoders):
    """With fusion, only those of longer sounds are fused."""
    ours, oracle = encoders
    mels = mels_of(kind)
    image = random(4, mels.mel_BCTM.shape[1], *(KINDS[kind]["spec_size"],) * 2)
    with torch.no_grad():
        expected = oracle.patch_embed(torch.from_numpy(image), torch.from_numpy(np.flatnonzero(mels.is_longer_B)))
    found = np.asarray(ours.patch_embed(jnp.asarray(image), jnp.asarray(mels.is_longer_B)))
    np.testing.assert_allclose(found.reshape(expected.shape), expected.numpy(), **TOLERANCE)
    others = np.asarray(ours.patch_embed(jnp.asarray(image), jnp.asarray(~mels.is_longer_B)))
    assert (np.abs(others - found).max(axis=(1, 2, 3)) > 0.1).all() == (kind != "unfused")


@pytest.mark.parametrize("kind", ["fused"], indirect=True)
def test_attentional_fusion(kind, encoders):
    ours, oracle = encoders
    whole, parts = random(2, 5, 7, 16), random(2, 5, 7, 16)[::-1].copy()
    expected = apply(oracle.patch_embed.fusion_model, whole.transpose(0, 3, 1, 2), parts.transpose(0, 3, 1, 2))
    found = np.asarray(ours.patch_embed.fusion_model(jnp.asarray(whole), jnp.asarray(parts)))
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), expected, **TOLERANCE)


@pytest.mark.parametrize("kind", ["unfused"], indirect=True)
@pytest.mark.parametrize("is_shifted", [False, True])
def test_attention_in_windows(kind, encoders, is_shifted):
    ours, oracle = encoders
    block = oracle.layers[0].blocks[1]
    hidden = random(2, 16, 16, 16)  # 4 x 4 windows
    mask = block.get_attn_mask(16, 16, torch.float32, "cpu")
    windows = np.array(split_windows(jnp.asarray(hidden), 4))
    expected = apply(lambda x: block.attention(x, mask if is_shifted else None), windows.reshape(32, 16, 16))
    found = ours.layers[0].blocks[1].attention(jnp.asarray(windows), shift_mask((16, 16), 4, 2) if is_shifted else None)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, **TOLERANCE)
    np.testing.assert_array_equal(shift_mask((16, 16), 4, 2), mask.numpy())


@pytest.mark.parametrize(
    ("kind", "stage", "number"),
    [("unfused", 0, 0), ("unfused", 0, 1), ("unfused", 1, 0), ("other", 0, 1), ("other", 1, 0)],
    indirect=["kind"],
)
def test_block(kind, encoders, stage, number):
    """The second block is shifted. In "other", windows of the second stage extend beyond the grid."""
    ours, oracle = encoders
    edge, D = KINDS[kind]["spec_size"] // 4 // 2**stage, 16 * 2**stage
    hidden = random(2, edge, edge, D)
    block = oracle.layers[stage].blocks[number]
    expected = apply(lambda x: block(x, (edge, edge)), hidden.reshape(2, -1, D))
    found = ours.layers[stage].blocks[number](jnp.asarray(hidden))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, **TOLERANCE)


@pytest.mark.parametrize("kind", ["unfused"], indirect=True)
def test_patch_merging(kind, encoders):
    ours, oracle = encoders
    hidden = random(2, 6, 4, 16)
    expected = apply(lambda x: oracle.layers[0].downsample(x, (6, 4)), hidden.reshape(2, 24, 16))
    found = ours.layers[0].downsample(jnp.asarray(hidden))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, **TOLERANCE)


@pytest.mark.parametrize("kind", ["unfused", "other"], indirect=True)
def test_projection(kind, space_and_oracle):
    space, oracle = space_and_oracle
    x = random(3, 32)
    np.testing.assert_allclose(
        space.model.audio_projection(jnp.asarray(x)), apply(oracle.audio_projection, x), **TOLERANCE
    )


def test_whole(kind, space_and_oracle):
    space, oracle = space_and_oracle
    mels = mels_of(kind)
    expected = audio_vectors(oracle, mels)
    np.testing.assert_allclose(space.encode_mels(mels, batch_size=3), expected, **TOLERANCE)
    assert np.ptp(expected, axis=0).max() > 0.1


@pytest.mark.parametrize("kind", ["fused"], indirect=True)
def test_gradients_equal_torch(kind, space_and_oracle):
    """For every parameter. Batch statistics have no gradients and do not change."""
    space, oracle = space_and_oracle
    mels, weights = mels_of(kind), random(4, 24)
    oracle.zero_grad()
    vectors = oracle(torch.from_numpy(mels.mel_BCTM), torch.from_numpy(mels.is_longer_B)[:, None]).audio_embeds
    (vectors * torch.from_numpy(weights)).sum().backward()
    graphdef, parameters, statistics = nnx.split(space.model, nnx.Param, nnx.BatchStat)

    def loss(parameters):
        return (nnx.merge(graphdef, parameters, statistics).encode_audio(Mels(*map(jnp.asarray, mels))) * weights).sum()

    found = nnx.merge(graphdef, jax.jit(jax.grad(loss), compiler_options=QUICKLY)(parameters), statistics)
    named = unfill(found, AUDIO_TABLE, space.model.audio_model.config)
    for name, parameter in oracle.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        np.testing.assert_allclose(named[name], parameter.grad.numpy(), atol=1e-4, rtol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "clips"),
    [
        (dict(enable_fusion=True, fusion_type="aff_2d"), 2),
        (dict(patch_embeds_hidden_size=128, depths=[2, 2, 12, 2], hidden_size=1024), 1),
    ],
    ids=["tiny-fused", "base"],
)
def test_published_size(tmp_path, sizes, clips):
    """HTSAT-tiny of laion/clap-htsat-fused and HTSAT-base of laion/larger_clap_general, whole, on unit vectors."""
    oracle = build(tmp_path, 1001, **sizes)
    space = load_space(str(tmp_path))
    channels = 4 if oracle.config.enable_fusion else 1
    mels = Mels(random(clips, channels, 1001, 64) * 20 - 30, LONGER[:clips] & (channels == 4))
    expected = audio_vectors(oracle, mels)
    graphdef, state = nnx.split(space.model)  # as arguments: constants would compile slowly
    encode = jax.jit(lambda state, mels: nnx.merge(graphdef, state).encode_audio(mels), compiler_options=QUICKLY)
    found = np.asarray(encode(state, Mels(*map(jnp.asarray, mels))))
    expected, found = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (expected, found))
    assert found.shape == (clips, 512)
    np.testing.assert_allclose(found, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        (dict(hidden_size=48), "hidden_size 48"),
        (dict(num_attention_heads=[2]), "heads"),
        (dict(window_size=16), "windows of 16"),
        (dict(spec_size=72, num_mel_bins=14), "14 mel bins"),
        (dict(enable_fusion=True, fusion_type="channel_map"), "channel_map"),
        (dict(patch_embed_input_channels=2), "patch_embed_input_channels"),
        (dict(hidden_act="swish"), "swish"),
        (dict(projection_hidden_act="swish"), "swish"),
    ],
)
def test_invalid_configs(tmp_path, invalid, message):
    with quiet():
        transformers.ClapAudioModelWithProjection(transformers.ClapAudioConfig(**TINY)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | invalid))
    with pytest.raises(CheckpointError, match=message):
        load_space(str(tmp_path))


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        (dict(truncation="fusion"), "makes 4 spectrograms"),
        (dict(feature_size=8), "of 8 mel bins"),
        (dict(sampling_rate=256), "257 frames"),
    ],
)
def test_preprocessors_of_another_tower(tmp_path, invalid, message):
    build(tmp_path, 250, **TINY)
    recipe = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(recipe | invalid))
    with pytest.raises(CheckpointError, match=message):
        load_space(str(tmp_path))
