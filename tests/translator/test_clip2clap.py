"""The paper author's checkpoints: each kind against a torch transcription, and damaged files."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from c2c_jax.errors import C2CError, CheckpointError, ConfigError
from c2c_jax.torch import Translator
from c2c_jax.translator.bundle import load_bundle, save_bundle
from c2c_jax.translator.clip2clap import SOURCE, TARGET, import_checkpoint

SPACES = {"source": "nobody/clip", "target": "nobody/clap"}


class Stack(torch.nn.Module):
    """The author's stack of linear layers, with his names and clamp."""

    def __init__(self, *names: str, clamp: float, ends_in_tanh: bool = False, normed: bool = False, widths=(24, 16)):
        super().__init__()
        self.names, self.clamp, self.ends_in_tanh, self.normed = names, clamp, ends_in_tanh, normed
        for number, name in enumerate(names):
            self.add_module(name, torch.nn.Linear(widths[0] if number == 0 else widths[1], widths[1]))
            if normed:
                self.add_module(name.replace("ff", "ln"), torch.nn.LayerNorm(widths[1]))
        if ends_in_tanh:
            self.t = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, name in enumerate(self.names):
            x = getattr(self, name)(x)
            if self.ends_in_tanh or number < len(self.names) - 1:
                x = torch.tanh(x)
            if self.normed:
                x = getattr(self, name.replace("ff", "ln"))(x)
        return x.clamp(-self.clamp, self.clamp)


class Encoder(torch.nn.Module):
    """torch's own encoder with coordinates as tokens, over which it attends (`batch_first`), as in the paper."""

    def __init__(self, width: int, heads: int, mlp_width: int, depth: int, has_linear: bool = False, size: int = 12):
        super().__init__()
        if has_linear:
            self.linear = torch.nn.Linear(size, size)
        self.ff1, self.ff2 = torch.nn.Linear(1, width), torch.nn.Linear(width, 1)
        self.pos_emb = torch.nn.Embedding(size, width)
        self.encoder_layer = torch.nn.TransformerEncoderLayer(width, heads, mlp_width, batch_first=True)
        self.transformer_encoder = torch.nn.TransformerEncoder(self.encoder_layer, depth, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "linear"):
            x = self.linear(x)
        return self.ff2(self.transformer_encoder(self.ff1(x[:, :, None]) + self.pos_emb.weight))[:, :, 0]


LINEARS = [f"ff{number}" for number in range(1, 6)]
# The author's file → (a small model of that kind, our kind, number of notes besides those on the spaces).
FILES: dict[str, tuple[Callable[[], torch.nn.Module], str, int]] = {
    "linear": (lambda: Stack("linear", clamp=0.3), "linear", 0),
    "linear2": (lambda: Stack("linear", "linear2", clamp=0.3), "linear2", 0),
    "linear3": (lambda: Stack(*LINEARS[:4], clamp=0.2), "mlp", 0),
    "linear4": (lambda: Stack(*LINEARS[:4], clamp=0.2, ends_in_tanh=True, normed=True), "mlp_layernorm", 1),
    "linear5": (lambda: Stack(*LINEARS, clamp=0.25, ends_in_tanh=True), "mlp5", 1),
    "encoder2": (lambda: Encoder(96, 8, 96, 2), "transformer", 2),
    "encoder3": (lambda: Encoder(360, 12, 96, 2), "transformer", 2),
    "encoder4": (lambda: Encoder(8, 4, 8, 3, has_linear=True), "transformer", 3),
}


def saved(path: Path, model: torch.nn.Module) -> Path:
    """Saves a model as the author does, wrapped for several GPUs and pickled, with random tensors."""
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.3 * torch.randn(tensor.shape) / (tensor.shape[1] ** 0.5 if tensor.ndim == 2 else 1))
    torch.save(torch.nn.DataParallel(model).state_dict(), path)
    return path


