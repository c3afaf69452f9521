"""The command line from training to sounds, and one line with exit code 2 for each bad input."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import soundfile
import torch
from PIL import Image

from c2c_jax.cli.main import keep_compiled, main
from c2c_jax.io.atomic import exclusive_lock
from c2c_jax.io.images import read_image
from c2c_jax.spaces.space import load_space
from c2c_jax.torch import Translator

ROOT = Path(__file__).parents[2]
FAST = ["--steps", "2", "--seconds", "0.64"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, clip_folder, audioldm_folder, short_captions) -> Path:
    """A work directory that `c2c train` filled from a text file of captions."""
    workdir = tmp_path_factory.mktemp("run")
    (workdir / "captions.txt").write_text("\n".join(short_captions), encoding="utf-8")
    assert main(train_arguments(workdir, clip_folder, audioldm_folder)) == 0
    return workdir


def train_arguments(workdir: Path, clip: Path, audioldm: Path, *more: str) -> list[str]:
    return [
        "train", "--config", str(ROOT / "configs" / "mlp_infonce.py"), "--workdir", str(workdir),
        f"--config.source={clip}", f"--config.target={audioldm}:text_encoder",
        f"--config.data.captions=txt:{workdir / 'captions.txt'}", "--config.data.validation_size=100",
        "--config.batch_size=100", "--config.epochs=2", *more,
    ]  # fmt: skip


@pytest.fixture
def image(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(tmp_path / "img.png")
    return tmp_path / "img.png"


def refused(capsys, arguments: list[str]) -> str:
    """Runs a command that must fail, and returns the line that it prints."""
    capsys.readouterr()
    assert main(arguments) == 2
    last = capsys.readouterr().err.strip().splitlines()
    assert last[-1].startswith(f"c2c {arguments[0]}: ") and "Traceback" not in "".join(last)
    return last[-1]


def test_picture_to_sound(run, image, audioldm_folder, tmp_path, capsys):
    arguments = ["infer", str(image), "--translator", str(run / "bundle"), "--audioldm", str(audioldm_folder), *FAST]
    assert main(arguments) == 0
    audio, rate = soundfile.read(tmp_path / "img.wav")
    assert rate == 16000 and audio.shape == (10240,) and audio.std() > 1e-3
    first = (tmp_path / "img.wav").read_bytes()
    assert main([*arguments, "--out", str(tmp_path / "again.wav")]) == 0
    assert (tmp_path / "again.wav").read_bytes() == first
    assert main([*arguments, "--out", str(tmp_path / "other.wav"), "--seed", "1"]) == 0
    assert (tmp_path / "other.wav").read_bytes() != first
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in ("img.wav", "again.wav", "other.wav")]


def test_saved_embedding_equals_torch(run, image, clip_folder, tmp_path):
    out = tmp_path / "x.npy"
    assert main(["infer", str(image), "--translator", str(run / "bundle"), "--save-embedding", str(out)]) == 0
    assert not (tmp_path / "img.wav").exists()
    clip_vector = torch.from_numpy(load_space(str(clip_folder)).encode_images([read_image(image)]))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(Translator.from_pretrained(run / "bundle")(clip_vector))[0].numpy()
    vector = np.load(out)
    assert vector.dtype == np.float32 and vector.shape == (64,)
    np.testing.assert_allclose(vector, expected, atol=1e-5, rtol=0)


def test_generator_of_another_space_is_refused(run, image, audioldm_folder, tmp_path, capsys):
    other = Path(shutil.copytree(audioldm_folder, tmp_path / "other"))
    weights = other / "text_encoder" / "model.safetensors"
    tensors = safetensors.numpy.load_file(weights)
    tensors["text_projection.linear2.bias"][0] += 1
    safetensors.numpy.save_file(tensors, weights, metadata={"format": "pt"})
    arguments = ["infer", str(image), "--translator", str(run / "bundle"), "--audioldm", str(other), *FAST]
    message = refused(capsys, arguments)
    assert f"{audioldm_folder}:text_encoder" in message and f"{other}:text_encoder" in message
    assert not (tmp_path / "img.wav").exists()


def test_clip_of_another_space_is_refused(run, image, clip_folder, tmp_path, capsys):
    other = Path(shutil.copytree(clip_folder, tmp_path / "other"))
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    out = tmp_path / "x.npy"
    message = refused(
        capsys,
        [
            "infer",
            str(image),
            "--translator",
            str(run / "bundle"),
            "--clip",
            str(other),
            "--save-embedding",
            str(out),
        ],
    )
    assert str(clip_folder) in message and str(other) in message and not out.exists()


def test_a_folder_without_a_picture(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["infer", ".", "--translator", str(run / "bundle"), "--save-embedding", "x.npy"]
    assert "folder . contains no image" in refused(capsys, arguments) and not any(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "text", "folder"])
def test_bad_picture(run, image, audioldm_folder, tmp_path, capsys, kind):
    bad = tmp_path / "bad.png"
    if kind == "empty":
        bad.touch()
    elif kind == "truncated":
        bad.write_bytes(image.read_bytes()[:2000])
    elif kind == "text":
        bad.write_text("this is no image")
    elif kind == "folder":
        bad.mkdir()
    arguments = ["infer", str(bad), "--translator", str(run / "bundle"), "--audioldm", str(audioldm_folder), *FAST]
    assert str(bad) in refused(capsys, arguments)
    assert not (tmp_path / "bad.wav").exists()


def test_infer_misuse(run, image, audioldm_folder, tmp_path, capsys):
    base = ["infer", str(image), "--translator"]
    assert "--audioldm" in refused(capsys, [*base, str(run / "bundle")])
    assert "contains no translator bundle" in refused(capsys, [*base, str(tmp_path), "--save-embedding", "x.npy"])
    message = refused(capsys, [*base, str(run / "bundle"), "--audioldm", "cvssp/audioldm-l-full"])
    assert "hf download cvssp/audioldm-l-full" in message
    assert "--include '*'" in message and "on a machine with network access" in message
    invalid = refused(capsys, [*base, str(run / "bundle"), "--audioldm", "a b c"])
    assert "nor a hub name" in invalid and "hf download" not in invalid
    with_generator = [*base, str(run / "bundle"), "--audioldm", str(audioldm_folder)]
    embedding = ["--save-embedding", str(tmp_path / "x.npy")]
    assert "steps" in refused(capsys, [*with_generator, *embedding, "--steps", "0"])
    assert "seconds must be above 0 and at most 600, found 1000000000.0" in refused(
        capsys, [*with_generator, "--seconds", "1e9"]
    )
    same = ["--out", str(tmp_path / "x.wav"), "--save-embedding", str(tmp_path / "x.wav")]
    assert "would both be written" in refused(capsys, [*with_generator, *same])
    (tmp_path / "folder").mkdir()
    message = refused(capsys, [*base, str(run / "bundle"), "--save-embedding", str(tmp_path / "folder")])
    assert f"{tmp_path / 'folder'} is a folder: pass a file in it" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "img.png"]
    assert "unknown argument --nonsense" in refused(capsys, [*base, str(run / "bundle"), "--nonsense"])


def test_damaged_bundle(run, image, tmp_path, capsys):
    bundle = Path(shutil.copytree(run / "bundle", tmp_path / "bundle"))
    arguments = ["infer", str(image), "--translator", str(bundle), "--save-embedding", str(tmp_path / "x.npy")]
    config = json.loads((bundle / "config.json").read_text())
    config["translator"]["width"] = 7
    (bundle / "config.json").write_text(json.dumps(config))
    assert "shape" in refused(capsys, arguments)
    for field, value, message in (("width", -7, "translator.width"), ("input_norm", "odd", "input_norm is")):
        damaged = {**config, "translator": {**config["translator"], field: value}}
        (bundle / "config.json").write_text(json.dumps(damaged))
        assert message in refused(capsys, arguments)
    (bundle / "config.json").write_text(json.dumps({**config, "format": 9}))
    assert "format 9" in refused(capsys, arguments)
    (bundle / "config.json").write_text("{")
    assert "config.json" in refused(capsys, arguments)


@pytest.mark.parametrize("part", ["unet", "vocoder", "text_encoder"])
def test_extra_tensor_in_a_part_of_audioldm(run, image, audioldm_folder, tmp_path, capsys, part):
    copy = Path(shutil.copytree(audioldm_folder, tmp_path / "audioldm"))
    file = next((copy / part).glob("*.safetensors"))
    tensors = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file({**tensors, "zzz": np.zeros(2, np.float32)}, file, metadata={"format": "pt"})
    arguments = ["infer", str(image), "--translator", str(run / "bundle"), "--audioldm", str(copy)]
    message = refused(capsys, arguments)
    assert "zzz" in message or part == "text_encoder"  # which is another space by its fingerprint, and refused before


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.nothing=1", "nothing"),
        ("--config.data.nothing=1", "nothing"),
        ("--config.epochs=many", "many"),
        ("--nonsense=1", "nonsense"),
        ("--config.data.captions=tsv:empty.tsv", "empty.tsv"),
        ("--config.data.captions=xml:x.xml", "xml:x.xml"),
        ("--config.source=openai/clip-vit-base-patch32", "hf download openai/clip-vit-base-patch32"),
        ("--num-processes=2", "go together"),
        ("--config.translator.kind=zz", "known are mlp, linear"),
        ("--config.translator.clamp=-1.0", "must be 0 or more"),
        ("--config.data.validation_size=0", "must be 1 or more"),
    ],
)
def test_train_misuse(tmp_path, monkeypatch, clip_folder, audioldm_folder, short_captions, capsys, flag, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.tsv").touch()
    (tmp_path / "captions.txt").write_text("\n".join(short_captions))
    assert message in refused(capsys, train_arguments(tmp_path, clip_folder, audioldm_folder, flag))
    assert {path.name for path in tmp_path.iterdir()} <= {"empty.tsv", "captions.txt"}


def test_second_run_in_one_work_directory(run, clip_folder, audioldm_folder, capsys):
    with exclusive_lock(run):
        message = refused(capsys, train_arguments(run, clip_folder, audioldm_folder))
    assert f"another run is using {run}" in message
    assert main(train_arguments(run, clip_folder, audioldm_folder)) == 0


def test_refused_checkpoint_leaves_no_store(tmp_path, clip_folder, audioldm_folder, short_captions, capsys):
    broken = Path(shutil.copytree(clip_folder, tmp_path / "broken"))
    tensors = safetensors.numpy.load_file(broken / "model.safetensors")
    tensors.pop("text_projection.weight")
    safetensors.numpy.save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "captions.txt").write_text("\n".join(short_captions))
    assert "text_projection.weight" in refused(capsys, train_arguments(tmp_path, broken, audioldm_folder))
    assert not (tmp_path / "store").exists()


def test_missing_config_file(tmp_path, capsys):
    message = refused(capsys, ["train", "--config", str(tmp_path / "no.py"), "--workdir", str(tmp_path / "run")])
    assert "no.py" in message and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def get_config(:", "SyntaxError"),
        ("get_config = 1", "TypeError"),
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("def get_config(): return 3", "must return a c2c_jax.config.Config"),
    ],
)
def test_config_file_that_fails(tmp_path, capsys, content, message):
    (tmp_path / "recipe.py").write_text(content)
    arguments = ["train", "--config", str(tmp_path / "recipe.py"), "--workdir", str(tmp_path / "run")]
    assert message in refused(capsys, arguments)


def test_file_instead_of_a_folder(run, image, clip_folder, audioldm_folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "captions.txt").write_text("a dog\na cat\n")
    embedding = str(tmp_path / "file" / "x.npy")
    arguments = ["infer", str(image), "--translator", str(run / "bundle"), "--save-embedding", embedding]
    assert str(tmp_path / "file") in refused(capsys, arguments)
    store = f"--config.data.store={run / 'store'}"
    captions = f"--config.data.captions=txt:{run / 'captions.txt'}"
    arguments = train_arguments(tmp_path / "file", clip_folder, audioldm_folder, captions, store)
    assert str(tmp_path / "file") in refused(capsys, arguments)


def test_damaged_config_of_a_run(run, clip_folder, audioldm_folder, tmp_path, capsys):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "config.json").write_text("{")
    captions = f"--config.data.captions=txt:{run / 'captions.txt'}"
    assert "config.json cannot be read as JSON" in refused(
        capsys, train_arguments(copy, clip_folder, audioldm_folder, captions)
    )


def test_store_of_another_pair(run, clip_folder, audioldm_folder, tmp_path, capsys):
    other = Path(shutil.copytree(clip_folder, tmp_path / "other"))
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    arguments = train_arguments(run, other, audioldm_folder)
    assert "was made with source space" in refused(capsys, arguments)


@pytest.mark.parametrize(
    ("verb", "example"),
    [
        ("train", "c2c train --recipe"),
        ("embed", "c2c embed"),
        ("infer", "c2c infer photo.png"),
        ("export", "c2c export runs/mlp --out"),
        ("import-checkpoint", "c2c import-checkpoint linear2"),
    ],
)
def test_help_shows_an_example(verb, example, capsys):
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert example in capsys.readouterr().out


@pytest.mark.parametrize("home", ["nothing", "a file", "read-only"])
def test_home_without_a_cache(home, tmp_path, monkeypatch):
    """There is no compilation cache, and nothing is printed about it."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home == "nothing":
        monkeypatch.setattr(Path, "home", classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError("no home"))))
    elif home == "a file":
        (tmp_path / "cache").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/1")
    keep_compiled()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_compilation_cache_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "7")  # the user's own word comes before
    keep_compiled()
    assert os.environ.pop("JAX_COMPILATION_CACHE_DIR") == str(tmp_path / "c2c_jax" / "xla")
    assert os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] == "7"


def test_compiled_programs_of_killed_processes_are_removed(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "c2c_jax" / "xla"
    cache.mkdir(parents=True)
    for name in ("whole-cache", "whole-atime", "cut-cache", "now-cache", ".lockfile"):
        (cache / name).write_bytes(b"x")
    for name in ("whole-cache", "cut-cache"):
        os.utime(cache / name, (0, 0))
    keep_compiled()
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    assert {path.name for path in cache.iterdir()} == {"whole-cache", "whole-atime", "now-cache", ".lockfile"}
