"""torch.compile, torch.export and ONNX against eager torch, for every kind."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch

from c2c_jax.errors import ExportError, MissingExtraError
from c2c_jax.publishing import onnx
from c2c_jax.publishing.export import publish
from c2c_jax.torch import Translator
from c2c_jax.torch.translator import ModalityMeans
from c2c_jax.translator.kinds import KINDS
from tests.torch.test_means import ALL, E, S, means
from tests.torch.test_translator import spec

COMPILES = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++, which is not installed")
# torch.compile uses functions that torch deprecates
QUIET = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
BATCH = {0: torch.export.Dim("batch")}


def written(folder: Path, kind: str, names: tuple[str, ...] = ALL, input_norm: str = "unit") -> Translator:
    """A random torch translator with these means, saved as a bundle without JAX."""
    fields = spec(
        kind, S, E, clamp=0.9, **({"depth": 2} if kind == "transformer" else {}), input_norm=input_norm
    ).to_json()
    torch.manual_seed(0)
    translator = Translator(**fields).eval().requires_grad_(False)
    translator.gap = ModalityMeans(S, E, **{name: torch.from_numpy(mean) / 2 for name, mean in means(*names).items()})
    (folder / "config.json").write_text(json.dumps({"format": 2, "translator": fields}))
    safetensors.torch.save_file(translator.state_dict(), folder / "model.safetensors")
    return translator


@pytest.fixture(params=[(kind, "unit") for kind in KINDS] + [("residual", "centred")], ids=" ".join)
def translator(request, tmp_path) -> Translator:
    kind, input_norm = request.param
    return written(tmp_path, kind, input_norm=input_norm)


def rows(count: int) -> torch.Tensor:
    return torch.randn(count, S, generator=torch.Generator().manual_seed(count))


@COMPILES
@QUIET
@pytest.mark.slow
def test_compiled(translator):
    torch._dynamo.reset()  # each kind is a new graph of one function, and torch caches eight
    for eager in (translator, translator.from_image):
        compiled = torch.compile(eager, fullgraph=True)
        np.testing.assert_allclose(compiled(rows(5)), eager(rows(5)), atol=1e-5, rtol=0)


def test_exported(translator):
    from_image = onnx.FromImage(translator).eval()
    for eager, module in ((translator, translator), (translator.from_image, from_image)):
        exported = torch.export.export(module, (rows(2),), dynamic_shapes=(BATCH,)).module()
        for count in (1, 2, 7):
            found = exported(rows(count))
            if isinstance(found, tuple):
                found, found_audio = found
                expected = translator.from_image(rows(count), output_mean="audio")
                np.testing.assert_allclose(found_audio, expected, atol=1e-5, rtol=0)
            np.testing.assert_allclose(found, eager(rows(count)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_onnx(tmp_path, kind):
    """Means of images or sounds add a graph for images; captions' means by themselves do not."""
    names = {"linear": ALL, "residual": ALL, "procrustes": ALL[:3], "mlp": ALL[::2]}.get(kind, ())
    has_image_graph = len(names) > 2
    translator = written(tmp_path, kind, names)
    files = onnx.write_onnx(tmp_path)
    assert [file.name for file in files] == ["model.onnx", "model_from_image.onnx"][: 1 + has_image_graph]
    for file, eager in zip(files, (translator, translator.from_image), strict=False):
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        for count in (1, 7):
            (found,) = session.run(["target"], {"source": rows(count).numpy()})
            np.testing.assert_allclose(found, eager(rows(count)), atol=1e-5, rtol=0)
        assert str(onnx.__file__).encode() not in file.read_bytes()
        assert b"translator.py" not in file.read_bytes()  # no source lines and no local paths


def test_onnx_with_wrong_results_is_an_error(tmp_path, monkeypatch):
    written(tmp_path, "linear")
    monkeypatch.setattr(onnx, "TOLERANCE", -1.0)
    with pytest.raises(ExportError, match=r"model\.onnx differs from the torch translator"):
        onnx.write_onnx(tmp_path)


def test_missing_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "bundle").mkdir()
    written(tmp_path / "bundle", "linear")
    message = r"exporting to ONNX needs onnxruntime, which is not installed: pip install 'c2c_jax\[onnx\]'"
    with pytest.raises(MissingExtraError, match=message):
        publish(tmp_path / "bundle", out=tmp_path / "export", onnx=True)
    assert not (tmp_path / "export").exists()
