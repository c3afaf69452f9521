"""What `c2c infer` refuses, leaves out and tells of."""

import json
import re
import resource
import shutil
from pathlib import Path

import pytest

from tests.cli.sounds import sound


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
        (["--out", "x.wav"], "3 sounds and one file x.wav: name a folder"),
        (["--out", "x.mp3"], "ends in .mp3: name a .wav or .flac file, or a folder"),
        (["--mix", "0.3"], "0 things to mix in and 1 weights"),
        (["--prompt", "a", "--mix", "1.5"], "take numbers above 0 that sum to 1 at most"),
        (["--prompt", "a", "--prompt", "b", "--prompt", "c", "--mix", "0.1", "--mix", "0.1"], "3 things .* 2 weights"),
        (["--control", "a", "--control", "b"], "3 sounds and 2 --control texts"),
        (["--candidates", "0"], "candidates is 0"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--device", "abacus"], "torch cannot use device 'abacus'"),
        (["--dtype", "float16", "--device", "cpu"], "float16 is for GPUs"),
        (["--ranker", "no/such"], "hf download no/such"),
        (["--blend", "nothing.png"], "nothing.png, found no file"),
        (["nothing/*.png"], "pattern nothing/\\*.png holds no picture"),
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
    assert code == 2 and "holds no picture" in err
    shutil.copy(pictures / "a.png", pictures / "a.jpg")
    code, _, err = infer(pictures)
    assert code == 2 and "a.jpg and" in err and "would both be written to" in err
    code, _, err = infer(pictures / "a.png", "--prompt", "rain", "--save-embedding", tmp_path / "x.npy", audioldm=None)
    assert code == 2 and "--prompt needs --audioldm" in err
