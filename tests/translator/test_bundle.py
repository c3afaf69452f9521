"""Bundles that are not what they say: refused in one line, by the loader and by the twin alike."""

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
from c2c_jax.publishing.card import model_card
from c2c_jax.spaces.weights.folders import EMBEDDED
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
    for name in ("config.json", "model.safetensors"):  # the README aside
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


def twins_refusal(folder: Path) -> str:
    with pytest.raises(ValueError) as caught:
        Translator.from_pretrained(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000 and str(folder) in str(caught.value)
    return str(caught.value)


SIZES = [HUGE, 10**30, 0, -1, "x", None, [], {}, True, 1.5]


@pytest.mark.parametrize("field", ["source_dim", "target_dim", "width", "depth"])
@pytest.mark.parametrize("value", SIZES)
def test_sizes_that_no_translator_has(bundle, field, value):
    edit(bundle, "translator", field, value=value)
    assert field in refusal(bundle)
    assert field in twins_refusal(bundle)


@pytest.mark.parametrize(
    ("field", "value"),
    [*((field, value) for field in ("heads", "mlp_width") for value in SIZES), ("dropout", -1), ("linear_first", 1)],
)
def test_settings_that_no_transformer_has(field, value):
    shared = {"kind": "transformer", "source_dim": 8, "target_dim": 8, "clamp": 0.0, "input_norm": "unit"}
    with pytest.raises(ConfigError, match=rf"translator\.{field} is "):
        TranslatorSpec.from_json({**shared, field: value})


@pytest.mark.parametrize(("field", "value"), [("depth", 100), ("width", 24_000), ("target_dim", 60_000)])
def test_sizes_beyond_the_weights(bundle, field, value):
    edit(bundle, "translator", field, value=value)
    told = refusal(bundle)
    assert "different models" in told or "gap statistic" in told or "it must be at most" in told
    assert "depth" in (told := twins_refusal(bundle)) or "size mismatch" in told or "gap statistic" in told


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
def test_what_both_readers_check(bundle, keys, value):
    edit(bundle, *keys, value=value)
    refusal(bundle)
    twins_refusal(bundle)


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
def test_what_cards_and_reports_read(bundle, keys, value):
    edit(bundle, *keys, value=value)
    refusal(bundle)
    with pytest.raises(C2CError):
        read_metrics(bundle)
    Translator.from_pretrained(bundle)  # which reads none of it


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{" * 10**5, b'{"format": ' + b"9" * 5000 + b"}", b"\xff{}"])
def test_configs_that_are_none(bundle, content):
    (bundle / "config.json").write_bytes(content)
    refusal(bundle)
    twins_refusal(bundle)


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 99, b"<html>", None]
)
def test_weights_that_are_none(bundle, content):
    path = bundle / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    refusal(bundle)
    twins_refusal(bundle)


def test_weights_that_are_not_finite(bundle):
    tensors = safetensors.numpy.load_file(bundle / "model.safetensors")
    tensors["linear.weight"] = tensors["linear.weight"].copy()
    tensors["linear.weight"][2, 3] = np.nan
    safetensors.numpy.save_file(tensors, bundle / "model.safetensors")
    assert "linear.weight has values that are not finite" in refusal(bundle)
    assert "linear.weight has values that are not finite" in twins_refusal(bundle)


CHOICE = {
    "trained": 0.5, "linear": "rotation", "memory": True, "pair_cosine": 0.32,
    "noisy_mrr": {"trained": 0.4, "rotation": 0.41, "0.5 trained + rotation, memory": 0.43},
}  # fmt: skip


@pytest.fixture
def centred(tmp_path: Path) -> Path:
    """The folder of a random translator of centred vectors, as a run leaves it."""
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
    """Puts tensors into a bundle, or takes them out (None)."""
    changed = {**safetensors.numpy.load_file(folder / "model.safetensors"), **tensors}
    kept = {name: tensor for name, tensor in changed.items() if tensor is not None}
    safetensors.numpy.save_file(kept, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("missing", "told", "twins"),
    [
        (["source_text"], "the mean source_image needs", "the mean source_image needs"),
        (["source_text", "source_image"], "needs the captions' means", "has no mean 'source_text'"),
        (["target_text", "target_audio"], "needs the captions' means", "has no mean 'target_text'"),
        (["source_text", "source_image", "target_text", "target_audio"], "needs the captions' means", "no mean"),
    ],
)
def test_centred_translators_without_means(centred, missing, told, twins):
    change(centred, {f"gap.{name}": None for name in missing})
    assert told in refusal(centred)
    assert twins in twins_refusal(centred)