def require_agreement(path: Path, oracle: torch.nn.Module, folder: Path, **arguments: Any) -> list[str]:
    """Imports a file, compares Flax, torch and the oracle, and returns the notes."""
    bundle, notes = import_checkpoint(path, **arguments)
    save_bundle(folder, bundle)
    source = np.random.default_rng(0).normal(size=(7, bundle.spec.source_dim)).astype(np.float32) / 2
    with torch.no_grad():
        expected = oracle.eval()(torch.from_numpy(source)).numpy()
        twin = Translator.from_pretrained(folder)(torch.from_numpy(source)).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(twin, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(bundle.translator(jnp.asarray(source)), expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(
        load_bundle(folder).translator(jnp.asarray(source)), bundle.translator(jnp.asarray(source))
    )
    return notes


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_the_author(tmp_path, name):
    build, kind, lines = FILES[name]
    oracle = build()
    path = saved(tmp_path / f"{name}.pt", oracle)
    notes = require_agreement(path, oracle, tmp_path / "bundle", **SPACES)
    assert len(notes) == lines + 2 and all("fingerprint is unknown" in line for line in notes[-2:])
    kind_name = name if name.startswith("linear") else "transformer"
    bundle = load_bundle(tmp_path / "bundle")
    assert import_checkpoint(path, kind=kind_name, **SPACES)[0].spec == bundle.spec
    assert bundle.spec.kind == kind and bundle.spec.input_norm == "none" and bundle.metrics == {}
    assert bundle.recipe["imported"] == f"{name}.pt"
    assert (bundle.source.name, bundle.source.fingerprint) == ("nobody/clip", "")
    if kind == "transformer":
        assert "as in the paper; the author's code runs it over a batch" in "".join(notes)
        assert "encoder_layer.self_attn.in_proj_weight" in notes[0]
    elif lines:
        assert notes[0] == "skipped, since outputs do not depend on it: t"


def test_without_prefix_and_with_another_clamp(tmp_path):
    oracle = Stack("linear", clamp=0.3)
    torch.save(oracle.state_dict(), tmp_path / "plain.pt")
    oracle.clamp = 0.1
    require_agreement(tmp_path / "plain.pt", oracle, tmp_path / "bundle", clamp=0.1, **SPACES)
    assert import_checkpoint(tmp_path / "plain.pt", clamp=0.0, **SPACES)[0].spec.clamp == 0


def test_ambiguous_kind(tmp_path):
    oracle = Stack(*LINEARS[:3], clamp=0.2)
    path = saved(tmp_path / "three.pt", oracle)
    assert "--kind mlp or --kind mlp5" in refusal(path)
    require_agreement(path, oracle, tmp_path / "bundle", kind="mlp", **SPACES)
    oracle.ends_in_tanh, oracle.clamp = True, 0.25
    require_agreement(path, oracle, tmp_path / "bundle", kind="mlp5", **SPACES)


def test_heads_of_unknown_widths(tmp_path):
    oracle = Encoder(20, 5, 8, 1)
    path = saved(tmp_path / "wide.pt", oracle)
    assert "20 wide cannot be read from its tensors; pass --heads N" in refusal(path)
    assert "cannot have 3 heads" in refusal(path, heads=3)
    require_agreement(path, oracle, tmp_path / "bundle", heads=5, **SPACES)
    assert "no attention heads" in refusal(saved(tmp_path / "linear.pt", Stack("linear", clamp=0.3)), heads=5)


def test_local_spaces_are_identified(tmp_path, clip_folder, audioldm_folder):
    path = saved(tmp_path / "linear.pt", Stack("linear", clamp=0.3, widths=(64, 64)))
    spaces = {"source": str(clip_folder), "target": f"{audioldm_folder}:text_encoder"}
    bundle, notes = import_checkpoint(path, **spaces)
    assert notes == [] and len(bundle.source.fingerprint) == len(bundle.target.fingerprint) == 64
    narrow = saved(tmp_path / "narrow.pt", Stack("linear", clamp=0.3))
    assert f"{clip_folder} has vectors 64 wide, the file's source vectors are 24 wide" in refusal(narrow, **spaces)


def test_paper_spaces_need_paper_widths(tmp_path):
    bundle, notes = import_checkpoint(saved(tmp_path / "a.pt", Stack("linear", clamp=0.3, widths=(512, 512))))
    assert (bundle.source.name, bundle.target.name) == (SOURCE, TARGET) and len(notes) == 2
    wide = saved(tmp_path / "b.pt", Stack("linear", clamp=0.3, widths=(768, 512)))
    assert "source vectors are 768 wide" in refusal(wide, source=None) and "--source NAME" in refusal(wide, source=None)


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("linear_contrastive_euclid_512_epoch_5.pt", ["linear"]),
        ("linear2_contrastive_euclid_512_epoch_5.pt", ["linear", "linear2"]),
    ],
)
def test_real_files(tmp_path, shared_data, file, names):
    path = shared_data.parent / "seed" / "checkpoints" / file
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    tensors = torch.load(path, map_location="cpu", weights_only=True)

    class Oracle(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for name in names:
                x = functional.linear(
                    x if name == "linear" else torch.tanh(x),
                    *(tensors[f"module.{name}.{p}"] for p in ("weight", "bias")),
                )
            return x.clamp(-0.3, 0.3)

    assert len(require_agreement(path, Oracle(), tmp_path / "bundle")) == 2
    assert load_bundle(tmp_path / "bundle").source.name == SOURCE


def refusal(path: Path, **arguments: Any) -> str:
    with pytest.raises(C2CError) as caught:
        import_checkpoint(path, **{**SPACES, **arguments})
    assert "\n" not in str(caught.value) and isinstance(caught.value, CheckpointError | ConfigError)
    return str(caught.value)


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("trapped",))


