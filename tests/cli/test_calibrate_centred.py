"""`c2c calibrate` for translators of centred vectors: images, sounds and texts, from files and from arrays."""
# ruff: noqa: F401, F811  (fixtures)

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from c2c_jax.cli.main import main
from c2c_jax.spaces.space import load_space
from c2c_jax.torch import Translator
from c2c_jax.translator.bundle import load_bundle
from c2c_jax.translator.inference import translate
from tests.cli.test_calibrate import (
    ALL,
    AUDIO,
    IMAGES,
    TEXTS,
    audio_NE,
    calibrate,
    clap,
    error_line,
    figures,
    image_BS,
    media_folder,
    ridge_run,
    tensors,
    unit,
)
from tests.cli.test_main import refused

QUERIES = [f"{what} {where}" for what in ("a dog", "rain", "a bell", "wind") for where in ("here", "far off", "again")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, clip_folder, audioldm_folder) -> Path:
    """The work directory, with its store, of a ridge of centred vectors, trained on random vectors of the tiny
    spaces."""
    return ridge_run(tmp_path_factory.mktemp("trained") / "run", clip_folder, audioldm_folder, "centred")


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def blind(run) -> Path:
    """A bundle whose checkpoints do not exist."""
    config = json.loads((run / "bundle/config.json").read_text())
    for side in ("source", "target"):
        config[side]["name"] = f"/no/{side}"
    (run / "bundle/config.json").write_text(json.dumps(config))
    return run


@pytest.fixture
def arrays(tmp_path, image_BS, audio_NE) -> tuple[Path, Path]:
    for name, array in (("images", image_BS), ("sounds", audio_NE)):
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path / "images.npy", tmp_path / "sounds.npy"


def centred(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return unit(unit(x) - mean)


def by_hand(x_BS: np.ndarray, weights: dict[str, np.ndarray], mean: str, output_mean: str) -> np.ndarray:
    """Translates through a ridge by hand: centred by one mean and un-centred with the other."""
    x = np.sqrt(x_BS.shape[1]) * centred(x_BS, weights[f"gap.{mean}"])
    u = unit(x @ weights["linear.weight"].T.astype(np.float64) + weights["linear.bias"])
    mean_E = weights[f"gap.{output_mean}"].astype(np.float64)
    along = u @ mean_E
    return mean_E + u * (np.sqrt(along**2 + 1 - mean_E @ mean_E) - along)[:, None]


def test_pictures_and_sounds(calibrate, run, media_folder, clap, image_BS, audio_NE, capsys, tmp_path):
    before = tensors(run / "bundle")
    code, lines, err = calibrate(
        "--images", media_folder / "pictures", "--sounds", media_folder / "sounds", "--clap", clap
    )
    assert code == 0
    means, after = load_bundle(run / "bundle").means, tensors(run / "bundle")
    assert means.known == ALL and all(np.array_equal(after[name], tensor) for name, tensor in before.items())
    np.testing.assert_allclose(means.source_image, unit(image_BS).mean(0), atol=1e-6)
    np.testing.assert_allclose(means.target_audio, unit(audio_NE).mean(0), atol=1e-5)
    rows = [(IMAGES, "images", image_BS, means.source_text), (AUDIO, "sounds", audio_NE, means.target_text)]
    for start, (count, kind, vectors, text) in zip((0, 2), rows, strict=True):
        mean, variance = unit(vectors).mean(0), unit(vectors).var(axis=0, ddof=1).sum()
        assert re.fullmatch(rf"{count} {kind}: mean \S+ long, spread \S+, distance to captions \S+", lines[start])
        expected = [np.linalg.norm(mean), variance, np.linalg.norm(mean - text)]
        assert figures(lines[start]) == pytest.approx(expected, abs=1e-4)
        assert lines[start + 1] == error_line(count, kind, variance)
    assert lines[4:] == [
        f"means in the bundle: {', '.join(ALL)}",
        "results are un-centred with the mean of captions; infer --output-mean audio uses the mean of sounds",
        str(run / "bundle"),
    ]
    captions = 1 - np.sum(means.source_text.astype(np.float64) ** 2)
    is_narrow = unit(image_BS).var(axis=0, ddof=1).sum() < 0.85 * captions  # the tiny tower tells little apart
    assert is_narrow and "these images are very similar" in err

    loaded, twin = load_bundle(run / "bundle"), Translator.from_pretrained(run / "bundle")
    for output_mean in ("text", "audio"):
        expected = by_hand(image_BS, after, "source_image", f"target_{output_mean}")
        np.testing.assert_allclose(translate(loaded, image_BS, output_mean), expected, atol=2e-5)
        with torch.no_grad():
            np.testing.assert_allclose(twin.from_image(torch.from_numpy(image_BS), output_mean), expected, atol=2e-5)
        command = [
            "infer",
            str(media_folder / "pictures/00.png"),
            "--translator",
            str(run),
            "--output-mean",
            output_mean,
        ]
        capsys.readouterr()
        assert main([*command, "--save-embedding", str(tmp_path / "v.npy")]) == 0
        np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected[0], atol=2e-5)
        message = capsys.readouterr().err
        assert "centring images with the mean stored in the translator\n" in message
        assert ("un-centring results with the mean of sounds" in message) == (output_mean == "audio")

    code, lines, _ = calibrate("--remove")
    assert code == 0 and lines == [f"means in the bundle: {', '.join(TEXTS)}", str(run / "bundle")]
    assert all(np.array_equal(tensors(run / "bundle")[name], tensor) for name, tensor in before.items())
    assert "stores no mean of sounds for --output-mean" in refused(capsys, [*command, "--save-embedding", "v.npy"])
    assert "there is nothing to remove" in calibrate("--remove")[2]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_arrays_need_no_checkpoint(calibrate, blind, arrays, image_BS, audio_NE, dtype):
    """Neither tower is needed; the statistics are those of the vectors in the files."""
    for path, vectors in zip(arrays, (image_BS, audio_NE), strict=True):
        np.save(path, vectors.astype(dtype))
    code, lines, err = calibrate("--images", arrays[0], "--sounds", arrays[1])
    assert code == 0 and "left out" not in err
    means = load_bundle(blind / "bundle").means
    np.testing.assert_allclose(means.source_image, unit(image_BS.astype(dtype)).mean(0), atol=1e-6)
    np.testing.assert_allclose(means.target_audio, unit(audio_NE.astype(dtype)).mean(0), atol=1e-6)
    assert lines[0].startswith(f"{IMAGES} images: ") and lines[2].startswith(f"{AUDIO} sounds: ")