@pytest.mark.parametrize("name", ["source_text", "source_image", "target_text", "target_audio"])
@pytest.mark.parametrize("length", [1.0, 3.0, 1e15, np.inf, np.nan])
def test_means_that_no_unit_vectors_have(centred, name, length):
    """Nothing can be un-centred by such a mean; other translators move vectors by any."""
    mean = np.zeros(24 if "source" in name else 16, np.float32)
    mean[3] = length
    change(centred, {f"gap.{name}": mean})
    told = "has length 1 or more" if length < np.inf else "finite"
    assert told in refusal(centred) and told in twins_refusal(centred)
    if length < np.inf:
        edit(centred, "translator", "input_norm", value="unit")
        load_bundle(centred)
        Translator.from_pretrained(centred)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("name", ["gap.source_text", "linear.weight"])
def test_tensors_of_another_precision(centred, name, dtype):
    tensor = safetensors.numpy.load_file(centred / "model.safetensors")[name]
    change(centred, {name: tensor.astype(dtype)})
    assert "expected torch.float32" in twins_refusal(centred)
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
def test_choices_that_no_run_made(centred, keys, value):
    edit(centred, "choice", *keys, value=value)
    assert "choice" in refusal(centred)
    with pytest.raises(C2CError):
        read_metrics(centred)
    Translator.from_pretrained(centred)  # which reads none of it


def test_what_a_run_kept_is_read_back(centred):
    found = load_bundle(centred).choice
    assert found == Choice(**CHOICE)
    assert str(found) == "50% trained + 50% rotation, with the caption memory" and found.best == 0.43
    cosines = {"trained": -0.5, "rotation": 0.75, "0.5 trained + rotation, memory": 0.25}
    edit(centred, "choice", value=CHOICE | {"noisy_cosine": cosines, "selected_by": "noisy_cosine"})
    assert load_bundle(centred).choice.best == 0.75 and load_bundle(centred).choice.trained_scores == [-0.5]
    edit(centred, "choice", value=None)
    assert load_bundle(centred).choice is None
    content = json.loads((centred / "config.json").read_text())
    del content["choice"]  # as older bundles have none
    (centred / "config.json").write_text(json.dumps(content))
    assert load_bundle(centred).choice is None


def fields(content: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from fields(value, (*before, key))


@pytest.mark.parametrize("which", ["bundle", "centred"])
def test_every_field_as_something_else(which, request):
    """A bundle loads whole, with the same vectors and a card, or is refused."""
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
                found = load_bundle(bundle)
            except C2CError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000
                refused += 1
                continue
            assert model_card(found, "x")
            if keys not in (("translator", "clamp"), ("translator", "input_norm")):
                np.testing.assert_array_equal(
                    found.translator(jnp.asarray(source)), expected, err_msg=f"{keys} {value}"
                )
    assert refused > tried / 3


@pytest.mark.parametrize(
    ("vectors", "kind", "told"),
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
def test_what_the_twin_takes(bundle, vectors, kind, told):
    spec = importlib.util.spec_from_file_location("copied", twins_file.__file__)  # without the tests' type checker
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    twin = copied.Translator.from_pretrained(bundle)
    for call in (twin, twin.from_image):
        with pytest.raises(kind) as caught:
            call(vectors)
        assert told in str(caught.value)


@torch.no_grad()
def test_the_twin_in_another_precision(bundle):
    """As any torch module; float64 is also what float32 is right by."""
    loaded = load_bundle(bundle)
    expected = np.asarray(translate_text(loaded.translator, loaded.means, jnp.asarray(SOURCE)))
    double = Translator.from_pretrained(bundle).double()
    found = double(torch.from_numpy(SOURCE).double())
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, atol=1e-5)
    image = Translator.from_pretrained(bundle).from_image(torch.from_numpy(SOURCE))
    np.testing.assert_allclose(double.from_image(torch.from_numpy(SOURCE).double()), image, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        half = Translator.from_pretrained(bundle)(torch.from_numpy(SOURCE))
    np.testing.assert_allclose(half.float(), expected, atol=0.1)