def layer() -> dict[str, torch.Tensor]:
    return {"module.linear.weight": torch.ones(3, 4), "module.linear.bias": torch.ones(3)}


WRONG: dict[str, tuple[Any, str]] = {
    "code": ({**layer(), "more": Trap()}, "it needs posix.mkdir"),
    "module": (torch.nn.Linear(4, 3), "it needs torch.nn.modules.linear.Linear"),
    "training": (
        {"model": layer(), "optimizer": {}, "epoch": 5},
        "holds more than plain tensors by name (model, optimizer, epoch)",
    ),
    "number": ({**layer(), "epoch": 5}, "holds more than plain tensors by name (epoch)"),
    "tensor": (torch.ones(3), "holds a Tensor, not a state dict"),
    "list": ([torch.ones(3)], "holds a list"),
    "nothing": ({}, "not a state dict"),
    "unnamed": ({1: torch.ones(3)}, "holds more than plain tensors by name (1)"),
    "shapeless": ({**layer(), "module.linear.weight": torch.ones(3, 4, device="meta")}, "(module.linear.weight)"),
    "half": ({**layer(), "module.linear.bias": torch.ones(3).half()}, "linear.bias is torch.float16"),
    "double": ({**layer(), "module.linear.weight": torch.ones(3, 4).double()}, "linear.weight is torch.float64"),
    "infinite": ({**layer(), "module.linear.bias": torch.tensor([1.0, 2.0, float("inf")])}, "contains NaN or inf"),
    "twice": ({**layer(), "linear.bias": torch.ones(3)}, "both with and without the prefix"),
    "unknown": ({"module.fc.weight": torch.ones(3, 4)}, "do not belong to any CLIP2CLAP kind; known are linear,"),
    "extra": ({**layer(), "module.head.weight": torch.ones(3)}, "head.weight"),
    "no bias": ({"module.linear.weight": torch.ones(3, 4)}, "linear.bias"),
    "shape": ({**layer(), "module.linear.bias": torch.ones(4)}, "has shape (4,), but its other tensors ask for (3,)"),
    "vector": ({**layer(), "module.linear.weight": torch.ones(3)}, "linear.weight is of shape (3,)"),
    "gap": (
        {
            f"ff{n}.{p}": torch.ones(4, 4)[: 4 if p == "weight" else 1].squeeze(0)
            for n in (1, 2, 4, 5)
            for p in ("weight", "bias")
        },
        "ff",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_state_dicts(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, message = WRONG[name]
    torch.save(content, tmp_path / "wrong.pt")
    assert message in refusal(tmp_path / "wrong.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.pt"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickled_code_is_not_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.pt").write_bytes(pickle.dumps({"module.linear.weight": Trap()}, protocol=protocol))
    assert "no code in it was run" in refusal(tmp_path / "wrong.pt")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04" + bytes(100), "cut short"])
def test_invalid_pickles(tmp_path, content):
    path = saved(tmp_path / "wrong.pt", Stack("linear", clamp=0.3))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    assert str(path) in (message := refusal(path)) and "fetch it again" in message


def test_encoder_with_damaged_attention(tmp_path):
    path = saved(tmp_path / "encoder.pt", Encoder(8, 4, 8, 1))
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    name = "module.transformer_encoder.layers.0.self_attn.in_proj_weight"
    for damaged, message in (
        (torch.ones(23, 8), "cannot be split into three projections"),
        (torch.ones(27, 8), "ask for (8, 8)"),
    ):
        torch.save({**tensors, name: damaged}, path)
        assert message in refusal(path)


def test_kind_that_contradicts_the_keys(tmp_path):
    path = saved(tmp_path / "linear3.pt", Stack(*LINEARS[:4], clamp=0.2))
    assert "its keys are those of mlp, not of linear5" in refusal(path, kind="linear5")
    assert "its keys are those of mlp, not of transformer" in refusal(path, kind="transformer")
    assert "unknown --kind 'residual'; known are linear, linear2, mlp," in refusal(path, kind="residual")
    assert "--clamp must be 0 (no clipping) or more, found -1" in refusal(path, clamp=-1.0)
