"""`c2c calibrate`: means by hand from the towers, an otherwise unchanged bundle, and errors."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import soundfile
import torch
from PIL import Image

from c2c_jax.cli.main import main
from c2c_jax.config import Config, DataConfig, TranslatorConfig
from c2c_jax.data.arrays import store_of_arrays
from c2c_jax.data.store import Store
from c2c_jax.evaluation import calibration
from c2c_jax.io.audio import read_audio
from c2c_jax.io.images import read_image
from c2c_jax.spaces.space import identify, load_space
from c2c_jax.torch import Translator
from c2c_jax.training.loader import split_rows
from c2c_jax.training.train import train
from c2c_jax.translator.bundle import load_bundle, write_modality_means
from c2c_jax.translator.centring import ModalityMeans
from c2c_jax.translator.inference import translate
from tests.cli.test_main import refused
from tests.generation.test_ranking import build_clap

ROWS, HELD_OUT, IMAGES, AUDIO = 300, 30, 12, 9
TEXTS, ALL = ["source_text", "target_text"], ["source_text", "source_image", "target_text", "target_audio"]


def ridge_run(workdir: Path, clip_folder: Path, audioldm_folder: Path, input_norm: str) -> Path:
    spaces = identify(str(clip_folder)), identify(f"{audioldm_folder}:text_encoder")
    rng = np.random.default_rng(0)
    source, target = (rng.normal(0.3, 1, (ROWS, space.dim)).astype(np.float32) for space in spaces)
    store = store_of_arrays(workdir / "store", source, target, spaces, chunk_rows=128)
    translator = TranslatorConfig(kind="ridge", input_norm=input_norm)
    train(Config(data=DataConfig(validation_size=HELD_OUT), translator=translator), store, workdir)
    return workdir


@pytest.fixture(scope="module")
def trained(tmp_path_factory, clip_folder, audioldm_folder) -> Path:
    """The work directory, with its store, of a ridge of unit vectors, trained on random vectors of the tiny spaces."""
    return ridge_run(tmp_path_factory.mktemp("trained") / "run", clip_folder, audioldm_folder, "unit")


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def clap(tmp_path_factory, audioldm_folder) -> Path:
    """A CLAP with both towers, whose text tower is AudioLDM's."""
    return build_clap(tmp_path_factory.mktemp("clap") / "clap", audioldm_folder)


@pytest.fixture(scope="module")
def media_folder(tmp_path_factory) -> Path:
    """A folder with folders of noise images and noise sounds."""
    folder, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(1)
    (folder / "pictures").mkdir()
    (folder / "sounds" / "deep").mkdir(parents=True)
    for number in range(IMAGES):
        pixels = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(folder / f"pictures/{number:02}.png")
    for number in range(AUDIO):
        place = folder / "sounds" / ("deep" if number > 5 else "") / f"{number}.wav"
        soundfile.write(place, rng.uniform(-0.5, 0.5, 12_000) * np.geomspace(1, 0.01 * (number + 1), 12_000), 48_000)
    return folder


@pytest.fixture(scope="module")
def image_BS(media_folder, clip_folder) -> np.ndarray:
    paths = sorted((media_folder / "pictures").iterdir())
    return load_space(str(clip_folder)).encode_images([read_image(path) for path in paths])


@pytest.fixture(scope="module")
def audio_NE(media_folder, clap) -> np.ndarray:
    paths = sorted((media_folder / "sounds").rglob("*.wav"))
    return load_space(str(clap)).encode_audio([read_audio(path, 48_000) for path in paths])


