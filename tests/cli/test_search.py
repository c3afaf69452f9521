"""`c2c search` as a user meets it: the nearest sounds, an index that is used again, and one line for each refusal."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from c2c_jax.cli.search import show
from c2c_jax.io.audio import read_audio
from c2c_jax.io.console import SafeConsole
from c2c_jax.io.files import text_to_path
from c2c_jax.io.images import read_image
from c2c_jax.retrieval import library
from c2c_jax.retrieval.library import Library
from c2c_jax.retrieval.search import Hits, SearchResult
from c2c_jax.spaces import encoding as hearing
from c2c_jax.spaces.space import SpaceId, load_space
from c2c_jax.translator.bundle import load_bundle
from c2c_jax.translator.inference import translate
from tests.cli.test_main import refused
from tests.fixtures.sounds import NAMES, noise
from tests.generation.test_ranking import build_clap


@pytest.fixture
def heard(monkeypatch) -> list[str]:
    """The names of the files that are read, as they are."""
    names: list[str] = []

    def reading(path, *arguments):
        names.append(path.name)
        return read_audio(path, *arguments)

    monkeypatch.setattr(hearing, "read_audio", reading)
    return names


def cosines(query_E, sounds, clap) -> dict[str, float]:
    """Of each sound, from the towers alone, rounded as they are kept."""
    space = load_space(str(clap))
    vectors = space.encode_audio([read_audio(sounds / name, 48_000) for name in NAMES])
    vectors = vectors.astype(np.float16).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(NAMES, vectors @ (query_E / np.linalg.norm(query_E)), strict=True))


def test_the_nearest_to_a_picture_and_to_a_text(search, pictures, sounds, bundle, clap, clip_folder):
    picture = load_space(str(clip_folder)).encode_image([read_image(pictures / "a.png")])
    text = load_space(str(clap)).encode_text(["heavy rain"])[0]
    queries = {pictures / "a.png": translate(load_bundle(bundle), picture)[0], "heavy rain": text}
    code, lines, err = search(pictures / "a.png", "--text", "heavy rain", "--top", "3")
    assert code == 0 and f"encoded 4 new sounds of 4; index: {sounds / '.c2c-index'}" in err
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
    assert [query["scoring"] for query in found["queries"]] == ["cosine"] * 3
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
    assert code == 0 and again == first and not heard and "encoded" not in err
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


def left_out(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("left out: ")]


def test_sounds_that_cannot_be_read_are_named_once(search, sounds, heard):
    soundfile.write(sounds / "silent.wav", np.zeros(4800), 48_000)
    (sounds / "empty.mp3").touch()
    (sounds / "corrupt.ogg").write_bytes(b"OggS and no more")
    bad = "silent.wav", "empty.mp3", "corrupt.ogg"
    code, lines, err = search("--text", "rain")
    assert code == 0 and len(lines) == 4
    assert len(left_out(err)) == 3 and all(any(name in line for line in left_out(err)) for name in bad)
    heard.clear()
    code, again, err = search("--text", "rain")
    assert (code, again, heard) == (0, lines, [])
    assert err.splitlines()[1:-1] == [
        "3 of 7 sounds are left out, as they could not be read before; --strict names them"
    ]
    code, again, err = search("--text", "rain", "--strict")
    assert (code, again, heard) == (2, lines, []) and len(left_out(err)) == 3
    assert err.splitlines()[-1] == "c2c search: 3 files could not be read; see above"
    code, printed, _ = search("--text", "rain", "--json")
    assert code == 0 and len(json.loads("".join("\t".join(line) for line in printed))["left_out"]) == 3
    noise(sounds / "silent.wav", 9)  # what has changed is read again, what is gone is forgotten
    (sounds / "empty.mp3").unlink()
    code, again, err = search("--text", "rain", "--strict")
    assert code == 2 and len(again) == 5 and heard == ["silent.wav"] and len(left_out(err)) == 1
    (sounds / "corrupt.ogg").unlink()
    code, _, err = search("--text", "rain", "--strict")
    skipped, scores = err.splitlines()
    assert code == 0 and skipped == "note: 1 file skipped, not sounds of a supported format: 1 .txt"
    assert scores.startswith("scores: texts by cosine; not centred: the mean of queries is unknown; ")
    (manifest,) = (sounds / ".c2c-index").rglob("manifest.json")
    assert json.loads(manifest.read_text())["unreadable"] == []


def test_pictures_that_cannot_be_read_are_an_error(search, pictures):
    (pictures / "b.jpg").write_bytes(b"no picture")
    for _ in range(2):
        code, lines, err = search(pictures / "a.png", pictures / "b.jpg")
        assert code == 2 and len(lines) == 4 and len(left_out(err)) == 1 and "b.jpg" in left_out(err)[0]
        assert err.splitlines()[-1] == "c2c search: 1 file could not be read; see above"


def test_a_failure_of_another_version_is_tried_again(search, sounds, heard, monkeypatch):
    (sounds / "corrupt.ogg").write_bytes(b"OggS and no more")
    assert search("--text", "rain")[0] == 0
    heard.clear()
    monkeypatch.setattr(library, "__version__", "another")
    code, _, err = search("--text", "rain")
    assert code == 0 and heard == ["corrupt.ogg"] and len(left_out(err)) == 1


def test_a_hit_is_one_line_of_fields(search, sounds, pictures):
    (sounds / "a.wav").rename(sounds / "a\n\t\x1b[31m.wav")
    raw = sounds / os.fsdecode(b"caf\xe9.wav")
    (sounds / "b.flac").rename(raw)
    (pictures / "a.png").rename(pictures / "p\tq.png")
    code, lines, err = search(pictures / "p\tq.png", "--text", "rain")
    assert code == 0 and len(lines) == 8 and all(len(line) == 3 for line in lines) and "\x1b" not in err
    names = {line[1].removeprefix(f"{sounds}/") for line in lines}
    assert names >= {"a\\n\\t\\x1b[31m.wav", "deep/c.wav"} and len(names) == 4
    code, printed, _ = search("--text", "rain", "--json")
    found = json.loads("".join("\t".join(line) for line in printed))["queries"][0]["sounds"]
    assert code == 0 and {text_to_path(hit["file"]) for hit in found} >= {raw, sounds / "a\n\t\x1b[31m.wav"}


def test_an_interrupted_search_goes_on(search, sounds, heard, monkeypatch):
    monkeypatch.setattr(library, "PART", 2)
    reading = hearing.read_audio

    def stopped(path, *arguments):
        if path.name == "c.wav":
            raise KeyboardInterrupt
        return reading(path, *arguments)

    monkeypatch.setattr(hearing, "read_audio", stopped)
    assert search("--text", "rain")[0] == 130
    monkeypatch.setattr(hearing, "read_audio", reading)
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


def test_a_tower_that_gives_no_numbers_is_named(search, sounds, clap, audioldm_folder, tmp_path):
    other = build_clap(tmp_path / "other", audioldm_folder)
    from safetensors.torch import load_file, save_file

    whole = load_file(other / "model.safetensors")
    for tower in ("audio", "text"):
        weights = {name: tensor.clone() for name, tensor in whole.items()}
        weights[f"{tower}_projection.linear2.bias"] *= np.nan
        save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
        code, lines, err = search("--text", "rain", asked=("--clap", other))
        said = f"{other}: tensor {tower}_projection.linear2.bias has values that are not finite"
        assert code == 2 and not lines and said in err.splitlines()[-1]


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
    assert "--top must be 1 or more, found 0" in refused(capsys, [*asked, "--text", "rain", "--top", "0"])
    line = refused(capsys, [*asked, "--text", "rain"])
    assert f"{audioldm_folder}:text_encoder has no audio tower" in line and "pass --clap" in line
    line = refused(capsys, ["search", str(pictures / "a.png"), "--library", str(sounds), "--clap", str(clap)])
    assert "is another CLAP than the translator's, miniworld/clap" in line
    assert "--text is empty" in refused(capsys, [*asked, "--text", " "])
    for index, told in (
        (pictures / "a.png", "is a file: pass a folder"),
        (pictures / "a.png" / "x", "is a file, not a folder"),
    ):
        assert told in refused(capsys, [*asked, "--text", "rain", "--index", str(index)])
    assert "--text has 10,001 characters" in refused(capsys, [*asked, "--text", "a" * 10_001])
    assert "--text is not UTF-8" in refused(capsys, [*asked, "--text", "\udce9"])
    for content, told in ((b"", "it is empty"), (b"\xff\xfea\0", "cannot read captions from"), (None, "no file")):
        references = tmp_path / "references.txt"
        references.unlink(missing_ok=True)
        if content is not None:
            references.write_bytes(content)
        line = refused(capsys, [*asked, "--text", "rain", "--references", str(references)])
        assert told in line and str(references) in line
    references.write_text("rain")
    asked += ["--references", str(references), "--no-centre"]
    for arguments, named in (
        (["--text", "rain", "--hubness", "none"], "--hubness none for text queries"),
        ([str(pictures / "a.png"), "--hubness", "none"], "--hubness none for picture queries"),
        ([str(pictures / "a.png")], "--hubness texts for picture queries"),
        (
            [str(pictures / "a.png"), "--text", "rain", "--hubness", "none"],
            "--hubness none for picture and text queries",
        ),
    ):
        line = refused(capsys, [*asked, *arguments])
        assert "--references has no effect" in line and named in line
    assert "texts need --clap" in refused(capsys, ["search", "--text", "rain", "--library", str(sounds)])
    for folder, told in ((tmp_path / "missing", "found no folder"), (sounds / "a.wav", "found a file")):
        line = refused(capsys, ["search", "--text", "rain", "--library", str(folder), "--clap", str(clap)])
        assert str(folder) in line and told in line
    line = refused(capsys, ["search", "--text", "rain", "--library", str(pictures), "--clap", str(clap)])
    assert f"folder {pictures} contains no sound" in line
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
        assert code == 2 and not lines and str(place) in err and "; delete the index to encode the sounds again" in err
    shutil.rmtree(place)
    assert search("--text", "rain")[0] == 0


def test_a_table_on_a_terminal(monkeypatch):
    screen = io.StringIO()
    console = SafeConsole(file=screen, force_terminal=True, width=60, highlight=False, markup=False)
    monkeypatch.setattr("c2c_jax.cli.search.stdout_console", lambda: console)
    space = SpaceId(name="clap", dim=2, fingerprint="f")
    empty = Library(
        folder=Path("s"), place=Path("i"), space=space, files=[], vectors_NE=np.zeros((0, 2), np.float16), rows={},
        pending=[], is_written=True,
    )  # fmt: skip
    hits = [
        Hits(kind="picture", query="a.png", scoring="centred cosine", sounds=[(0.25, Path("s/a.wav"))]),
        Hits(kind="text", query="[red] rain", scoring="cosine, less hubness", sounds=[(0.5, Path("s/[b].wav"))]),
    ]
    show(SearchResult(hits=hits, clap=space, library=empty, unread=[]))
    of_picture, of_text = screen.getvalue().split("[red] rain")
    assert "score (centred cosine)" in of_picture and "score (cosine, less hubness)" in of_text
    assert "[red] rain" in screen.getvalue() and "0.5000" in screen.getvalue() and "s/[b].wav" in screen.getvalue()
