"""`c2c search`: the nearest sounds, a reused index, and one-line errors."""

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
from c2c_jax.spaces import encoding as encoding
from c2c_jax.spaces.space import load_space
from c2c_jax.spaces.space_id import SpaceId
from c2c_jax.translator.bundle import load_bundle
from c2c_jax.translator.inference import translate
from tests.cli.test_main import refused
from tests.fixtures.audio_files import NAMES, write_noise
from tests.generation.test_ranking import build_clap


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """Records the names of the files that are encoded."""
    names: list[str] = []

    def reading(path, *arguments):
        names.append(path.name)
        return read_audio(path, *arguments)

    monkeypatch.setattr(encoding, "read_audio", reading)
    return names


def cosines(query_E, audio_folder, clap) -> dict[str, float]:
    """Of each sound, from the towers alone, rounded as they are kept."""
    space = load_space(str(clap))
    vectors = space.encode_audio([read_audio(audio_folder / name, 48_000) for name in NAMES])
    vectors = vectors.astype(np.float16).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(NAMES, vectors @ (query_E / np.linalg.norm(query_E)), strict=True))


def test_the_nearest_to_a_picture_and_to_a_text(search, image_folder, audio_folder, bundle, clap, clip_folder):
    image = load_space(str(clip_folder)).encode_images([read_image(image_folder / "a.png")])
    text = load_space(str(clap)).encode_text(["heavy rain"])[0]
    queries = {image_folder / "a.png": translate(load_bundle(bundle), image)[0], "heavy rain": text}
    code, lines, err = search(image_folder / "a.png", "--text", "heavy rain", "--top", "3")
    assert code == 0 and f"encoded 4 new sounds of 4; index: {audio_folder / '.c2c-index'}" in err
    expected = []
    for query, vector_E in queries.items():
        of = cosines(vector_E, audio_folder, clap)
        assert np.ptp(list(of.values())) > 1e-3
        expected += [(of[name], name, query) for name in sorted(of, key=of.get, reverse=True)[:3]]
    assert [line[1:] for line in lines] == [(str(audio_folder / name), str(query)) for _, name, query in expected]
    np.testing.assert_allclose([float(line[0]) for line in lines], [score for score, *_ in expected], atol=1e-4)
    code, alone, _ = search("--text", "heavy rain", inputs=("--clap", clap))
    assert code == 0 and len(alone) == 4 and alone[:3] == [line[:2] for line in lines[3:]]


def test_run_instead_of_its_bundle(search, image_folder, bundle, clap, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "bundle").symlink_to(bundle)
    flags = "--translator", tmp_path / "run", "--clap", clap
    assert search(image_folder / "a.png", inputs=flags)[1] == search(image_folder / "a.png")[1]


def test_json(search, image_folder, audio_folder, clap):
    code, lines, _ = search(image_folder, "--top", "1", "--json")
    output = json.loads("".join("\t".join(line) for line in lines))
    assert code == 0 and output["clap"]["name"] == str(clap) and output["left_out"] == []
    assert [query["scoring"] for query in output["queries"]] == ["cosine"] * 3
    assert [query["picture"] for query in output["queries"]] == [
        str(image_folder / f"{x}") for x in ("a.png", "b.jpg", "c.png")
    ]
    for query in output["queries"]:
        (best,) = query["sounds"]
        assert Path(best["file"]).is_file() and -1 <= best["score"] <= 1


