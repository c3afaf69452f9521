"""Damaged bundles: the Flax loader and the torch translator refuse them with one line."""

import copy
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch

from c2c_jax.errors import C2CError, ConfigError
from c2c_jax.io.resolve import EMBEDDED
from c2c_jax.publishing.card import model_card
from c2c_jax.torch import Translator
from c2c_jax.torch import translator as twins_file
from c2c_jax.translator.bundle import Choice, load_bundle, read_metrics, save_bundle
from c2c_jax.translator.centring import ModalityMeans, translate_text
from c2c_jax.translator.kinds import TranslatorSpec
from tests.torch.test_translator import random_bundle, spec

SOURCE = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
HUGE = 10**9


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for name in ("config.json", "model.safetensors"):  # without the README
        (tmp_path / name).write_bytes((EMBEDDED / "translator" / name).read_bytes())
    return tmp_path


def edit(folder: Path, *keys: str, value: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    part = content
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    (folder / "config.json").write_text(json.dumps(content))


def refusal(folder: Path) -> str:
    with pytest.raises(C2CError) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000 and str(folder) in str(caught.value)
    return str(caught.value)


def twin_refusal(folder: Path) -> str:
    with pytest.raises(ValueError) as caught:
        Translator.from_pretrained(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000 and str(folder) in str(caught.value)
    return str(caught.value)


SIZES = [HUGE, 10**30, 0, -1, "x", None, [], {}, True, 1.5]


@pytest.mark.parametrize("field", ["source_dim", "target_dim", "width", "depth"])
@pytest.mark.parametrize("value", SIZES)
def test_invalid_sizes(bundle, field, value):
    edit(bundle, "translator", field, value=value)
    assert field in refusal(bundle)
    assert field in twin_refusal(bundle)


@pytest.mark.parametrize(
    ("field", "value"),
    [*((field, value) for field in ("heads", "mlp_width") for value in SIZES), ("dropout", -1), ("linear_first", 1)],
)
def test_invalid_transformer_settings(field, value):
    shared = {"kind": "transformer", "source_dim": 8, "target_dim": 8, "clamp": 0.0, "input_norm": "unit"}
    with pytest.raises(ConfigError, match=rf"translator\.{field} is "):
        TranslatorSpec.from_json({**shared, field: value})


@pytest.mark.parametrize(("field", "value"), [("depth", 100), ("width", 24_000), ("target_dim", 60_000)])
def test_sizes_that_do_not_fit_the_weights(bundle, field, value):
    edit(bundle, "translator", field, value=value)
    message = refusal(bundle)
    assert any(words in message for words in ("different models", "expected finite float32", "it must be at most"))
    message = twin_refusal(bundle)
    assert any(words in message for words in ("depth", "size mismatch", "has shape"))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("translator", "kind"), {}), (("translator", "kind"), "x"), (("translator", "input_norm"), []),
        (("translator", "clamp"), "x"),
        (("translator",), None), (("translator",), []), (("memory", "weight"), []), (("memory", "temperature"), 0),
        (("memory",), {}), (("memory",), 5), (("format",), [2]), (("format",), None), (("format",), 3),
    ],
    ids=str,
)  # fmt: skip
def test_fields_checked_by_both_readers(bundle, keys, value):
    edit(bundle, *keys, value=value)
    refusal(bundle)
    twin_refusal(bundle)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("metrics", "held_out"), "x"), (("metrics", "recall@5"), []), (("metrics", "recall@5"), None),
        (("metrics", "step"), 10**40), (("metrics",), []), (("source", "dim"), "64"), (("source", "name"), {}),
        (("source", "fingerprint"), 5), (("source", "fingerprint"), "a" * 10**5), (("target",), "x"), (("recipe",), []),
        (("recipe", "seed"), "x"), (("recipe", "data"), []), (("recipe", "data", "captions"), 5),
        (("recipe", "data", "validation_size"), {}), (("recipe", "objective", "kind"), []),
    ],
    ids=str,
)  # fmt: skip
def test_fields_of_cards_and_reports(bundle, keys, value):
    edit(bundle, *keys, value=value)
    refusal(bundle)
    with pytest.raises(C2CError):
        read_metrics(bundle)
    Translator.from_pretrained(bundle)  # which reads none of it


