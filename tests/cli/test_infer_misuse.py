"""`c2c infer`: errors, skipped inputs and reports."""

import json
import os
import re
import resource
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from c2c_jax.cli.main import main
from c2c_jax.errors import ConfigError
from c2c_jax.generation.plan import plan
from c2c_jax.generation.records import read_records
from c2c_jax.io.files import sha256_of, text_to_path
from tests.cli.test_infer import centred
from tests.fixtures.audio_files import read_audio


def test_unreadable_pictures_are_reported_and_skipped(infer, image_folder):
    (image_folder / "b.jpg").write_bytes(b"no image")
    code, files, err = infer(image_folder)
    assert code == 2 and [file.name for file in files] == ["a.wav", "c.wav"]
    assert f"left out: {image_folder / 'b.jpg'} is damaged" in err
    assert err.strip().splitlines()[-1] == "c2c infer: 1 of 3 images could not be read; they are named above"


def test_sounds_do_not_overwrite_each_other(infer, image_folder, tmp_path):
    shutil.copy(image_folder / "a.png", image_folder / "a.2.png")
    code, files, err = infer(image_folder, "--candidates", "2")
    assert code == 2 and not files and "a.2.png and" in err and "would both be written to" in err
    (image_folder / "a.2.png").rename(image_folder / "a.control.png")
    code, files, err = infer(image_folder, "--control", "rain")
    assert code == 2 and not files and "would both be written to" in err
    assert infer(image_folder)[0] == 0


def test_files_of_the_user_stay(infer, image_folder):
    (image_folder / "a.json").write_text('{"taken": "in Rome"}')
    assert infer(image_folder / "a.png")[0] == 0
    assert (image_folder / "a.json").read_text() == '{"taken": "in Rome"}'


def test_names_are_reported_unchanged(infer, image_folder):
    odd = (image_folder / "b.jpg").rename(image_folder / "b [red] [x].jpg")
    odd.write_bytes(b"no image")
    code, _, err = infer(image_folder)
    assert code == 2 and f"left out: {odd} is damaged" in err


