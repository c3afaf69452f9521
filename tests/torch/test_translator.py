"""The torch translator against the Flax translator, through a bundle on disk, and against torch's own layers."""

import json
import os
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from flax import nnx

from c2c_jax.errors import BundleError, BundleNotFoundError
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.torch import Translator
from c2c_jax.torch.translator import EncoderLayer
from c2c_jax.translator.bundle import Bundle, load_bundle, save_bundle
from c2c_jax.translator.kinds import KINDS, TranslatorSpec, build_translator
from tests.fixtures.programs import ROOT


def spec(kind: str, source_dim: int = 24, target_dim: int = 16, **fields: Any) -> TranslatorSpec:
    defaults = dict(width=32, heads=4, mlp_width=20, dropout=0.1, clamp=0.0, input_norm="unit")
    return TranslatorSpec.from_json(
        dict(kind=kind, source_dim=source_dim, target_dim=target_dim, **{**defaults, **fields})
    )


SPECS = [
    *[spec(kind) for kind in KINDS],
    *[spec(kind, 20, 20, input_norm="none", depth=3) for kind in ("transformer", "residual", "mlp_layernorm")],
    *[spec(kind, 512, 512, width=512) for kind in KINDS if kind != "transformer"],
    *[spec(kind, 1024, 768, width=40) for kind in ("mlp5", "residual", "ridge")],
    spec("transformer", 512, 512, width=96, heads=8, mlp_width=96, depth=2),
    spec("transformer", 16, 16, width=8, mlp_width=8, input_norm="none", linear_first=True),
    spec("mlp", clamp=0.2, input_norm="none"),
    spec("mlp5", 12, 20, width=7, clamp=0.25),
]


def random_bundle(spec: TranslatorSpec, **fields: Any) -> Bundle:
    """A bundle in which all tensors are random, also those that start at zero, one or identity."""
    graphdef, params = nnx.split(build_translator(spec, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + jnp.asarray(_spread(x) * rng.normal(size=x.shape), jnp.float32), params)
    dims = {"source": spec.source_dim, "target": spec.target_dim}
    spaces = {role: SpaceId(name=role, dim=dim, fingerprint=role) for role, dim in dims.items()}
    return Bundle(
        **{"translator": nnx.merge(graphdef, params), "spec": spec, **spaces, "recipe": {}, "metrics": {}, **fields}
    )


def _spread(x: Any) -> float:
    """Scale of the noise, which keeps the states of wide layers bounded."""
    return 0.5 / x.shape[0] ** 0.5 if x.ndim == 2 else 0.1


@pytest.mark.parametrize("spec", SPECS)
def test_torch_equals_flax(tmp_path, spec):
    bundle = random_bundle(spec)
    save_bundle(tmp_path / "bundle", bundle)
    source = 5 * np.random.default_rng(0).normal(size=(9, spec.source_dim)).astype(np.float32)
    twin = Translator.from_pretrained(tmp_path / "bundle")
    with torch.no_grad():
        expected = twin(torch.from_numpy(source)).numpy()
        np.testing.assert_array_equal(twin.from_image(torch.from_numpy(source)), expected)  # no means are known
    assert expected.std() > 0.01
    for ours in (bundle.translator, load_bundle(tmp_path / "bundle").translator):
        np.testing.assert_allclose(ours(jnp.asarray(source)), expected, atol=1e-5, rtol=0)


def test_encoder_layer_equals_torch():
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


def test_dropout_only_with_rngs():
    translator = build_translator(spec("transformer", 8, 8, depth=1), rngs=nnx.Rngs(0))
    source = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8)), jnp.float32)
    plain = translator(source)
    first, second = (translator(source, rngs=nnx.Rngs(dropout=seed)) for seed in (1, 2))
    assert not np.allclose(plain, first) and not np.allclose(first, second)
    np.testing.assert_array_equal(first, translator(source, rngs=nnx.Rngs(dropout=1)))


def test_residual_starts_as_identity():
    """For every input normalisation, a unit vector is unchanged."""
    source = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    source /= np.linalg.norm(source, axis=1, keepdims=True)
    for input_norm in ("unit", "none"):
        translator = build_translator(spec("residual", 8, 8, input_norm=input_norm), rngs=nnx.Rngs(0))
        np.testing.assert_allclose(translator(jnp.asarray(source)), source, atol=1e-6, rtol=0)


