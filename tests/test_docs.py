"""Every Python block in the documents runs unchanged."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from c2c_jax.cli.main import main
from c2c_jax.io.resolve import EMBEDDED
from tests.cli.test_main import ROOT

BLOCK = re.compile(r"(?P<mark><!-- not run by tests: (?P<why>.+?) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
BLOCKS = [
    (f"{path.relative_to(ROOT)}:{text[: match.start()].count(chr(10)) + 1}", match["code"], match["why"])
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if not path.name.startswith("tutorial")  # test_tutorial.py runs them
    for text in [path.read_text(encoding="utf-8")]
    for match in BLOCK.finditer(text)
]
SHAPES = {
    "vectors": 2,
    "clap": 2,
    "clap_vectors": 2,
    "sounds": 2,
    "cosines": 2,
    "ranks": 1,
}  # number of axes of the arrays that blocks compute


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the files that the documents name: an exported translator, a store, pairs and an image."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(EMBEDDED / "translator", folder / "published" / "mlp")
    assert main(["miniworld", "export", "--count", "40", "--out", str(folder / "pairs")]) == 0
    for name in ("photo.png", "dog.png"):
        shutil.copyfile(ROOT / "examples" / "dog.png", folder / name)
    shutil.copytree(folder / "pairs" / "sounds", folder / "sounds")
    for name, vectors in zip(
        ("clip", "clap", "images"), np.random.default_rng(0).normal(size=(3, 300, 64)), strict=True
    ):
        np.save(folder / f"{name}.npy", vectors)
    recipe = ["--config", str(ROOT / "configs" / "miniworld.py"), "--config.data.captions=miniworld:1100"]
    assert main(["embed", *recipe, "--out", str(folder / "stores" / "gcc")]) == 0
    return folder


@pytest.mark.parametrize(("place", "code", "why"), BLOCKS, ids=[place for place, _, _ in BLOCKS])
def test_block_runs(place, code, why, folder, monkeypatch, registries):
    if why:
        compile(code, place, "exec")
        pytest.skip(why)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(code, place, "exec"), names)
    for name, axes in SHAPES.items():
        if name in names:
            assert len(names[name].shape) == axes, name


def test_blocks_are_found():
    assert len(BLOCKS) >= 8 and sum(why is None for _, _, why in BLOCKS) >= 7