def test_a_full_disk_names_the_file(infer, image_folder, tmp_path):
    """Simulated by a limit on file sizes: the sound fits, its spectrogram does not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, limits[1]))
    try:
        code, _, err = infer(image_folder / "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2 and f"{image_folder / 'a.mel.png'}: File too large" in err
    assert len(read_audio(image_folder / "a.wav")) == 10_240
    assert {path.suffix for path in image_folder.iterdir()} == {".png", ".jpg", ".wav"}


def test_silence_is_reported(infer, image_folder, audioldm_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    mute = Path(shutil.copytree(audioldm_folder, tmp_path / "mute"))
    path = mute / "vocoder/model.safetensors"
    weights = load_file(path)
    for name in ("weight", "bias"):
        weights[f"conv_post.{name}"].zero_()
    save_file(weights, path, metadata={"format": "pt"})
    code, (file,), err = infer(image_folder / "a.png", audioldm=mute)
    assert code == 0 and f"{file} is silent" in err
    assert json.loads(file.with_suffix(".sound.json").read_text())["sounds"][0]["defects"] == [
        "silent: its peak is 0 of full scale"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.wav"], "3 sounds and one file x.wav: pass a folder"),
        (["--out", "x.mp3"], "ends in .mp3: pass a .wav or .flac file, or a folder"),
        (["--mix", "0.3"], "0 prompts and images to blend and 1 weights"),
        (["--prompt", "a", "--mix", "1.5"], "pass numbers above 0 that sum to at most 1"),
        (["--prompt", "a", "--prompt", "b", "--prompt", "c", "--mix", "0.1", "--mix", "0.1"], "3 prompts .* 2 weights"),
        (["--control", "a", "--control", "b"], "3 sounds and 2 --control texts"),
        (["--candidates", "0"], "candidates must be .*, found 0"),
        (["--candidates", "1000000000"], "candidates must be from 1 to 1,000, found 1000000000"),
        (["--seed", "9223372036854775808"], "found 9223372036854775808"),
        (["--seed", "-1"], "seed must be .*, found -1"),
        (["--steps", "0"], "steps must be .*, found 0"),
        (["--steps", "1000000000"], "steps must be .*, found 1000000000"),
        (["--seconds", "nan"], "seconds must be .*, found nan"),
        (["--seconds", "inf"], "seconds must be .*, found inf"),
        (["--guidance", "nan"], "guidance must be .*, found nan"),
        (["--prompt", "a", "--mix", "nan"], "pass numbers above 0 that sum to at most 1"),
        (["--prompt", ""], "--prompt is empty"),
        (["--control", " "], "--control is empty"),
        (["--prompt", "a" * 10_001], "--prompt has 10,001 characters"),
        (["--prompt", "\udce9"], "--prompt is not UTF-8"),
        (["--out", "x.flac", "--format", "wav"], "3 sounds and one file x.flac"),
        (["--batch-size", "0"], "--batch-size must be 1 or more, found 0"),
        (["--device", "abacus"], "torch cannot use device 'abacus'"),
        (["--dtype", "float16", "--device", "cpu"], "float16 is for GPUs"),
        (["--ranker", "no/such"], "hf download no/such"),
        (["--blend", "nothing.png"], "nothing.png, found no file"),
        (["--output-mean", "audio"], "--output-mean audio is for translators of centred vectors"),
        (["nothing/*.png"], "pattern nothing/\\*.png contains no image"),
    ],
)  # fmt: skip
def test_misuse_is_one_line_and_writes_nothing(infer, image_folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, files, err = infer(image_folder, *arguments)
    assert code == 2 and not files
    (line,) = [line for line in err.splitlines() if line.startswith("c2c infer: ")]
    assert re.search(message, line), line
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_and_two_of_one_name(infer, image_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = infer(tmp_path / "empty")
    assert code == 2 and "contains no image" in err
    shutil.copy(image_folder / "a.png", image_folder / "a.jpg")
    code, _, err = infer(image_folder)
    assert code == 2 and "a.jpg and" in err and "would both be written to" in err
    code, _, err = infer(
        image_folder / "a.png", "--prompt", "rain", "--save-embedding", tmp_path / "x.npy", audioldm=None
    )
    assert code == 2 and "--prompt needs --audioldm" in err


def test_missing_output_mean(infer, image_folder, bundle, tmp_path):
    """It is reported before any network is loaded."""
    translator = centred(bundle, tmp_path / "centred", "source_text", "target_text")
    code, files, err = infer(image_folder, "--translator", translator, "--output-mean", "audio")
    assert code == 2 and not files and "stores no mean of sounds" in err and len(err.splitlines()) == 1
    with pytest.raises(SystemExit):
        infer(image_folder, "--translator", translator, "--output-mean", "images")


@pytest.fixture
def refused(infer, tmp_path):
    """Asserts that a call is refused in one line, that no network was loaded, and that nothing was written; gives the
    line."""

    def run(*arguments, audioldm=None, **options):
        before = sorted(tmp_path.rglob("*"))
        code, files, err = infer(*arguments, **options)
        assert code == 2 and not files and len(err.splitlines()) == 1, err
        assert sorted(tmp_path.rglob("*")) == before
        return err

    return run


def test_output_paths_are_checked_before_sampling(refused, image_folder, tmp_path):
    image = image_folder / "a.png"
    os.mkfifo(tmp_path / "pipe.npy")
    assert "is a named pipe" in refused(image, "--save-embedding", tmp_path / "pipe.npy")
    assert "is a device" in refused(image, "--save-embedding", "/dev/null")
    assert "is a folder: pass a file in it" in refused(image, "--save-embedding", image_folder)
    assert "is one of the inputs" in refused(image, "--save-embedding", image)
    (tmp_path / "notes.txt").write_text("mine")
    assert "exists and is not an .npy file" in refused(image, "--save-embedding", tmp_path / "notes.txt")
    assert "is a file, not a folder" in refused(image, "--out", tmp_path / "notes.txt" / "x")
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "a.wav")
    assert "is a named pipe" in refused(image, "--out", tmp_path / "out")
    for name in ("a.sound.json", "a.mel.png"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).mkdir()
        assert f"{name} is a folder" in refused(image, "--out", tmp_path / name)
    assert (tmp_path / "notes.txt").read_text() == "mine" and Path("/dev/null").is_char_device()


def test_long_names_are_refused_before_sampling(refused, infer, image_folder):
    """245 characters: the sound fits, its record does not."""
    (image_folder / "a.png").rename(image_folder / f"{'n' * 245}.png")
    assert "takes 256 bytes, 255 are allowed" in refused(image_folder)
    (image_folder / f"{'n' * 245}.png").rename(image_folder / f"{'n' * 242}.png")
    assert "takes 258 bytes" in refused(image_folder, "--control", "rain")
    code, files, _ = infer(image_folder / f"{'n' * 242}.png")
    assert code == 0 and len(read_audio(files[0])) == 10_240 and files[0].with_suffix(".sound.json").is_file()


def test_sound_of_the_user_stays(refused, infer, image_folder):
    soundfile.write(image_folder / "a.wav", np.linspace(-1, 1, 800), 8000)
    own = (image_folder / "a.wav").read_bytes()
    assert "a.wav exists and was not written by c2c infer" in refused(image_folder / "a.png")
    assert "a.wav exists" in refused(image_folder / "a.png", "--out", image_folder / "a.wav")
    assert (image_folder / "a.wav").read_bytes() == own
    (image_folder / "a.wav").unlink()
    assert infer(image_folder / "a.png")[0] == 0
    (image_folder / "a.sound.json").unlink()  # as a run that was killed leaves it
    assert infer(image_folder / "a.png")[0] == 0


@pytest.mark.slow
def test_interrupted_rerun_leaves_no_old_record(infer, image_folder, monkeypatch):
    assert infer(image_folder / "a.png")[0] == 0
    (known,) = json.loads((image_folder / "a.sound.json").read_text())["sounds"]
    assert known["sha256"] == sha256_of(image_folder / "a.wav")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("c2c_jax.generation.rendering.draw_mel_spectrogram", stop)
        assert infer(image_folder / "a.png", "--seed", "7")[0] == 130
    assert sha256_of(image_folder / "a.wav") != known["sha256"]
    assert not (image_folder / "a.sound.json").exists()
    assert infer(image_folder / "a.png")[0] == 0  # the sound is still known for one of ours
    assert (image_folder / "a.sound.json").exists()


def test_a_picture_named_like_its_sound(refused, image_folder):
    odd = (image_folder / "a.png").rename(image_folder / "a.wav")
    assert "is one of the inputs" in refused(odd)


def test_names_that_are_not_utf8_or_hold_control_characters(infer, image_folder):
    raw = (image_folder / "a.png").rename(image_folder / os.fsdecode(b"caf\xe9.png"))
    odd = (image_folder / "c.png").rename(image_folder / "\u732b $x^$\n\x1b[31m.png")
    with warnings.catch_warnings(action="error", category=UserWarning):
        code, _, err = infer(raw, odd)
    assert code == 0 and "\x1b" not in err
    for image in (raw, odd):
        assert len(read_audio(os.fsencode(image.with_suffix(".wav")))) == 10_240
        assert image.with_suffix(".mel.png").stat().st_size > 1000
    records = {text_to_path(record.content.pictures[0].path): record for record in read_records(image_folder)[0]}
    assert set(records) == {raw, odd} and records[raw].content.pictures[0].path.startswith("file:")
    assert {record.audio_path for record in records.values()} == {raw.with_suffix(".wav"), odd.with_suffix(".wav")}


def test_folders_inside_folders_keep_their_names(infer, image_folder, tmp_path):
    (image_folder / "deep").mkdir()
    shutil.copy(image_folder / "a.png", image_folder / "deep" / "a.png")
    names = [image_folder / "a.png", image_folder / "deep" / "a.png"]
    placed = plan(names, out=tmp_path / "out", roots=[image_folder])
    assert [job.out for job in placed] == [tmp_path / "out" / "a.wav", tmp_path / "out" / "deep" / "a.wav"]
    averaged = plan(names, out=tmp_path / "out", roots=[image_folder], average=True)
    assert [job.out for job in averaged] == [tmp_path / "out" / "pictures.wav", tmp_path / "out" / "deep.wav"]
    with pytest.raises(ConfigError, match="would both be written to"):
        plan(names, out=tmp_path / "out")


def test_missing_picture_is_reported_before_imports(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "c2c_jax.generation.pipeline", None)
    assert main(["infer", str(tmp_path / "dgo.png"), "--translator", str(tmp_path / "none")]) == 2
    assert f"expected an image at {tmp_path / 'dgo.png'}, found no file" in capsys.readouterr().err