@pytest.mark.parametrize("axes", [1, 2])
def test_mean_as_input(calibrate, blind, tmp_path, image_BS, axes):
    """A single vector [S] or [1, S] with a norm below 1 is the mean."""
    mean = (0.75 * unit(image_BS[:1])).astype(np.float32)
    np.save(tmp_path / "mean.npy", mean[0] if axes == 1 else mean)
    code, lines, _ = calibrate("--images", tmp_path / "mean.npy")
    means = load_bundle(blind / "bundle").means
    assert code == 0
    np.testing.assert_array_equal(means.source_image, mean[0])
    expected = [0.75, 1 - 0.75**2, np.linalg.norm(mean[0] - means.source_text)]
    assert lines[0].startswith("mean of images as given: ") and figures(lines[0]) == pytest.approx(expected, abs=1e-4)
    assert lines[1] == f"means in the bundle: {', '.join(ALL[:3])}"


def test_narrow_and_general_pictures(calibrate, blind, tmp_path):
    """They differ by their spread, relative to the captions'."""
    text = load_bundle(blind / "bundle").means.source_text
    across = unit(np.random.default_rng(0).normal(size=(200, len(text))))
    common = unit(np.ones((1, len(text))))
    captions = 1 - np.sum(text**2)
    for share, is_narrow in ((1.1, False), (0.9, False), (0.75, True), (0.3, True)):
        spread = min(share * captions, 0.99)
        np.save(tmp_path / "a.npy", 9 * unit(np.sqrt(1 - spread) * common + np.sqrt(spread) * across))
        code, lines, err = calibrate("--images", tmp_path / "a.npy")
        assert code == 0 and ("these images are very similar" in err) == is_narrow, share
        assert ("use general images" in err) == is_narrow
        assert figures(lines[0])[1] == pytest.approx(spread, abs=0.02)


def of_texts(texts: list[str], clip_folder: Path, audioldm_folder: Path) -> list[np.ndarray]:
    return [load_space(name).encode_text(texts) for name in (str(clip_folder), f"{audioldm_folder}:text_encoder")]


def test_texts_alone(calibrate, run, clip_folder, audioldm_folder, tmp_path):
    """The means of a file's distinct texts replace those of captions in both spaces."""
    before = tensors(run / "bundle")
    (tmp_path / "queries.txt").write_text("\n".join([*QUERIES, QUERIES[0], ""]))
    for name in ("README.md", "model.onnx", "model_from_image.onnx"):
        (run / "bundle" / name).write_text("made before")
    code, lines, err = calibrate("--texts", tmp_path / "queries.txt")
    assert code == 0 and f"{len(QUERIES)} captions read from txt:" in err and "1 duplicate dropped" in err
    assert "README.md and model_from_image.onnx and model.onnx in" in err
    assert err.count("so images are centred with the mean of texts") == 1
    after, means = tensors(run / "bundle"), load_bundle(run / "bundle").means
    assert means.known == TEXTS
    source, target = of_texts(QUERIES, clip_folder, audioldm_folder)
    for start, (space, vectors, name) in enumerate((("CLIP", source, TEXTS[0]), ("CLAP", target, TEXTS[1]))):
        mean, variance = unit(vectors).mean(0), unit(vectors).var(axis=0, ddof=1).sum()
        np.testing.assert_allclose(after[f"gap.{name}"], mean, atol=1e-6)
        expected = [np.linalg.norm(mean), variance, np.linalg.norm(mean - before[f"gap.{name}"])]
        assert lines[2 * start].startswith(f"{len(QUERIES)} texts, {space}: ")
        assert lines[2 * start].endswith(" from the mean of captions that it replaces")
        assert figures(lines[2 * start]) == pytest.approx(expected, abs=1e-4)
        assert lines[2 * start + 1] == error_line(len(QUERIES), f"texts, {space}", variance)
    assert all(np.array_equal(after[name], before[name]) for name in before if not name.startswith("gap."))
    with torch.no_grad():
        output = Translator.from_pretrained(run / "bundle")(torch.from_numpy(source))
    np.testing.assert_allclose(output, by_hand(source, after, "source_text", "target_text"), atol=2e-5)


