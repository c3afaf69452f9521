"""Fixtures for the benchmark of recipes: a tiny recipe, tiny spaces and sizes."""

import json
from pathlib import Path

import pytest

from bench.recipe import compare, ground
from c2c_jax.config import Config, DataConfig, TranslatorConfig
from tests.generation.test_ranking import build_clap


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the benchmarks run only in `make test-all`."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


TINY = """
from c2c_jax.config import Config, DataConfig, TranslatorConfig


def get_config():
    data, translator = DataConfig(validation_size=20), TranslatorConfig(kind="ridge")
    return Config(batch_size=16, epochs=1, data=data, translator=translator)
"""

TINY_RECOMMENDED = """
from c2c_jax.config import Config, DataConfig, MemoryConfig, TranslatorConfig


def get_config():
    data, memory = DataConfig(validation_size=20), MemoryConfig(size=50)
    translator = TranslatorConfig(kind="residual", width=8, depth=2)
    return Config(batch_size=16, epochs=1, adapt=True, data=data, translator=translator, memory=memory)
"""


@pytest.fixture
def arguments(monkeypatch, tmp_path, clip_folder, audioldm_folder) -> list[str]:
    """A tiny recipe between random towers, on a few captions and scenes."""
    extractor = build_clap(tmp_path / "clap", audioldm_folder) / "preprocessor_config.json"
    extractor.write_text(json.dumps(json.loads(extractor.read_text()) | {"sampling_rate": 16_000}))
    monkeypatch.setattr(compare, "CELLS", 24)
    (tmp_path / "mine.py").write_text(TINY)
    (tmp_path / "tiny.py").write_text(TINY_RECOMMENDED)
    monkeypatch.setattr(compare, "PAPER", str(tmp_path / "mine.py"))
    monkeypatch.setattr(compare, "RECOMMENDED", str(tmp_path / "tiny.py"))
    data, translator = DataConfig(validation_size=20), TranslatorConfig(kind="ridge")
    oracle = Config(source="", target="", batch_size=16, epochs=1, data=data, translator=translator)
    monkeypatch.setattr(ground, "oracle_config", lambda pairs: oracle)
    sizes = {"captions": 120, "seeds": 2, "draws": 1, "pairs": 48, "training-pairs": 48, "processes": 1}
    places = {"clip": clip_folder, "clap": tmp_path / "clap", "workdir": tmp_path / "work"}
    return [compare.PAPER, *(f"--{name}={value}" for name, value in (sizes | places).items())]