def test_memory_weight_of_version_0_1(bundle):
    """Its bundles name the weight `share`, as the embedded one does."""
    assert json.loads((bundle / "config.json").read_text())["memory"] == {"share": 0.45, "temperature": 0.01}
    assert load_bundle(bundle).memory.weight == Translator.from_pretrained(bundle).memory.weight == 0.45
    save_bundle(bundle / "new", load_bundle(bundle))
    assert json.loads((bundle / "new/config.json").read_text())["memory"] == {"weight": 0.45, "temperature": 0.01}


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{" * 10**5, b'{"format": ' + b"9" * 5000 + b"}", b"\xff{}"])
def test_invalid_config_files(bundle, content):
    (bundle / "config.json").write_bytes(content)
    refusal(bundle)
    twin_refusal(bundle)


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 99, b"<html>", None]
)
def test_invalid_weight_files(bundle, content):
    path = bundle / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    refusal(bundle)
    twin_refusal(bundle)


def test_weights_that_are_not_finite(bundle):
    tensors = safetensors.numpy.load_file(bundle / "model.safetensors")
    tensors["linear.weight"] = tensors["linear.weight"].copy()
    tensors["linear.weight"][2, 3] = np.nan
    safetensors.numpy.save_file(tensors, bundle / "model.safetensors")
    assert "linear.weight has values that are not finite" in refusal(bundle)
    assert "linear.weight has values that are not finite" in twin_refusal(bundle)


CHOICE = {
    "trained": 0.5, "linear": "rotation", "memory": True, "pair_cosine": 0.32,
    "noisy_mrr": {"trained": 0.4, "rotation": 0.41, "0.5 trained + rotation, memory": 0.43},
}  # fmt: skip


@pytest.fixture
def centred(tmp_path: Path) -> Path:
    """The bundle folder of a random translator of centred vectors."""
    rng, widths = (
        np.random.default_rng(0),
        {"source_text": 24, "source_image": 24, "target_text": 16, "target_audio": 16},
    )
    means = {name: (rng.normal(size=width) / 10).astype(np.float32) for name, width in widths.items()}
    bundle = random_bundle(
        spec("residual", input_norm="centred"), means=ModalityMeans(**means), choice=Choice(**CHOICE)
    )
    save_bundle(tmp_path / "centred", bundle)
    return tmp_path / "centred"


def change(folder: Path, tensors: dict[str, np.ndarray | None]) -> None:
    """Replaces tensors of a bundle, or removes them (None)."""
    changed = {**safetensors.numpy.load_file(folder / "model.safetensors"), **tensors}
    kept = {name: tensor for name, tensor in changed.items() if tensor is not None}
    safetensors.numpy.save_file(kept, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("missing", "message", "twin_message"),
    [
        (["source_text"], "the mean source_image needs", "the mean source_image needs"),
        (["source_text", "source_image"], "needs the captions' means", "has no mean 'source_text'"),
        (["target_text", "target_audio"], "needs the captions' means", "has no mean 'target_text'"),
        (["source_text", "source_image", "target_text", "target_audio"], "needs the captions' means", "no mean"),
    ],
)
def test_centred_translators_without_means(centred, missing, message, twin_message):
    change(centred, {f"gap.{name}": None for name in missing})
    assert message in refusal(centred)
    assert twin_message in twin_refusal(centred)


@pytest.mark.parametrize("name", ["source_text", "source_image", "target_text", "target_audio"])
@pytest.mark.parametrize("length", [1.0, 3.0, 1e15, np.inf, np.nan])
def test_means_too_long_for_unit_vectors(centred, name, length):
    """Only translators of centred vectors need shorter means."""
    mean = np.zeros(24 if "source" in name else 16, np.float32)
    mean[3] = length
    change(centred, {f"gap.{name}": mean})
    message = "has length 1 or more" if length < np.inf else "finite"
    assert message in refusal(centred) and message in twin_refusal(centred)
    if length < np.inf:
        edit(centred, "translator", "input_norm", value="unit")
        load_bundle(centred)
        Translator.from_pretrained(centred)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("name", ["gap.source_text", "linear.weight"])
def test_tensors_of_other_dtypes(centred, name, dtype):
    tensor = safetensors.numpy.load_file(centred / "model.safetensors")[name]
    change(centred, {name: tensor.astype(dtype)})
    assert "expected torch.float32" in twin_refusal(centred)
    if name.startswith("gap"):  # weights are cast
        assert "expected finite float32" in refusal(centred)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ((), []), ((), "trained"), ((), {}), (("trained",), 1.5), (("trained",), -0.1), (("trained",), "half"),
        (("linear",), None), (("linear",), 5), (("memory",), 1), (("memory",), "yes"), (("pair_cosine",), 2),
        (("pair_cosine",), None), (("noisy_mrr",), []), (("noisy_mrr",), {"trained": 1.1}),
        (("noisy_mrr",), {"trained": "high"}), (("noisy_mrr",), {"trained": None}),
        (("noisy_cosine",), {"trained": 0.5}), (("noisy_cosine",), dict.fromkeys(CHOICE["noisy_mrr"], -1.1)),
        (("selected_by",), "recall@1"), (("selected_by",), "noisy_cosine"),
    ],
    ids=str,
)  # fmt: skip
def test_invalid_choices(centred, keys, value):
    edit(centred, "choice", *keys, value=value)
    assert "choice" in refusal(centred)
    with pytest.raises(C2CError):
        read_metrics(centred)
    Translator.from_pretrained(centred)  # which reads none of it