@pytest.fixture
def calibrate(run, capsys):
    """Runs the command; returns the exit code, the lines of stdout, and stderr."""

    def called(*arguments, run=run):
        capsys.readouterr()
        code = main(["calibrate", str(run), *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out.splitlines(), err

    return called


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def tensors(bundle: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(bundle / "model.safetensors")


def figures(line: str) -> list[float]:
    return [float(x) for x in re.findall(r"\d+\.\d{4}", line)]


def error_line(count: int, kind: str, variance: float) -> str:
    """The line on the error of a mean: √(variance / count), and the number of vectors for an error of .02."""
    enough = float(f"{np.ceil(variance / 0.02**2):.2g}")
    error = f"{np.sqrt(variance / count):.2g}"
    return f"the mean of {count} {kind} has an expected error of {error}; about {enough:,.0f} are needed for 0.02"


def translated(image_BS: np.ndarray, weights: dict[str, np.ndarray], means: ModalityMeans) -> np.ndarray:
    """Translates images through a ridge by hand, moved by the means that are known."""
    x = unit(image_BS)
    if means.source_image is not None:
        x = unit(x - means.source_image + means.source_text)
    y = unit(np.sqrt(x.shape[1]) * x @ weights["linear.weight"].T.astype(np.float64) + weights["linear.bias"])
    return y if means.target_audio is None else unit(y - means.target_text + means.target_audio)


def test_pictures(calibrate, run, media_folder, image_BS, trained, capsys, tmp_path):
    bundle, before = run / "bundle", tensors(trained / "bundle")
    assert set(before) == {"linear.weight", "linear.bias", "memory.source", *(f"gap.{name}" for name in TEXTS)}
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    config, image = (bundle / "config.json").read_bytes(), media_folder / "pictures/00.png"
    (bundle / "README.md").write_text("a card")
    code, lines, err = calibrate("--images", media_folder / "pictures", bad)
    assert (
        code == 2
        and f"left out: {bad}: is damaged" in err
        and err.endswith("1 files could not be read; they are named above\n")
    )

    after = tensors(bundle)
    np.testing.assert_allclose(after.pop("gap.source_image"), unit(image_BS).mean(0), atol=1e-6)
    assert set(after) == set(before) and all(np.array_equal(after[name], before[name]) for name in before)
    assert (bundle / "config.json").read_bytes() == config
    assert {path.name for path in bundle.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert f"README.md in {bundle} use the old means" in err

    loaded = load_bundle(bundle)
    means, text = loaded.means, before["gap.source_text"]
    x = unit(image_BS)
    length = np.linalg.norm(x.mean(0) - text)
    left = np.linalg.norm(unit(x - x.mean(0) + text).mean(0) - text)
    variance = np.sum((x - x.mean(0)) ** 2) / (IMAGES - 1)
    assert re.match(
        f"{IMAGES} images: norm of the mean .*, spread .*, distance to the mean of captions .* before, .* after",
        lines[0],
    )
    assert figures(lines[0]) == pytest.approx([np.linalg.norm(x.mean(0)), variance, length, left], abs=1e-4)
    assert left < length / 2
    assert lines[1] == error_line(IMAGES, "images", variance)
    assert lines[2:] == [
        f"means in the bundle: {', '.join(ALL[:3])}", "in use: source_text, source_image", str(bundle),
    ]  # fmt: skip

    by_hand = translated(image_BS, before, means)
    assert np.abs(by_hand - translated(image_BS, before, ModalityMeans())).max() > 0.05
    np.testing.assert_allclose(translate(loaded, image_BS), by_hand, atol=2e-5)
    with torch.no_grad():
        twin = Translator.from_pretrained(bundle).from_image(torch.from_numpy(image_BS))
    np.testing.assert_allclose(unit(twin), by_hand, atol=2e-5)
    for translator, used in ((bundle, True), (trained / "bundle", False)):
        vector = tmp_path / f"{used}.npy"
        assert main(["infer", str(image), "--translator", str(translator), "--save-embedding", str(vector)]) == 0
        message = "shifting image vectors by the stored mean difference: source_text, source_image\n"
        assert capsys.readouterr().err == (message if used else "")
        np.testing.assert_allclose(
            np.load(vector), translated(image_BS[:1], before, means if used else ModalityMeans())[0], atol=2e-5
        )


def test_sounds_and_pictures_into_another_folder(calibrate, run, media_folder, clap, image_BS, audio_NE, tmp_path):
    out, before = tmp_path / "new" / "bundle", tensors(run / "bundle")
    code, lines, err = calibrate(
        "--images", media_folder / "pictures", "--sounds", media_folder / "sounds", "--clap", clap, "--out", out
    )
    assert code == 0 and "left out" not in err
    assert all(np.array_equal(tensors(run / "bundle")[name], before[name]) for name in before)
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    assert (out / "config.json").read_bytes() == (run / "bundle" / "config.json").read_bytes()
    means = load_bundle(out).means
    assert means.known == means.used == ALL
    np.testing.assert_allclose(means.source_image, unit(image_BS).mean(0), atol=1e-6)
    np.testing.assert_allclose(means.target_audio, unit(audio_NE).mean(0), atol=1e-5)
    length = np.linalg.norm(unit(audio_NE).mean(0) - means.target_text)
    assert lines[2].startswith(f"{AUDIO} sounds: ") and figures(lines[2])[2:] == pytest.approx([length], abs=1e-4)
    variance = unit(audio_NE).var(axis=0, ddof=1).sum()
    assert lines[3] == error_line(AUDIO, "sounds", variance)
    distances = [
        np.linalg.norm(translated(image_BS, before, known_means).mean(0) - unit(audio_NE).mean(0))
        for known_means in (ModalityMeans(), means)
    ]
    assert "translated images: distance to sounds" in lines[4] and figures(lines[4]) == pytest.approx(
        distances, abs=2e-4
    )
    np.testing.assert_allclose(translate(load_bundle(out), image_BS), translated(image_BS, before, means), atol=2e-5)

    code, lines, _ = calibrate("--remove", "--out", out, run=out)  # over itself
    assert code == 0 and lines == ["means in the bundle: source_text, target_text", "in use: none", str(out)]
    assert (out / "model.safetensors").read_bytes() == (run / "bundle" / "model.safetensors").read_bytes()
    assert "nothing to remove" in calibrate("--remove", run=out)[2]


def test_sounds_alone_and_pictures_later(calibrate, run, media_folder, clap, audio_NE):
    code, lines, _ = calibrate("--sounds", media_folder / "sounds", "--clap", clap)
    assert code == 0 and lines[2:4] == [
        "means in the bundle: source_text, target_text, target_audio", "in use: target_text, target_audio",
    ]  # fmt: skip
    code, lines, _ = calibrate("--images", media_folder / "pictures")
    assert code == 0 and lines[2].startswith("translated images") and lines[4] == f"in use: {', '.join(ALL)}"
    np.testing.assert_allclose(load_bundle(run / "bundle").means.target_audio, unit(audio_NE).mean(0), atol=1e-5)


def test_a_bundle_without_captions_means(calibrate, run, media_folder, trained, tmp_path):
    write_modality_means(run / "bundle", ModalityMeans())
    flags = "--images", media_folder / "pictures"
    alone = Path(shutil.copytree(run / "bundle", tmp_path / "alone"))
    code, _, err = calibrate(*flags, run=alone)
    assert code == 2 and f"{alone} stores no means of captions" in err and "no store: pass --store" in err
    code, lines, err = calibrate(*flags)
    assert code == 0 and f"going through {ROWS} captions for their means" in err
    for name in TEXTS:  # the very ones that training would have put there
        np.testing.assert_array_equal(
            tensors(run / "bundle")[f"gap.{name}"], tensors(trained / "bundle")[f"gap.{name}"]
        )
    assert calibrate(*flags, "--store", run / "store", run=alone)[0] == 0
    assert load_bundle(alone).means.used == ["source_text", "source_image"]


def test_uses_of_the_means_are_reported(calibrate, run, media_folder, clap, capsys, tmp_path):
    """Only corrections are reported; captions' means alone correct nothing."""
    image, shown = str(media_folder / "pictures/00.png"), "shifting image vectors by the stored mean difference"
    search = ["search", image, "--library", str(media_folder / "sounds"), "--index", str(tmp_path / "index")]
    evaluate = ["evaluate", str(run), "--bootstrap", "0", "--out", str(tmp_path / "evaluation")]
    assert main([*search, "--translator", str(run), "--clap", str(clap)]) == 0
    assert shown not in capsys.readouterr().err
    assert calibrate("--sounds", media_folder / "sounds", "--clap", clap)[0] == 0
    assert main([*search, "--translator", str(run), "--clap", str(clap)]) == 0
    assert f"{shown}: target_text, target_audio\n" in capsys.readouterr().err
    assert main(evaluate) == 0
    results = json.loads((tmp_path / "evaluation/metrics.json").read_text())
    assert results["bundle"]["gap_statistics"] == ALL[2:]


def test_raw_vectors(calibrate, run, media_folder, image_BS):
    """A translator of raw vectors gets means of raw vectors."""
    config = json.loads((run / "bundle/config.json").read_text())
    config["translator"]["input_norm"] = "none"
    (run / "bundle/config.json").write_text(json.dumps(config))
    write_modality_means(run / "bundle", ModalityMeans())
    code, lines, _ = calibrate("--images", media_folder / "pictures")
    means, source = load_bundle(run / "bundle").means, Store.open(run / "store").read("source")
    _, training = split_rows(ROWS, HELD_OUT, Config().seed)
    np.testing.assert_allclose(means.source_text, source[training].mean(0, dtype=np.float64), atol=1e-6)
    np.testing.assert_allclose(means.source_image, image_BS.mean(0), atol=1e-5)
    length = np.linalg.norm(image_BS.mean(0) - means.source_text)
    spread = np.sum(image_BS.var(axis=0, ddof=1, dtype=np.float64)) / np.mean(np.sum(image_BS**2, axis=1))
    expected = [np.linalg.norm(means.source_image), spread, length, 0]
    assert code == 0 and figures(lines[0]) == pytest.approx(expected, abs=1e-4)
    assert lines[1] == error_line(IMAGES, "images", spread)


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def test_misuse(run, media_folder, clap, audioldm_folder, tmp_path, capsys, monkeypatch):
    images = ["--images", str(media_folder / "pictures")]
    before = (run / "bundle" / "model.safetensors").read_bytes()
    (tmp_path / "few").mkdir()
    for number in range(7):
        (tmp_path / "few" / f"{number}.png").write_bytes((media_folder / f"pictures/{number:02}.png").read_bytes())
        (tmp_path / "few" / f"{number}.wav").write_bytes(b"no sound")

    def message(*arguments, run=run):
        return refused(capsys, ["calibrate", str(run), *map(str, arguments)])

    assert "nothing to estimate from" in message()
    assert "cannot be combined with --images" in message("--remove", *images)
    assert "there is nothing to remove" in message("--remove")
    assert f"{tmp_path / 'none'} is neither a local run or bundle" in message(*images, run=tmp_path / "none")
    assert "found no file" in message("--images", tmp_path / "nothing.png")
    assert "found a named pipe" in message("--images", pipe(tmp_path / "pipe.png"))
    assert "found a named pipe" in message("--sounds", tmp_path / "pipe.png")
    assert "only 7 readable images: a mean needs 8 or more" in message("--images", tmp_path / "few")
    (tmp_path / "few" / "7.png").write_bytes(b"no image")
    assert "only 7 readable images: a mean needs 8 or more" in message("--images", tmp_path / "few")
    assert f"7 readable sounds in {tmp_path / 'few'}" in message("--sounds", tmp_path / "few", "--clap", clap)
    assert "expected a folder of sounds" in message("--sounds", tmp_path / "none")
    assert "no audio tower" in message("--sounds", media_folder / "sounds")
    assert "contains no image" in message("--images", media_folder / "sounds")
    assert "exists and is not a translator bundle" in message(*images, "--out", tmp_path / "few")
    for name in ("config.json", "model.safetensors"):  # named like a bundle's files, and not ours
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / name).write_text("{}")
    assert "exists and is not a translator bundle" in message(*images, "--out", tmp_path / "mine")
    assert (tmp_path / "mine" / "config.json").read_text() == "{}"
    monkeypatch.chdir(tmp_path / "few")
    assert "contains the current directory" in message(*images, "--out", ".")
    assert "comes from the package or the hub" in message(*images, run="miniworld/translator")
    monkeypatch.setattr(calibration, "EMBEDDED", run)
    assert "is not modified: pass --out" in message(*images)
    assert (run / "bundle" / "model.safetensors").read_bytes() == before
