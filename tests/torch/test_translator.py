"""The torch twin against the Flax translator, through a bundle on disk."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from c2c_jax.models.translator import TranslatorSpec, build_translator
from c2c_jax.spaces import SpaceId
from c2c_jax.torch import Translator
from c2c_jax.weights.translator import Bundle, load_bundle, save_bundle

SPECS = [
    TranslatorSpec(kind="mlp", source_dim=24, target_dim=16, width=32, depth=4, clamp=0.2, input_norm="none"),
    TranslatorSpec(kind="mlp", source_dim=512, target_dim=512, width=512, depth=4, clamp=0.0, input_norm="unit"),
    TranslatorSpec(kind="mlp", source_dim=12, target_dim=20, width=7, depth=1, clamp=0.0, input_norm="unit"),
]


@pytest.mark.parametrize("spec", SPECS)
def test_twin_equals_flax(tmp_path, spec):
    translator = build_translator(spec, rngs=nnx.Rngs(0))
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


def test_twin_imports_no_jax():
    code = (
        "import sys; sys.modules['jax'] = sys.modules['flax'] = None\n"
        "import c2c_jax.torch\nassert not any(name.startswith('jaxlib') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