WITHOUT_JAX = """
import sys
for name in ("jax", "jaxlib", "flax", "optax", "orbax", "tensorstore", "transformers", "diffusers", "rich"):
    sys.modules[name] = None
import torch
from c2c_jax.errors import BundleNotFoundError
from c2c_jax.torch import Translator
for name in ("run", "run/bundle", "miniworld/translator", "me/translator"):
    translator = Translator.from_pretrained(name)
    vectors = translator.from_image(torch.ones(2, translator.source_dim))
    print(translator.kind, tuple(vectors.shape), vectors.isfinite().all().item())
try:
    Translator.from_pretrained("none")
except BundleNotFoundError:
    print("none", sorted(name for name in sys.modules if name.startswith("c2c_jax.") and name.count(".") == 1))
"""


def test_works_without_jax(tmp_path):
    """With a run, a bundle folder, a translator of the package and one in the hub's cache."""
    save_bundle(tmp_path / "run" / "bundle", random_bundle(spec("residual")))
    cache = tmp_path / "hub" / "models--me--translator"
    save_bundle(cache / "snapshots" / ("a" * 40), random_bundle(spec("linear")))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAX], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    *shown, last = done.stdout.splitlines()
    run = "residual (2, 16) True"
    assert shown == [run, run, "residual (2, 64) True", "linear (2, 16) True"], done.stderr
    assert last == "none ['c2c_jax.errors', 'c2c_jax.io', 'c2c_jax.torch', 'c2c_jax.version']"


def test_bundle_in_the_hubs_cache(tmp_path, monkeypatch):
    """A cache as after `hf download me/translator`, with two revisions; the hub is offline."""
    repository = tmp_path / "models--me--translator"
    for commit, seed_kind in (("a" * 40, "mlp"), ("b" * 40, "linear")):
        save_bundle(repository / "snapshots" / commit, random_bundle(spec(seed_kind)))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "refs" / "v1").write_text("b" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert Translator.from_pretrained("me/translator").kind == "mlp"
    assert Translator.from_pretrained("me/translator", revision="v1").kind == "linear"


@pytest.mark.parametrize("name", ["nobody/nothing", "/no/such/folder", "a b c", "miniworld/none"])
def test_missing_bundles(name):
    with pytest.raises(FileNotFoundError, match=f"{name} is neither a local|no checkpoint {name}") as caught:
        Translator.from_pretrained(name)
    assert isinstance(caught.value, BundleNotFoundError) and "\n" not in str(caught.value)


def test_folders_without_bundle(tmp_path):
    save_bundle(tmp_path / "run" / "bundle", random_bundle(spec("linear")))
    with pytest.raises(ValueError, match="no revision 'v1'"):
        Translator.from_pretrained(tmp_path / "run" / "bundle", revision="v1")
    (tmp_path / "run" / "bundle" / "model.safetensors").unlink()
    for folder in (tmp_path / "run", tmp_path / "run" / "bundle"):
        with pytest.raises(FileNotFoundError, match="contains no translator bundle"):
            Translator.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "is of format 9"),
        ({"translator": None}, 'has no object "translator"'),
        ({"translator": {"kind": "zz"}}, "'zz'"),
        ({"translator": {"width": 7}}, "torch.Size([7])"),
        ("{", "cannot be read as JSON"),
        ('{"a": ' + "[" * 100_000, "nested deeper than 64 levels"),
        ('["' + "[" * 100 + '\\"[[["]', "Expected `object`, got `array`"),
        (b"cut short", "is not a whole safetensors file"),
        ({"extra.weight": torch.zeros(2)}, "extra.weight"),
    ],
)
def test_invalid_files(tmp_path, change, message):
    save_bundle(tmp_path, random_bundle(spec("linear2")))
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    if isinstance(change, bytes):
        weights.write_bytes(change)
    elif isinstance(change, str):
        config.write_text(change)
    elif "extra.weight" in change:
        safetensors.torch.save_file({**safetensors.torch.load_file(weights), **change}, weights)
    else:
        content = json.loads(config.read_text())
        if change.get("translator"):
            change = {"translator": {**content["translator"], **change["translator"]}}
        config.write_text(json.dumps({**content, **change}))
    with pytest.raises(BundleError, match=re.escape(message)) as caught:
        Translator.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)
