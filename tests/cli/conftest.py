"""Fixtures for `c2c infer` and `c2c search`: an untrained translator, images, sounds, and functions that run them."""

from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from c2c_jax.cli.main import main
from c2c_jax.spaces.space import identify
from c2c_jax.translator.bundle import Bundle, save_bundle
from c2c_jax.translator.kinds import TranslatorSpec, build_translator
from tests.fixtures.audio_files import FAST, NAMES, write_noise
from tests.generation.test_ranking import build_clap


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, clip_folder, audioldm_folder) -> Path:
    """An untrained translator between the tiny spaces."""
    source, target = identify(str(clip_folder)), identify(f"{audioldm_folder}:text_encoder")
    spec = TranslatorSpec.from_json(dict(
        kind="mlp", source_dim=64, target_dim=64, width=32, depth=2, heads=1, mlp_width=1, dropout=0.0, clamp=0.0,
        input_norm="unit",
    ))  # fmt: skip
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    translator = build_translator(spec, rngs=nnx.Rngs(0))
    save_bundle(folder, Bundle(translator=translator, spec=spec, source=source, target=target, recipe={}, metrics={}))
    return folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder with a.png, b.jpg and c.png."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, name in enumerate(("a.png", "b.jpg", "c.png")):
        pixels = np.random.default_rng(seed).integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def infer(bundle, audioldm_folder, capsys):
    """Runs the command; returns the exit code, the printed files, and stderr."""

    def run(*arguments: str | Path, audioldm: Path | None = audioldm_folder):
        capsys.readouterr()
        generator = ["--audioldm", str(audioldm), *FAST] if audioldm else []
        code = main(["infer", "--translator", str(bundle), *generator, *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, [Path(line) for line in out.splitlines()], err

    return run


@pytest.fixture(scope="module")
def clap(tmp_path_factory, audioldm_folder) -> Path:
    """A CLAP with both towers, whose text tower is AudioLDM's."""
    return build_clap(tmp_path_factory.mktemp("clap") / "clap", audioldm_folder)


@pytest.fixture
def audio_folder(tmp_path) -> Path:
    """A folder with sounds of noise, two of them in a subfolder."""
    folder = tmp_path / "sounds"
    (folder / "deep").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        write_noise(folder / name, seed)
    (folder / "notes.txt").write_text("no sound")
    return folder


@pytest.fixture
def search(bundle, clap, audio_folder, capsys):
    """Runs the command on the sounds; returns the exit code, the fields of each line of stdout, and stderr."""

    def run(*arguments, inputs=("--translator", bundle, "--clap", clap)):
        capsys.readouterr()
        code = main(["search", *map(str, arguments), "--library", str(audio_folder), *map(str, inputs)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, [tuple(line.split("\t")) for line in out.splitlines()], err

    return run