def test_only_new_and_changed_sounds_are_encoded(search, audio_folder, encoded):
    code, first, _ = search("--text", "rain")
    assert code == 0 and sorted(encoded) == ["a.wav", "b.flac", "c.wav", "d e.wav"]
    encoded.clear()
    code, again, err = search("--text", "rain")
    assert code == 0 and again == first and not encoded and "encoded" not in err
    write_noise(audio_folder / "b.flac", 7)
    write_noise(audio_folder / "e.wav", 8)
    (audio_folder / "deep/c.wav").unlink()
    (audio_folder / "a.wav").rename(audio_folder / "deep/a2.wav")  # known by its content
    os.utime(audio_folder / "deep/d e.wav", (1, 1))
    code, lines, _ = search("--text", "rain")
    assert code == 0 and sorted(encoded) == ["b.flac", "e.wav"]
    assert {Path(line[1]).name for line in lines} == {"a2.wav", "b.flac", "d e.wav", "e.wav"}
    score = {Path(line[1]).name: line[0] for line in first}
    assert {Path(line[1]).name: line[0] for line in lines}["a2.wav"] == score["a.wav"]
    (manifest,) = (audio_folder / ".c2c-index").rglob("manifest.json")
    assert json.loads(manifest.read_text())["rows"] == 4


def left_out(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("left out: ")]


def test_unreadable_sounds_are_reported_once(search, audio_folder, encoded):
    soundfile.write(audio_folder / "silent.wav", np.zeros(4800), 48_000)
    (audio_folder / "empty.mp3").touch()
    (audio_folder / "corrupt.ogg").write_bytes(b"OggS and no more")
    bad = "silent.wav", "empty.mp3", "corrupt.ogg"
    code, lines, err = search("--text", "rain")
    assert code == 0 and len(lines) == 4
    assert len(left_out(err)) == 3 and all(any(name in line for line in left_out(err)) for name in bad)
    encoded.clear()
    code, again, err = search("--text", "rain")
    assert (code, again, encoded) == (0, lines, [])
    assert err.splitlines()[1:-1] == [
        "3 of 7 sounds are left out because earlier searches could not read them; --strict lists them"
    ]
    code, again, err = search("--text", "rain", "--strict")
    assert (code, again, encoded) == (2, lines, []) and len(left_out(err)) == 3
    assert err.splitlines()[-1] == "c2c search: 3 files could not be read; see above"
    code, printed, _ = search("--text", "rain", "--json")
    assert code == 0 and len(json.loads("".join("\t".join(line) for line in printed))["left_out"]) == 3
    write_noise(audio_folder / "silent.wav", 9)  # what has changed is read again, what is gone is forgotten
    (audio_folder / "empty.mp3").unlink()
    code, again, err = search("--text", "rain", "--strict")
    assert code == 2 and len(again) == 5 and encoded == ["silent.wav"] and len(left_out(err)) == 1
    (audio_folder / "corrupt.ogg").unlink()
    code, _, err = search("--text", "rain", "--strict")
    skipped, scores = err.splitlines()
    assert code == 0 and skipped == "note: 1 file skipped, not sounds of a supported format: 1 .txt"
    assert scores.startswith("scores: texts by cosine; not centred: the mean of queries is unknown; ")
    (manifest,) = (audio_folder / ".c2c-index").rglob("manifest.json")
    assert json.loads(manifest.read_text())["unreadable"] == []


def test_unreadable_pictures_are_an_error(search, image_folder):
    (image_folder / "b.jpg").write_bytes(b"no image")
    for _ in range(2):
        code, lines, err = search(image_folder / "a.png", image_folder / "b.jpg")
        assert code == 2 and len(lines) == 4 and len(left_out(err)) == 1 and "b.jpg" in left_out(err)[0]
        assert err.splitlines()[-1] == "c2c search: 1 file could not be read; see above"


def test_failures_of_other_versions_are_retried(search, audio_folder, encoded, monkeypatch):
    (audio_folder / "corrupt.ogg").write_bytes(b"OggS and no more")
    assert search("--text", "rain")[0] == 0
    encoded.clear()
    monkeypatch.setattr(library, "__version__", "another")
    code, _, err = search("--text", "rain")
    assert code == 0 and encoded == ["corrupt.ogg"] and len(left_out(err)) == 1


