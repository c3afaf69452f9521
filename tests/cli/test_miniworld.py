"""`c2c miniworld`: the contact sheet, the page with audio players, captions and exported pairs."""

import base64
import collections
import csv
import io
import re

import numpy as np
import pytest
import soundfile
from PIL import Image

from c2c_jax.cli.main import main
from c2c_jax.io.audio import INDEX
from c2c_jax.miniworld.captions import captions
from c2c_jax.miniworld.pairs import audio_at, caption_at, image_at
from c2c_jax.miniworld.show import choose_scenes, contact_sheet, preview_scene, render_page
from c2c_jax.miniworld.world import SOURCES, SPLITS, scene_at


def test_show_writes_a_sheet_and_a_page(tmp_path, capsys):
    assert main(["miniworld", "show", "--out", str(tmp_path / "world"), "--count", "24"]) == 0
    sheet, page = tmp_path / "world" / "miniworld.png", tmp_path / "world" / "miniworld.html"
    assert capsys.readouterr().out.split() == [str(sheet), str(page)]
    with Image.open(sheet) as image:
        assert image.size == (8 * 140 + 12, 3 * (128 + 64 + 36 + 12) + 12)
    html = page.read_text()
    assert [name for name in SOURCES if f'<article id="{name}">' in html] == list(SOURCES)
    audio = re.findall(r'<audio [^>]*src="data:audio/wav;base64,([^"]+)"', html)
    assert len(audio) == 24 == html.count('class="picture" src="data:image/png;base64,')
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(audio[3])))
    assert rate == 16_000
    (number,) = [i for i in choose_scenes("test", 24, 0) if scene_at("test", i)[0].source == SOURCES[3]]
    np.testing.assert_allclose(samples, audio_at("test", number), atol=1 / 32767, rtol=0)
    assert all(caption_at("test", number, style) in html for style in ("picture", "sound", "mixed"))
    assert not re.search(r'(src|href)="(?!data:|#)', html)  # it asks for nothing


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("count", [1, 24, 60])
def test_shown_scenes_cover_all_sources(split, count):
    numbers = choose_scenes(split, count, 3)
    scenes = [scene_at(split, number, 3)[0] for number in numbers]
    counts = collections.Counter(scene.source for scene in scenes)
    assert len(set(numbers)) == count and max(counts.values()) == -(-count // 24)
    assert [scene.source for scene in scenes] == sorted((scene.source for scene in scenes), key=SOURCES.index)
    if count == 60:
        assert len(counts) == 24 and {scene.count for scene in scenes} == {1, 2, 3}
        assert len({(scene.size, scene.place) for scene in scenes}) == 4


def test_sheet_has_picture_and_spectrogram_of_a_scene():
    preview = preview_scene("test", 0, 0)
    sheet = contact_sheet([preview])
    tile = sheet.crop((12, 12 + 18, 12 + 128, 12 + 18 + 128)).resize((64, 64), Image.Resampling.BOX)
    assert np.abs(np.asarray(tile, int) - np.asarray(preview.image, int)).mean() < 6
    assert preview.mel.size == (257, 128)
    assert preview.held_out and "<b>held out</b>" in render_page([preview], "test", 0)


def test_captions_to_a_file(tmp_path, capsys):
    out = tmp_path / "captions.txt"
    assert main(["miniworld", "captions", "--count", "30", "--out", str(out), "--seed", "2"]) == 0
    assert out.read_text().splitlines() == list(captions("train", 30, 2))
    other = tmp_path / "other.txt"
    arguments = ["miniworld", "captions", "--count", "9", "--split", "test", "--style", "sound", "--out"]
    assert main([*arguments, str(other)]) == 0
    assert main([*arguments, str(other)]) == 0  # as it was left by a start that was killed behind its last write
    assert main([*arguments, str(out)]) == 2 and "exists and is not empty" in capsys.readouterr().err
    assert other.read_text().splitlines() == list(captions("test", 9, styles=("sound",)))
    for end in ("a\n", "a"):
        other.write_text(other.read_text() + end)
        assert main([*arguments, str(other)]) == 2 and other.read_text().endswith(end)


def test_export_replaces_only_exports(tmp_path, capsys):
    out = tmp_path / "pairs"
    export = ["miniworld", "export", "--out", str(out), "--count", "1"]
    assert main([*export, "--seed", "1"]) == 0 and main(export) == 0
    capsys.readouterr()
    files = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert set(files) == {"00000.png", "00000.wav", "manifest.csv"}
    (out / "pictures" / "mine.png").write_bytes(b"mine")
    assert main(export) == 2 and "exists and is not an earlier export" in capsys.readouterr().err
    assert (out / "pictures" / "mine.png").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["pictures/.mine", "sounds/mine/", "pictures/00009.png/", "sounds/.mine/"])
def test_export_keeps_files_of_the_user(tmp_path, capsys, name):
    export = ["miniworld", "export", "--out", str(tmp_path), "--count", "1"]
    assert main(export) == 0
    (tmp_path / "sounds" / INDEX).mkdir()  # a search's, which goes with the sounds
    assert main(export) == 0 and not (tmp_path / "sounds" / INDEX).exists()
    mine = tmp_path / name
    mine.mkdir() if name.endswith("/") else mine.write_text("mine")
    assert main(export) == 2 and "exists and is not an earlier export" in capsys.readouterr().err
    assert mine.exists()


def test_export(tmp_path, capsys):
    tmp_path = tmp_path / "pairs"
    assert main(["miniworld", "export", "--out", str(tmp_path), "--count", "3", "--style", "picture"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "manifest.csv")]
    with open(tmp_path / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "audio", "label", "caption"] and len(rows) == 3
    for index, row in enumerate(rows):
        assert row["label"] == scene_at("test", index)[0].source
        assert row["caption"] == caption_at("test", index, "picture")
        with Image.open(tmp_path / row["image"]) as image:
            np.testing.assert_array_equal(image, np.asarray(image_at("test", index)))
        samples, rate = soundfile.read(tmp_path / row["audio"])
        # Full scale is 32,767 for writing and 32,768 for reading; the rest is rounding.
        np.testing.assert_allclose(samples * 32768 / 32767, audio_at("test", index), atol=0.51 / 32767, rtol=0)
        assert rate == 16_000


def test_misuse(tmp_path, capsys):
    for task in ("show", "captions", "export"):
        for wrong in (
            ["--count", "0"],
            ["--count", "5", "--seed", "-1"],
            ["--count", str(10**12)],
            ["--count", "1", "--seed", str(2**63)],
        ):
            assert main(["miniworld", task, "--out", str(tmp_path / "out"), *wrong]) == 2
            assert f"found {wrong[-1]}" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["miniworld", "show", "--out", str(tmp_path / "file"), "--count", "1"]) == 2
    assert capsys.readouterr().err.startswith("c2c miniworld: ")
    assert main(["miniworld", "captions", "--out", str(tmp_path), "--count", "1"]) == 2
