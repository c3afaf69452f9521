"""What `c2c infer` refuses, leaves out and tells of."""

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
from tests.fixtures.sounds import sound


def test_unreadable_pictures_are_told_of_and_the_others_made(infer, pictures):
    (pictures / "b.jpg").write_bytes(b"no picture")
    code, files, err = infer(pictures)
    assert code == 2 and [file.name for file in files] == ["a.wav", "c.wav"]
    assert f"left out: {pictures / 'b.jpg'} is damaged" in err
    assert err.strip().splitlines()[-1] == "c2c infer: 1 of 3 pictures could not be read; they are named above"


def test_no_sound_is_written_over_another(infer, pictures, tmp_path):
    shutil.copy(pictures / "a.png", pictures / "a.2.png")
    code, files, err = infer(pictures, "--candidates", "2")
    assert code == 2 and not files and "a.2.png and" in err and "would both be written to" in err
    (pictures / "a.2.png").rename(pictures / "a.control.png")
    code, files, err = infer(pictures, "--control", "rain")
    assert code == 2 and not files and "would both be written to" in err
    assert infer(pictures)[0] == 0


def test_files_of_the_users_own_stay(infer, pictures):
    (pictures / "a.json").write_text('{"taken": "in Rome"}')
    assert infer(pictures / "a.png")[0] == 0
    assert (pictures / "a.json").read_text() == '{"taken": "in Rome"}'


def test_names_are_told_as_they_are(infer, pictures):
    odd = (pictures / "b.jpg").rename(pictures / "b [red] [x].jpg")
    odd.write_bytes(b"no picture")
    code, _, err = infer(pictures)
    assert code == 2 and f"left out: {odd} is damaged" in err