def test_texts_and_pictures(calibrate, run, media_folder, image_BS, clip_folder, audioldm_folder, tmp_path):
    """Both together, with texts from a caption source; distances are measured to the texts' mean."""
    out, before = tmp_path / "out", tensors(run / "bundle")
    (tmp_path / "queries.csv").write_text("id,text\n" + "".join(f"{n},{text}\n" for n, text in enumerate(QUERIES)))
    code, lines, err = calibrate(
        "--texts", f"csv:{tmp_path / 'queries.csv'}:text", "--images", media_folder / "pictures", "--out", out
    )
    assert code == 0 and lines[6:] == [f"means in the bundle: {', '.join(ALL[:3])}", str(out)]
    assert "no mean of images" not in err
    means, source = load_bundle(out).means, of_texts(QUERIES, clip_folder, audioldm_folder)[0]
    np.testing.assert_allclose(means.source_text, unit(source).mean(0), atol=1e-6)
    np.testing.assert_allclose(means.source_image, unit(image_BS).mean(0), atol=1e-6)
    length = np.linalg.norm(unit(image_BS).mean(0) - unit(source).mean(0))
    assert figures(lines[4])[2] == pytest.approx(length, abs=1e-4)
    after = tensors(run / "bundle")
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_misuse(run, media_folder, arrays, tmp_path, capsys):
    images, audio = map(str, arrays)
    before = (run / "bundle" / "model.safetensors").read_bytes()

    def message(*arguments):
        return refused(capsys, ["calibrate", str(run), *map(str, arguments)])

    (tmp_path / "few.txt").write_text("a dog\nrain\n")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "one.npy", np.load(images)[0] / np.linalg.norm(np.load(images)[0]) * 2)
    np.save(tmp_path / "same.npy", np.tile(np.load(images)[:1], (9, 1)))
    np.save(tmp_path / "seven.npy", np.load(images)[:7])
    np.save(tmp_path / "zero.npy", 0 * np.load(images))
    np.save(tmp_path / "wide.npy", np.ones((9, 65)))
    assert "--remove cannot be combined with" in message("--remove", "--texts", tmp_path / "few.txt")
    assert "pass --images PATH..., --sounds FOLDER or --texts FILE" in message()
    assert "--images takes images or one .npy file of vectors, found 2" in message(
        "--images", images, media_folder / "pictures"
    )
    assert "expected an .npy file of vectors at" in message("--images", tmp_path / "none.npy")
    assert "expected an .npy file of vectors at" in message("--sounds", tmp_path / "none.npy")
    assert "cannot be read as an .npy file" in message("--images", tmp_path / "bad.npy")
    assert "expected raw vectors [N, 64]" in message("--images", tmp_path / "wide.npy")
    assert "expected raw vectors [N, 64]" in message("--sounds", tmp_path / "wide.npy")
    assert "a single vector of length 2 is not the mean of images" in message("--images", tmp_path / "one.npy")
    assert "all 9 images have the same vector" in message("--images", tmp_path / "same.npy")
    assert "all 9 sounds have the same vector" in message("--sounds", tmp_path / "same.npy")
    assert "only 7 readable images: a mean needs 8 or more" in message("--images", tmp_path / "seven.npy")
    assert "row 0 is zero or not finite" in message("--images", tmp_path / "zero.npy")
    assert "only 2 readable texts: a mean needs 8 or more" in message("--texts", tmp_path / "few.txt")
    assert "found no file: pass a file with one text per line, or a caption" in message(
        "--texts", tmp_path / "none.txt"
    )
    assert "found a folder: pass a file with one text per line" in message("--texts", tmp_path)
    assert "cannot read captions from" in message("--texts", f"txt:{tmp_path / 'none.txt'}")
    assert "unknown caption source 'x:y'" in message("--texts", "x:y")
    assert (run / "bundle" / "model.safetensors").read_bytes() == before