def test_a_hit_is_one_line_of_fields(search, audio_folder, image_folder):
    (audio_folder / "a.wav").rename(audio_folder / "a\n\t\x1b[31m.wav")
    raw = audio_folder / os.fsdecode(b"caf\xe9.wav")
    (audio_folder / "b.flac").rename(raw)
    (image_folder / "a.png").rename(image_folder / "p\tq.png")
    code, lines, err = search(image_folder / "p\tq.png", "--text", "rain")
    assert code == 0 and len(lines) == 8 and all(len(line) == 3 for line in lines) and "\x1b" not in err
    names = {line[1].removeprefix(f"{audio_folder}/") for line in lines}
    assert names >= {"a\\n\\t\\x1b[31m.wav", "deep/c.wav"} and len(names) == 4
    code, printed, _ = search("--text", "rain", "--json")
    output = json.loads("".join("\t".join(line) for line in printed))["queries"][0]["sounds"]
    assert code == 0 and {text_to_path(hit["file"]) for hit in output} >= {raw, audio_folder / "a\n\t\x1b[31m.wav"}


def test_interrupted_search_resumes(search, audio_folder, encoded, monkeypatch):
    monkeypatch.setattr(library, "FILES_PER_PART", 2)
    reading = encoding.read_audio

    def stopped(path, *arguments):
        if path.name == "c.wav":
            raise KeyboardInterrupt
        return reading(path, *arguments)

    monkeypatch.setattr(encoding, "read_audio", stopped)
    assert search("--text", "rain")[0] == 130
    monkeypatch.setattr(encoding, "read_audio", reading)
    encoded.clear()
    code, lines, _ = search("--text", "rain")
    assert code == 0 and len(lines) == 4 and sorted(encoded) == ["c.wav", "d e.wav"]


