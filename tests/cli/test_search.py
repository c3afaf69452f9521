"""`c2c search` as a user meets it: the nearest sounds, an index that is used again, and one line for each refusal."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from c2c_jax import hearing, library
from c2c_jax.cli.main import main
from c2c_jax.cli.search import show
from c2c_jax.images import read_image
from c2c_jax.inference import translate
from c2c_jax.library import Library
from c2c_jax.search import Found, Hits
from c2c_jax.sounds import read_sound
from c2c_jax.spaces import SpaceId, load_space
from c2c_jax.weights.translator import load_bundle
from tests.cli.test_main import refused
from tests.generation.test_ranking import build_clap

NAMES = "a.wav", "b.flac", "deep/c.wav", "deep/d e.wav"


@pytest.fixture(scope="module")
def clap(tmp_path_factory, audioldm_folder) -> Path:
    """The whole CLAP whose text tower AudioLDM's is."""
    return build_clap(tmp_path_factory.mktemp("clap") / "clap", audioldm_folder)


@pytest.fixture
def sounds(tmp_path) -> Path:
    """A folder with sounds of noise, two of them in a folder inside."""
    folder = tmp_path / "sounds"
    (folder / "deep").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        noise(folder / name, seed)
    (folder / "notes.txt").write_text("no sound")
    return folder


def noise(path: Path, seed: int) -> None:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, 24_000).cumsum() * np.geomspace(
        1, 1e-2 * (seed + 1), 24_000
    )
    soundfile.write(path, samples / np.abs(samples).max(), 48_000)