def test_choice_is_read_back(centred):
    loaded = load_bundle(centred).choice
    assert loaded == Choice(**CHOICE)
    assert str(loaded) == "50% trained + 50% rotation, with the caption memory" and loaded.best == 0.43
    cosines = {"trained": -0.5, "rotation": 0.75, "0.5 trained + rotation, memory": 0.25}
    edit(centred, "choice", value=CHOICE | {"noisy_cosine": cosines, "selected_by": "noisy_cosine"})
    assert load_bundle(centred).choice.best == 0.75 and load_bundle(centred).choice.trained_scores == [-0.5]
    edit(centred, "choice", value=None)
    assert load_bundle(centred).choice is None
    content = json.loads((centred / "config.json").read_text())
    del content["choice"]  # as older bundles have none
    (centred / "config.json").write_text(json.dumps(content))
    assert load_bundle(centred).choice is None


def fields(content: dict[str, Any], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        yield (*parents, key)
        if isinstance(value, dict):
            yield from fields(value, (*parents, key))


@pytest.mark.parametrize("which", [pytest.param("bundle", marks=pytest.mark.slow), "centred"])
def test_every_field_replaced(which, request):
    """The bundle loads and gives the same vectors and a card, or is refused."""
    bundle = request.getfixturevalue(which)
    original = json.loads((bundle / "config.json").read_text())
    source = SOURCE[:, : load_bundle(bundle).spec.source_dim]
    expected = np.asarray(load_bundle(bundle).translator(jnp.asarray(source)))
    refused, tried = 0, 0
    for keys in fields(original):
        for value in ([], {}, "x", None, -1, 10**30, 0.5):
            content = copy.deepcopy(original)
            part = content
            for key in keys[:-1]:
                part = part[key]
            part[keys[-1]] = value
            (bundle / "config.json").write_text(json.dumps(content))
            tried += 1
            try:
                loaded = load_bundle(bundle)
            except C2CError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000
                refused += 1
                continue
            assert model_card(loaded, "x")
            if keys not in (("translator", "clamp"), ("translator", "input_norm")):
                np.testing.assert_array_equal(
                    loaded.translator(jnp.asarray(source)), expected, err_msg=f"{keys} {value}"
                )
    assert refused > tried / 3


@pytest.mark.parametrize(
    ("vectors", "kind", "message"),
    [
        (SOURCE, TypeError, "pass torch.as_tensor"),
        ([[1.0] * 64], TypeError, "pass torch.as_tensor"),
        (torch.ones(64), ValueError, "(B, 64), found (64,): pass one vector as vector[None]"),
        (torch.ones(2, 63), ValueError, "(B, 64), found (2, 63)"),
        (torch.ones(2, 3, 64), ValueError, "found (2, 3, 64)"),
        (torch.ones(2, 64, dtype=torch.float64), TypeError, "pass vectors.to(torch.float32)"),
        (torch.ones(2, 64, dtype=torch.int64), TypeError, "expected torch.float32 vectors, found torch.int64"),
        (torch.ones(2, 64).half(), TypeError, "found torch.float16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_inputs_of_the_torch_translator(bundle, vectors, kind, message):
    spec = importlib.util.spec_from_file_location("untyped", twins_file.__file__)  # without the tests' type checker
    untyped = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(untyped)
    twin = untyped.Translator.from_pretrained(bundle)
    for call in (twin, twin.from_image):
        with pytest.raises(kind) as caught:
            call(vectors)
        assert message in str(caught.value)


@torch.no_grad()
def test_torch_translator_in_other_dtypes(bundle):
    """It works like any torch module."""
    loaded = load_bundle(bundle)
    expected = np.asarray(translate_text(loaded.translator, loaded.means, jnp.asarray(SOURCE)))
    double = Translator.from_pretrained(bundle).double()
    loaded = double(torch.from_numpy(SOURCE).double())
    assert loaded.dtype == torch.float64
    np.testing.assert_allclose(loaded, expected, atol=1e-5)
    image = Translator.from_pretrained(bundle).from_image(torch.from_numpy(SOURCE))
    np.testing.assert_allclose(double.from_image(torch.from_numpy(SOURCE).double()), image, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        half = Translator.from_pretrained(bundle)(torch.from_numpy(SOURCE))
    np.testing.assert_allclose(half.float(), expected, atol=0.1)