def test_a_full_disk_names_the_file(infer, pictures, tmp_path):
    """A limit on the size of files stands for it: the sound fits, its picture does not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, limits[1]))
    try:
        code, _, err = infer(pictures / "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2 and f"{pictures / 'a.mel.png'}: File too large" in err
    assert len(sound(pictures / "a.wav")) == 10_240
    assert {path.suffix for path in pictures.iterdir()} == {".png", ".jpg", ".wav"}


def test_silence_is_told(infer, pictures, audioldm_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    mute = Path(shutil.copytree(audioldm_folder, tmp_path / "mute"))
    path = mute / "vocoder/model.safetensors"
    weights = load_file(path)
    for name in ("weight", "bias"):
        weights[f"conv_post.{name}"].zero_()
    save_file(weights, path, metadata={"format": "pt"})
    code, (file,), err = infer(pictures / "a.png", audioldm=mute)
    assert code == 0 and f"{file} is silent" in err
    assert json.loads(file.with_suffix(".sound.json").read_text())["sounds"][0]["defects"] == [
        "silent: its peak is 0 of full scale"
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "x.wav"], "3 sounds and one file x.wav: pass a folder"),
        (["--out", "x.mp3"], "ends in .mp3: pass a .wav or .flac file, or a folder"),
        (["--mix", "0.3"], "0 things to mix in and 1 weights"),
        (["--prompt", "a", "--mix", "1.5"], "take numbers above 0 that sum to 1 at most"),
        (["--prompt", "a", "--prompt", "b", "--prompt", "c", "--mix", "0.1", "--mix", "0.1"], "3 things .* 2 weights"),
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
        (["--prompt", "a", "--mix", "nan"], "take numbers above 0 that sum to 1 at most"),
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
def test_misuse_is_one_line_and_writes_nothing(infer, pictures, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, files, err = infer(pictures, *arguments)
    assert code == 2 and not files
    (line,) = [line for line in err.splitlines() if line.startswith("c2c infer: ")]
    assert re.search(told, line), line
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_and_two_of_one_name(infer, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = infer(tmp_path / "empty")
    assert code == 2 and "contains no image" in err
    shutil.copy(pictures / "a.png", pictures / "a.jpg")
    code, _, err = infer(pictures)
    assert code == 2 and "a.jpg and" in err and "would both be written to" in err
    code, _, err = infer(pictures / "a.png", "--prompt", "rain", "--save-embedding", tmp_path / "x.npy", audioldm=None)
    assert code == 2 and "--prompt needs --audioldm" in err


def test_an_output_mean_that_is_not_there(infer, pictures, bundle, tmp_path):
    """It is refused before any network is loaded."""
    translator = centred(bundle, tmp_path / "centred", "source_text", "target_text")
    code, files, err = infer(pictures, "--translator", translator, "--output-mean", "audio")
    assert code == 2 and not files and "stores no mean of sounds" in err and len(err.splitlines()) == 1
    with pytest.raises(SystemExit):
        infer(pictures, "--translator", translator, "--output-mean", "images")


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


def test_places_are_checked_before_anything_is_sampled(refused, pictures, tmp_path):
    picture = pictures / "a.png"
    os.mkfifo(tmp_path / "pipe.npy")
    assert "is a named pipe" in refused(picture, "--save-embedding", tmp_path / "pipe.npy")
    assert "is a device" in refused(picture, "--save-embedding", "/dev/null")
    assert "is a folder: pass a file in it" in refused(picture, "--save-embedding", pictures)
    assert "is one of the inputs" in refused(picture, "--save-embedding", picture)
    (tmp_path / "notes.txt").write_text("mine")
    assert "exists and is not an .npy file" in refused(picture, "--save-embedding", tmp_path / "notes.txt")
    assert "is a file, not a folder" in refused(picture, "--out", tmp_path / "notes.txt" / "x")
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "a.wav")
    assert "is a named pipe" in refused(picture, "--out", tmp_path / "out")
    for name in ("a.sound.json", "a.mel.png"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).mkdir()
        assert f"{name} is a folder" in refused(picture, "--out", tmp_path / name)
    assert (tmp_path / "notes.txt").read_text() == "mine" and Path("/dev/null").is_char_device()


def test_long_names_are_refused_before_anything_is_sampled(refused, infer, pictures):
    """245 characters: the sound fits, its record does not."""
    (pictures / "a.png").rename(pictures / f"{'n' * 245}.png")
    assert "takes 256 bytes, 255 are allowed" in refused(pictures)
    (pictures / f"{'n' * 245}.png").rename(pictures / f"{'n' * 242}.png")
    assert "takes 258 bytes" in refused(pictures, "--control", "rain")
    code, files, _ = infer(pictures / f"{'n' * 242}.png")
    assert code == 0 and len(sound(files[0])) == 10_240 and files[0].with_suffix(".sound.json").is_file()


def test_a_sound_of_the_users_own_stays(refused, infer, pictures):
    soundfile.write(pictures / "a.wav", np.linspace(-1, 1, 800), 8000)
    own = (pictures / "a.wav").read_bytes()
    assert "a.wav exists and was not written by c2c infer" in refused(pictures / "a.png")
    assert "a.wav exists" in refused(pictures / "a.png", "--out", pictures / "a.wav")
    assert (pictures / "a.wav").read_bytes() == own
    (pictures / "a.wav").unlink()
    assert infer(pictures / "a.png")[0] == 0
    (pictures / "a.sound.json").unlink()  # as a run that was killed leaves it
    assert infer(pictures / "a.png")[0] == 0


def test_a_run_over_an_earlier_one_that_is_stopped_leaves_no_old_record(infer, pictures, monkeypatch):
    assert infer(pictures / "a.png")[0] == 0
    (known,) = json.loads((pictures / "a.sound.json").read_text())["sounds"]
    assert known["sha256"] == sha256_of(pictures / "a.wav")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("c2c_jax.generation.rendering.draw_mel_spectrogram", stop)
        assert infer(pictures / "a.png", "--seed", "7")[0] == 130
    assert sha256_of(pictures / "a.wav") != known["sha256"]
    assert not (pictures / "a.sound.json").exists()
    assert infer(pictures / "a.png")[0] == 0  # the sound is still known for one of ours
    assert (pictures / "a.sound.json").exists()


def test_a_picture_named_like_its_sound(refused, pictures):
    odd = (pictures / "a.png").rename(pictures / "a.wav")
    assert "is one of the inputs" in refused(odd)


def test_names_that_are_not_utf8_or_hold_control_characters(infer, pictures):
    raw = (pictures / "a.png").rename(pictures / os.fsdecode(b"caf\xe9.png"))
    odd = (pictures / "c.png").rename(pictures / "\u732b $x^$\n\x1b[31m.png")
    with warnings.catch_warnings(action="error", category=UserWarning):
        code, _, err = infer(raw, odd)
    assert code == 0 and "\x1b" not in err
    for picture in (raw, odd):
        assert len(sound(os.fsencode(picture.with_suffix(".wav")))) == 10_240
        assert picture.with_suffix(".mel.png").stat().st_size > 1000
    records = {text_to_path(record.content.pictures[0].path): record for record in read_records(pictures)[0]}
    assert set(records) == {raw, odd} and records[raw].content.pictures[0].path.startswith("file:")
    assert {record.sound for record in records.values()} == {raw.with_suffix(".wav"), odd.with_suffix(".wav")}


def test_folders_inside_folders_keep_their_names(infer, pictures, tmp_path):
    (pictures / "deep").mkdir()
    shutil.copy(pictures / "a.png", pictures / "deep" / "a.png")
    names = [pictures / "a.png", pictures / "deep" / "a.png"]
    placed = plan(names, out=tmp_path / "out", roots=[pictures])
    assert [one.out for one in placed] == [tmp_path / "out" / "a.wav", tmp_path / "out" / "deep" / "a.wav"]
    averaged = plan(names, out=tmp_path / "out", roots=[pictures], average=True)
    assert [one.out for one in averaged] == [tmp_path / "out" / "pictures.wav", tmp_path / "out" / "deep.wav"]
    with pytest.raises(ConfigError, match="would both be written to"):
        plan(names, out=tmp_path / "out")


def test_a_missing_picture_is_refused_before_anything_is_imported(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "c2c_jax.generation.pipeline", None)
    assert main(["infer", str(tmp_path / "dgo.png"), "--translator", str(tmp_path / "none")]) == 2
    assert f"expected an image at {tmp_path / 'dgo.png'}, found no file" in capsys.readouterr().err
