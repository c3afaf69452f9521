"""No code in a checkpoint is ever run: checks all calls that read checkpoints, and loads hostile files."""

import ast
import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import c2c_jax
from c2c_jax.errors import CheckpointError
from c2c_jax.io.resolve import EMBEDDED
from c2c_jax.spaces.space import load_space

PACKAGE = Path(c2c_jax.__file__).parent
# This project's PyTorch translator, which reads two files, and diffusers' ModelMixin, which has no remote code.
ITS_OWN = {"publishing/onnx.py": 1}
WITHOUT_REMOTE_CODE = {"generation/checkpoint.py": 1}
UNPICKLERS = {"loads", "load", "Unpickler"}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Yields (file, dotted name of the function, call) for the whole package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path.relative_to(PACKAGE).as_posix(), ast.unparse(node.func), node


def keywords(call: ast.Call) -> dict[str | None, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def test_every_from_pretrained_is_local_and_without_remote_code():
    count, without = 0, []
    for file, name, call in calls():
        if name.rpartition(".")[2] != "from_pretrained":
            continue
        count += 1
        if keywords(call).get("trust_remote_code") != "False":
            without.append(file)
        if file not in ITS_OWN:
            assert keywords(call).get("local_files_only") == "True", f"{file}: {name}"
    assert count >= 4
    assert {file: without.count(file) for file in without} == ITS_OWN | WITHOUT_REMOTE_CODE


def test_only_tensors_are_unpickled():
    importing = [
        path.name for path in PACKAGE.rglob("*.py") if re.search(r"\bimport pickle\b", path.read_text("utf-8"))
    ]
    assert importing == ["torch_pickle.py"]  # whose tests are in tests/io
    for file, name, call in calls():
        module, _, function = name.rpartition(".")
        assert name != "torch.load", file
        assert not (module in ("pickle", "joblib", "dill", "cloudpickle", "marshal") and function in UNPICKLERS), file
        assert keywords(call).get("allow_pickle", "False") == "False", f"{file}: {name}"
        assert name not in ("eval", "exec"), file
        assert keywords(call).get("trust_remote_code", "False") == "False", f"{file}: {name}"


def test_data_sets_run_no_code():
    values = [keywords(call).get("trust_remote_code") for _, name, call in calls() if name.endswith("load_dataset")]
    assert values == ["False"]


def mark(folder: Path, name: str) -> Path:
    """Writes a module that creates a file when it is imported; returns that file."""
    (folder / f"{name}.py").write_text(
        f"open({str(folder / 'mark')!r}, 'w').close()\n"
        "from transformers import CLIPConfig, CLIPTokenizer, PreTrainedTokenizerFast\n"
        "class Config(CLIPConfig): pass\nclass Tokenizer(CLIPTokenizer): pass\n"
    )
    return folder / "mark"


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


TOKENIZER = {"AutoTokenizer": ["hostile.Tokenizer", "hostile.Tokenizer"]}


@pytest.mark.parametrize("tokenizer_class", ["CLIPTokenizer", "HostileTokenizer"])
def test_tokenizer_with_code(tmp_path, monkeypatch, tokenizer_class):
    """transformers would ask on stdin, and accept `y`."""
    folder = Path(shutil.copytree(EMBEDDED / "clip", tmp_path / "clip"))
    trace = mark(folder, "hostile")
    edit(folder / "tokenizer_config.json", auto_map=TOKENIZER, tokenizer_class=tokenizer_class)
    edit(folder / "config.json", auto_map={"AutoConfig": "hostile.Config", "AutoModel": "hostile.Config"})
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    try:
        count = load_space(str(folder)).encode_text(["a dog"])
        np.testing.assert_array_equal(count, load_space("miniworld/clip").encode_text(["a dog"]))
    except CheckpointError as error:
        assert "tokenizer" in str(error) and "\n" not in str(error)
    assert not trace.exists()


def test_config_with_code(tmp_path, monkeypatch):
    folder = Path(shutil.copytree(EMBEDDED / "clip", tmp_path / "clip"))
    trace = mark(folder, "hostile")
    auto_map = {"AutoConfig": "hostile.Config", "AutoModel": "hostile.Config", "AutoProcessor": "hostile.Config"}
    expected = load_space("miniworld/clip").encode_text(["a dog"])
    edit(folder / "config.json", auto_map=auto_map)
    edit(folder / "preprocessor_config.json", auto_map=auto_map)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    np.testing.assert_array_equal(load_space(str(folder)).encode_text(["a dog"]), expected)
    edit(folder / "preprocessor_config.json", image_processor_type="hostile.Config")
    with pytest.raises(CheckpointError, match="Invalid enum value 'hostile.Config'"):
        load_space(str(folder))
    edit(folder / "config.json", model_type="hostile")
    with pytest.raises(CheckpointError, match="model_type 'hostile'"):
        load_space(str(folder))
    assert not trace.exists()


def test_generator_with_code(tmp_path, monkeypatch):
    """A custom pipeline, parts of unknown libraries, and code next to each part."""
    from c2c_jax.generation.audioldm import AudioLDM
    from c2c_jax.generation.sampling import Sampling

    folder = Path(shutil.copytree(EMBEDDED / "audioldm", tmp_path / "audioldm"))
    traces = [mark(folder, "hostile"), *(mark(path, "hostile") for path in sorted(folder.iterdir()) if path.is_dir())]
    edit(folder / "model_index.json", unet=["hostile", "Config"], vae=["hostile", "Config"], _custom_pipeline="hostile")
    for part in ("unet", "vae", "vocoder", "text_encoder"):
        edit(folder / part / "config.json", auto_map={"AutoModel": "hostile.Config", "AutoConfig": "hostile.Config"})
    edit(folder / "tokenizer/tokenizer_config.json", auto_map=TOKENIZER)
    (folder / "text_encoder/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "nobody/else"}))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    sampling = Sampling(scheduler="ddim", steps=1, seconds=0.1, negative_prompt="rain")
    vector = np.ones((1, 64), np.float32)
    count = AudioLDM.load(folder, device="cpu").generate(vector, sampling, seeds=[0])
    expected = AudioLDM.load("miniworld/audioldm", device="cpu").generate(vector, sampling, seeds=[0])
    np.testing.assert_allclose(count, expected, atol=1e-4)
    assert not any(trace.exists() for trace in traces)