@pytest.fixture
def search(bundle, clap, sounds, capsys):
    """Runs the verb over the sounds; gives exit code, the lines of stdout in fields, and stderr."""

    def run(*arguments, asked=("--translator", bundle, "--clap", clap)):
        capsys.readouterr()
        code = main(["search", *map(str, arguments), "--library", str(sounds), *map(str, asked)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, [tuple(line.split("\t")) for line in out.splitlines()], err

    return run


@pytest.fixture
def heard(monkeypatch) -> list[str]:
    """The names of the files that are read, as they are."""
    names: list[str] = []

    def reading(path, *arguments):
        names.append(path.name)
        return read_sound(path, *arguments)

    monkeypatch.setattr(hearing, "read_sound", reading)
    return names


def cosines(query_E, sounds, clap) -> dict[str, float]:
    """Of each sound, from the towers alone, rounded as they are kept."""
    space = load_space(str(clap))
    vectors = space.encode_audio([read_sound(sounds / name, 48_000) for name in NAMES])
    vectors = vectors.astype(np.float16).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(NAMES, vectors @ (query_E / np.linalg.norm(query_E)), strict=True))


def test_the_nearest_to_a_picture_and_to_a_text(search, pictures, sounds, bundle, clap, clip_folder):
    picture = load_space(str(clip_folder)).encode_image([read_image(pictures / "a.png")])
    text = load_space(str(clap)).encode_text(["heavy rain"])[0]
    queries = {pictures / "a.png": translate(load_bundle(bundle), picture)[0], "heavy rain": text}
    code, lines, err = search(pictures / "a.png", "--text", "heavy rain", "--top", "3")
    assert code == 0 and f"heard 4 new sounds of 4; index: {sounds / '.c2c-index'}" in err
    expected = []
    for query, vector_E in queries.items():
        of = cosines(vector_E, sounds, clap)
        assert np.ptp(list(of.values())) > 1e-3
        expected += [(of[name], name, query) for name in sorted(of, key=of.get, reverse=True)[:3]]
    assert [line[1:] for line in lines] == [(str(sounds / name), str(query)) for _, name, query in expected]
    np.testing.assert_allclose([float(line[0]) for line in lines], [score for score, *_ in expected], atol=1e-4)
    code, alone, _ = search("--text", "heavy rain", asked=("--clap", clap))
    assert code == 0 and len(alone) == 4 and alone[:3] == [line[:2] for line in lines[3:]]


def test_a_run_stands_for_its_bundle(search, pictures, bundle, clap, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "bundle").symlink_to(bundle)
    asked = "--translator", tmp_path / "run", "--clap", clap
    assert search(pictures / "a.png", asked=asked)[1] == search(pictures / "a.png")[1]


def test_json(search, pictures, sounds, clap):
    code, lines, _ = search(pictures, "--top", "1", "--json")
    found = json.loads("".join("\t".join(line) for line in lines))
    assert code == 0 and found["clap"]["name"] == str(clap) and found["left_out"] == []
    assert [query["picture"] for query in found["queries"]] == [
        str(pictures / f"{x}") for x in ("a.png", "b.jpg", "c.png")
    ]
    for query in found["queries"]:
        (best,) = query["sounds"]
        assert Path(best["file"]).is_file() and -1 <= best["score"] <= 1


def test_only_what_is_new_or_changed_is_heard(search, sounds, heard):
    code, first, _ = search("--text", "rain")
    assert code == 0 and sorted(heard) == ["a.wav", "b.flac", "c.wav", "d e.wav"]
    heard.clear()
    code, again, err = search("--text", "rain")
    assert code == 0 and again == first and not heard and "heard" not in err
    noise(sounds / "b.flac", 7)
    noise(sounds / "e.wav", 8)
    (sounds / "deep/c.wav").unlink()
    (sounds / "a.wav").rename(sounds / "deep/a2.wav")  # known by its content
    os.utime(sounds / "deep/d e.wav", (1, 1))
    code, lines, _ = search("--text", "rain")
    assert code == 0 and sorted(heard) == ["b.flac", "e.wav"]
    assert {Path(line[1]).name for line in lines} == {"a2.wav", "b.flac", "d e.wav", "e.wav"}
    score = {Path(line[1]).name: line[0] for line in first}
    assert {Path(line[1]).name: line[0] for line in lines}["a2.wav"] == score["a.wav"]
    (manifest,) = (sounds / ".c2c-index").rglob("manifest.json")
    assert json.loads(manifest.read_text())["rows"] == 4


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(search, sounds, pictures):
    soundfile.write(sounds / "silent.wav", np.zeros(4800), 48_000)
    (sounds / "empty.mp3").touch()
    (sounds / "corrupt.ogg").write_bytes(b"OggS and no more")
    whole = (sounds / "a.wav").read_bytes()
    (sounds / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (sounds / "gone.wav").symlink_to(sounds / "nowhere.wav")
    (pictures / "b.jpg").write_bytes(b"no picture")
    bad = "silent.wav", "empty.mp3", "corrupt.ogg", "cut.wav", "gone.wav", "b.jpg"
    for _ in range(2):  # the index does not make them good
        code, lines, err = search(pictures / "a.png", pictures / "b.jpg")
        assert code == 2 and len(lines) == 4
        left_out = [line for line in err.splitlines() if line.startswith("left out: ")]
        assert len(left_out) == len(bad) and all(any(name in line for line in left_out) for name in bad)
        assert err.strip().splitlines()[-1] == "c2c search: 6 files could not be read; they are named above"


def test_an_interrupted_search_goes_on(search, sounds, heard, monkeypatch):
    monkeypatch.setattr(library, "PART", 2)
    reading = hearing.read_sound

    def stopped(path, *arguments):
        if path.name == "c.wav":
            raise KeyboardInterrupt
        return reading(path, *arguments)

    monkeypatch.setattr(hearing, "read_sound", stopped)
    assert search("--text", "rain")[0] == 130
    monkeypatch.setattr(hearing, "read_sound", reading)
    heard.clear()
    code, lines, _ = search("--text", "rain")
    assert code == 0 and len(lines) == 4 and sorted(heard) == ["c.wav", "d e.wav"]


def test_another_clap_has_another_index(search, sounds, heard, clap, audioldm_folder, tmp_path):
    other = build_clap(tmp_path / "other", audioldm_folder)
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    weights["audio_projection.linear2.bias"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    first = search("--text", "rain")[1]
    assert search("--text", "rain", asked=("--clap", other))[1] != first
    assert len(list((sounds / ".c2c-index").iterdir())) == 2 and len(heard) == 8
    assert search("--text", "rain")[1] == first and len(heard) == 8


def test_where_the_index_lies(search, sounds, heard, monkeypatch, tmp_path):
    code, first, _ = search("--text", "rain", "--index", tmp_path / "index")
    assert code == 0 and not (sounds / ".c2c-index").exists() and list((tmp_path / "index").rglob("manifest.json"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library.os, "access", lambda path, mode: Path(path) != sounds)
    assert search("--text", "rain")[:2] == (0, first)
    assert not (sounds / ".c2c-index").exists() and list((tmp_path / "cache/c2c_jax/index").rglob("manifest.json"))
    monkeypatch.undo()


def test_refusals(capsys, bundle, clap, sounds, pictures, audioldm_folder, tmp_path):
    asked = ["search", "--library", str(sounds), "--translator", str(bundle)]
    assert "nothing to search for" in refused(capsys, asked)
    assert "--top is 0" in refused(capsys, [*asked, "--text", "rain", "--top", "0"])
    line = refused(capsys, [*asked, "--text", "rain"])
    assert f"{audioldm_folder}:text_encoder has no audio tower" in line and "pass --clap" in line
    line = refused(capsys, ["search", str(pictures / "a.png"), "--library", str(sounds), "--clap", str(clap)])
    assert "is another CLAP than the translator's, miniworld/clap" in line
    assert "--text is empty" in refused(capsys, [*asked, "--text", " "])
    assert "texts need --clap" in refused(capsys, ["search", "--text", "rain", "--library", str(sounds)])
    for folder, told in ((tmp_path / "missing", "found no folder"), (sounds / "a.wav", "found a file")):
        line = refused(capsys, ["search", "--text", "rain", "--library", str(folder), "--clap", str(clap)])
        assert str(folder) in line and told in line
    line = refused(capsys, ["search", "--text", "rain", "--library", str(pictures), "--clap", str(clap)])
    assert f"folder {pictures} holds no sound" in line
    assert not (sounds / ".c2c-index").exists()


def test_only_the_translators_own_clap_is_taken(capsys, bundle, sounds, pictures, audioldm_folder, tmp_path):
    clap = build_clap(tmp_path / "clap", audioldm_folder)
    from safetensors.torch import load_file, save_file

    weights = load_file(clap / "model.safetensors")
    weights["text_projection.linear2.bias"] += 1
    save_file(weights, clap / "model.safetensors", metadata={"format": "pt"})
    arguments = [str(pictures / "a.png"), "--library", str(sounds), "--translator", str(bundle), "--clap", str(clap)]
    assert "is another CLAP than the translator's" in refused(capsys, ["search", *arguments])
    assert not (sounds / ".c2c-index").exists()


def test_a_damaged_index_is_told_of(search, sounds):
    assert search("--text", "rain")[0] == 0
    (place,) = (sounds / ".c2c-index").iterdir()
    (chunk,) = (path for path in (place / "sounds/c").rglob("*") if path.is_file())
    whole = chunk.read_bytes()
    for content in (whole[:8] + bytes([whole[8] ^ 1]) + whole[9:], whole[: len(whole) // 2]):
        chunk.write_bytes(content)
        code, lines, err = search("--text", "rain")
        assert code == 2 and not lines and f"the index {place} is damaged" in err and "delete it" in err
    shutil.rmtree(place)
    assert search("--text", "rain")[0] == 0


def test_a_table_on_a_terminal(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        "rich.console.Console", lambda **options: Console(file=screen, force_terminal=True, width=60, **options)
    )
    space = SpaceId(name="clap", dim=2, fingerprint="f")
    empty = Library(
        folder=Path("s"), place=Path("i"), space=space, heard=[], vectors_NE=np.zeros((0, 2), np.float16), rows={},
        unheard=[], is_written=True,
    )  # fmt: skip
    hits = Hits(kind="text", query="[red] rain", sounds=[(0.5, Path("s/[b].wav"))])
    show(Found(hits=[hits], clap=space, library=empty, left_out=[]))
    assert "[red] rain" in screen.getvalue() and "0.5000" in screen.getvalue() and "s/[b].wav" in screen.getvalue()