def test_another_clap_has_another_index(search, audio_folder, encoded, clap, audioldm_folder, tmp_path):
    other = build_clap(tmp_path / "other", audioldm_folder)
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    weights["audio_projection.linear2.bias"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    first = search("--text", "rain")[1]
    assert search("--text", "rain", inputs=("--clap", other))[1] != first
    assert len(list((audio_folder / ".c2c-index").iterdir())) == 2 and len(encoded) == 8
    assert search("--text", "rain")[1] == first and len(encoded) == 8


def test_tower_with_non_finite_values_is_refused(search, audio_folder, clap, audioldm_folder, tmp_path):
    other = build_clap(tmp_path / "other", audioldm_folder)
    from safetensors.torch import load_file, save_file

    whole = load_file(other / "model.safetensors")
    for tower in ("audio", "text"):
        weights = {name: tensor.clone() for name, tensor in whole.items()}
        weights[f"{tower}_projection.linear2.bias"] *= np.nan
        save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
        code, lines, err = search("--text", "rain", inputs=("--clap", other))
        message = f"{other}: tensor {tower}_projection.linear2.bias has values that are not finite"
        assert code == 2 and not lines and message in err.splitlines()[-1]


def test_index_folder(search, audio_folder, encoded, monkeypatch, tmp_path):
    code, first, _ = search("--text", "rain", "--index", tmp_path / "index")
    assert (
        code == 0 and not (audio_folder / ".c2c-index").exists() and list((tmp_path / "index").rglob("manifest.json"))
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library.os, "access", lambda path, mode: Path(path) != audio_folder)
    assert search("--text", "rain")[:2] == (0, first)
    assert not (audio_folder / ".c2c-index").exists() and list(
        (tmp_path / "cache/c2c_jax/index").rglob("manifest.json")
    )
    monkeypatch.undo()


def test_misuse(capsys, bundle, clap, audio_folder, image_folder, audioldm_folder, tmp_path):
    flags = ["search", "--library", str(audio_folder), "--translator", str(bundle)]
    assert "nothing to search for" in refused(capsys, flags)
    assert "--top must be 1 or more, found 0" in refused(capsys, [*flags, "--text", "rain", "--top", "0"])
    line = refused(capsys, [*flags, "--text", "rain"])
    assert f"{audioldm_folder}:text_encoder has no audio tower" in line and "pass --clap" in line
    line = refused(capsys, ["search", str(image_folder / "a.png"), "--library", str(audio_folder), "--clap", str(clap)])
    assert "is another CLAP than the translator's, miniworld/clap" in line
    assert "--text is empty" in refused(capsys, [*flags, "--text", " "])
    for index, message in (
        (image_folder / "a.png", "is a file: pass a folder"),
        (image_folder / "a.png" / "x", "is a file, not a folder"),
    ):
        assert message in refused(capsys, [*flags, "--text", "rain", "--index", str(index)])
    assert "--text has 10,001 characters" in refused(capsys, [*flags, "--text", "a" * 10_001])
    assert "--text is not UTF-8" in refused(capsys, [*flags, "--text", "\udce9"])
    for content, message in ((b"", "it is empty"), (b"\xff\xfea\0", "cannot read captions from"), (None, "no file")):
        references = tmp_path / "references.txt"
        references.unlink(missing_ok=True)
        if content is not None:
            references.write_bytes(content)
        line = refused(capsys, [*flags, "--text", "rain", "--references", str(references)])
        assert message in line and str(references) in line
    references.write_text("rain")
    flags += ["--references", str(references), "--no-centre"]
    for arguments, named in (
        (["--text", "rain", "--hubness", "none"], "--hubness none needs no references for text queries"),
        ([str(image_folder / "a.png"), "--hubness", "none"], "--hubness none needs no references for image queries"),
        ([str(image_folder / "a.png")], "--hubness texts needs no references for image queries"),
        (
            [str(image_folder / "a.png"), "--text", "rain", "--hubness", "none"],
            "--hubness none needs no references for image and text queries",
        ),
    ):
        line = refused(capsys, [*flags, *arguments])
        assert "--references is unused" in line and named in line
    assert "texts need --clap" in refused(capsys, ["search", "--text", "rain", "--library", str(audio_folder)])
    for folder, message in ((tmp_path / "missing", "found no folder"), (audio_folder / "a.wav", "found a file")):
        line = refused(capsys, ["search", "--text", "rain", "--library", str(folder), "--clap", str(clap)])
        assert str(folder) in line and message in line
    line = refused(capsys, ["search", "--text", "rain", "--library", str(image_folder), "--clap", str(clap)])
    assert f"folder {image_folder} contains no sound" in line
    assert not (audio_folder / ".c2c-index").exists()


def test_only_the_translators_clap_is_accepted(capsys, bundle, audio_folder, image_folder, audioldm_folder, tmp_path):
    clap = build_clap(tmp_path / "clap", audioldm_folder)
    from safetensors.torch import load_file, save_file

    weights = load_file(clap / "model.safetensors")
    weights["text_projection.linear2.bias"] += 1
    save_file(weights, clap / "model.safetensors", metadata={"format": "pt"})
    arguments = [
        str(image_folder / "a.png"),
        "--library",
        str(audio_folder),
        "--translator",
        str(bundle),
        "--clap",
        str(clap),
    ]
    assert "is another CLAP than the translator's" in refused(capsys, ["search", *arguments])
    assert not (audio_folder / ".c2c-index").exists()


def test_damaged_index_is_reported(search, audio_folder):
    assert search("--text", "rain")[0] == 0
    (place,) = (audio_folder / ".c2c-index").iterdir()
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
        folder=Path("s"), index_folder=Path("i"), space=space, files=[], vectors_NE=np.zeros((0, 2), np.float16),
    )  # fmt: skip
    hits = [
        Hits(kind="image", query="a.png", scoring="centred cosine", matches=[(0.25, Path("s/a.wav"))]),
        Hits(kind="text", query="[red] rain", scoring="cosine minus hubness", matches=[(0.5, Path("s/[b].wav"))]),
    ]
    show(SearchResult(hits=hits, clap=space, library=empty, image_errors=[]))
    of_image, of_text = screen.getvalue().split("[red] rain")
    assert "score (centred cosine)" in of_image and "score (cosine minus hubness)" in of_text
    assert "[red] rain" in screen.getvalue() and "0.5000" in screen.getvalue() and "s/[b].wav" in screen.getvalue()
