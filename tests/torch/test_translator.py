"""The torch twin against the Flax translator, through a bundle on disk; both against torch's own layers."""

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from c2c_jax.models.translator import DEPTHS, KINDS, TranslatorSpec, build_translator
from c2c_jax.spaces import SpaceId
from c2c_jax.torch import Translator
from c2c_jax.torch.translator import EncoderLayer
from c2c_jax.weights.translator import Bundle, load_bundle, save_bundle


def spec(kind: str, source_dim: int = 24, target_dim: int = 16, **fields: Any) -> TranslatorSpec:
    defaults = dict(width=32, depth=DEPTHS[kind], heads=4, mlp_width=20, dropout=0.1, clamp=0.0, input_norm="unit")
    return TranslatorSpec(kind=kind, source_dim=source_dim, target_dim=target_dim, **{**defaults, **fields})


SPECS = [
    *[spec(kind) for kind in KINDS],
    *[spec(kind, 20, 20, input_norm="none", depth=3) for kind in ("transformer", "residual", "mlp_layernorm")],
    spec("mlp", 512, 512, width=512),
    spec("mlp", clamp=0.2, input_norm="none"),
    spec("mlp5", 12, 20, width=7, clamp=0.25),
]


@pytest.mark.parametrize("spec", SPECS)
def test_twin_equals_flax(tmp_path, spec):
    graphdef, params = nnx.split(build_translator(spec, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(1)  # every tensor random: those that start at zero, one or identity too
    params = jax.tree.map(lambda x: x + jnp.asarray(0.1 * rng.normal(size=x.shape), jnp.float32), params)
    translator = nnx.merge(graphdef, params)
    spaces = [SpaceId(name=name, dim=1, fingerprint=name) for name in ("source", "target")]
    bundle = Bundle(translator=translator, spec=spec, source=spaces[0], target=spaces[1], recipe={}, metrics={})
    save_bundle(tmp_path / "bundle", bundle)
    source = 5 * np.random.default_rng(0).normal(size=(9, spec.source_dim)).astype(np.float32)
    twin = Translator.from_pretrained(tmp_path / "bundle")
    with torch.no_grad():
        expected = twin(torch.from_numpy(source)).numpy()
    assert expected.std() > 0.01
    for ours in (translator, load_bundle(tmp_path / "bundle").translator):
        np.testing.assert_allclose(ours(jnp.asarray(source)), expected, atol=1e-5, rtol=0)


def test_encoder_layer_is_torchs_own():
    """torch.nn.TransformerEncoderLayer with its defaults, over the coordinates (`batch_first`)."""
    oracle = torch.nn.TransformerEncoderLayer(32, 4, 20, batch_first=True).eval()
    twin = EncoderLayer(32, 4, 20).eval()
    tensors = dict(oracle.state_dict())
    in_weight, in_bias = tensors.pop("self_attn.in_proj_weight"), tensors.pop("self_attn.in_proj_bias")
    for name, weight, bias in zip("qkv", in_weight.chunk(3), in_bias.chunk(3), strict=True):
        tensors |= {f"{name}_proj.weight": weight, f"{name}_proj.bias": bias}
    twin.load_state_dict({name.removeprefix("self_attn."): tensor for name, tensor in tensors.items()})
    hidden = torch.randn(3, 9, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(twin(hidden), oracle(hidden), atol=1e-5, rtol=0)


def test_dropout_only_where_there_is_randomness():
    translator = build_translator(spec("transformer", 8, 8, depth=1), rngs=nnx.Rngs(0))
    source = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8)), jnp.float32)
    plain = translator(source)
    first, second = (translator(source, rngs=nnx.Rngs(dropout=seed)) for seed in (1, 2))
    assert not np.allclose(plain, first) and not np.allclose(first, second)
    np.testing.assert_array_equal(first, translator(source, rngs=nnx.Rngs(dropout=1)))


def test_residual_begins_as_the_identity():
    """A unit vector in, the same vector out, whatever the input normalisation."""
    source = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    source /= np.linalg.norm(source, axis=1, keepdims=True)
    for input_norm in ("unit", "none"):
        translator = build_translator(spec("residual", 8, 8, input_norm=input_norm), rngs=nnx.Rngs(0))
        np.testing.assert_allclose(translator(jnp.asarray(source)), source, atol=1e-6, rtol=0)


def test_twin_imports_no_jax():
    code = (
        "import sys; sys.modules['jax'] = sys.modules['flax'] = None\n"
        "import c2c_jax.torch\nassert not any(name.startswith('jaxlib') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
