"""Each format has one reader: no other code of the package calls its library."""

import ast
from pathlib import Path

import pytest

import c2c_jax

PACKAGE = Path(c2c_jax.__file__).parent
# What reads a format → the modules that may call it.
READERS = {
    "json.loads": set(),
    "json.load": set(),
    "msgspec.json.decode": {"io/json.py"},
    "np.load": {"io/arrays.py"},
    "torch.load": set(),
    "safetensors.safe_open": {"io/tensors.py"},
    "safetensors.torch.load_file": {"generation/checkpoint.py"},  # behind checks of the same file
    "safetensors.torch.load": {"torch/translator.py"},
    "Image.open": {"io/images.py"},
    # Of sounds that are written here; others are read by the subclass in io/audio.py.
    "soundfile.SoundFile": {"generation/plan.py", "io/audio_output.py"},
    "soundfile.read": set(),
    "csv.reader": {"io/rows.py"},
}


def calls(path: Path) -> set[str]:
    """The dotted names that a module calls, imported names written out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    names = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return names | {imported[name] for name in names if name in imported}


@pytest.mark.parametrize("reader", READERS)
def test_one_reader(reader):
    callers = {
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if reader in calls(path)
    }  # fmt: skip
    assert callers == READERS[reader]
