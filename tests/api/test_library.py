"""`SoundLibrary`, compared with cosines computed by hand and with `c2c search`."""

import json

import numpy as np
import pytest

import c2c_jax
from c2c_jax.cli.main import main
from c2c_jax.errors import AudioError, BundleError, CheckpointError, ConfigError, ImageError
from c2c_jax.io.vectors import unit_rows
from c2c_jax.miniworld.show import export
from tests.fixtures.audio_files import write_noise

CLAP, TRANSLATOR = "miniworld/clap", "miniworld/translator"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 sounds of the mini world, two of them in a subfolder, and a file that cannot be read."""
    root = tmp_path_factory.mktemp("library") / "world"
    export(root, "test", 40, 0, "picture")
    (root / "sounds" / "deep").mkdir()
    for path in sorted((root / "sounds").glob("*.wav"))[:2]:
        path.rename(path.parent / "deep" / path.name)
    (root / "sounds" / "bad.wav").write_bytes(b"RIFF")
    return root / "sounds"


@pytest.fixture(scope="module")
def library(folder):
    return c2c_jax.SoundLibrary(folder, CLAP, progress=False)


@pytest.fixture(scope="module")
def translator():
    return c2c_jax.load(TRANSLATOR)


def test_library_lists_its_sounds(library, folder):
    assert len(library) == 40 == len(library.files) == len(library.vectors)
    assert library.files == sorted(folder.rglob("0*.wav"), key=lambda path: str(path.relative_to(folder)))
    assert len(library.unreadable) == 1 and "bad.wav" in library.unreadable[0]
    assert repr(library) == f"SoundLibrary({str(folder)!r}, 40 sounds, miniworld/clap)"
    space = c2c_jax.load_space(CLAP)
    again = c2c_jax.SoundLibrary(str(folder), space, progress=False)  # from the index
    np.testing.assert_array_equal(again.vectors, library.vectors)


def test_scores_are_cosines(library, translator):
    audio_NE = unit_rows(library.vectors)
    query_E = translator.encode_images("examples/dog.png")[0]
    found = library.search("examples/dog.png", translator=translator, k=3, centre=False)
    expected_N = audio_NE @ query_E
    order = np.argsort(-expected_N)[:3]
    assert [match.path for match in found] == [library.files[row] for row in order]
    np.testing.assert_allclose([match.score for match in found], expected_N[order], atol=1e-5)
    query_E = unit_rows(library.clap.encode_text(["a dog barks"]))[0]
    found = library.search(text="a dog barks", k=1, centre=False, hubness="none")
    np.testing.assert_allclose(found[0].score, (audio_NE @ query_E).max(), atol=1e-5)


def test_results_are_those_of_the_command(library, folder, translator, capsys):
    command = ["search", "examples/dog.png", "--text", "rain", "--library", str(folder), "--translator", TRANSLATOR]
    assert main([*command, "--top", "3", "--json"]) == 0
    queries = json.loads(capsys.readouterr().out)["queries"]
    found = [library.search("examples/dog.png", translator=TRANSLATOR, k=3)]
    found.append(library.search(text="rain", translator=translator, k=3))
    for query, matches in zip(queries, found, strict=True):
        assert [sound["file"] for sound in query["sounds"]] == [str(match.path) for match in matches]
        np.testing.assert_allclose([sound["score"] for sound in query["sounds"]], [m.score for m in matches], atol=1e-5)


def test_several_queries_give_a_list_each(library, translator):
    one = library.search("examples/dog.png", translator=translator, k=2)
    for several in library.search(["examples/dog.png"] * 2, translator=translator, k=2):
        assert [match.path for match in several] == [match.path for match in one]
    assert library.search(text=["rain"], k=2) == [library.search(text="rain", k=2)]
    assert library.search([], translator=translator) == []
    assert len(library.search(text="rain", k=99)) == 40
    references = [f"the sound of {name}" for name in ("a dog", "rain", "a bell", "a train") for _ in range(8)]
    assert library.search(text="rain", k=1, references=references)[0].score < 1


def test_only_new_sounds_are_encoded(folder, library, tmp_path, monkeypatch):
    write_noise(folder / "new.wav", 3)
    try:
        assert len(c2c_jax.SoundLibrary(folder, CLAP, progress=False)) == 41
    finally:
        (folder / "new.wav").unlink()
    monkeypatch.setattr("c2c_jax.api.library.load_space", None)  # nothing is left to encode
    assert len(c2c_jax.SoundLibrary(folder, CLAP, progress=False)) == 40


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ConfigError, "either images or text"),
        ({"images": "a.png", "text": "a"}, ConfigError, "either images or text"),
        ({"images": "a.png"}, ConfigError, "pass translator="),
        ({"images": "nofile.png", "translator": TRANSLATOR}, ImageError, "nofile.png"),
        ({"text": "rain", "k": 0}, ConfigError, "k must be 1 or more"),
        ({"text": "rain", "hubness": "images"}, ConfigError, "hubness is 'images'"),
        ({"text": "rain", "references": "a text"}, ConfigError, "a list of texts"),
        ({"text": " "}, ConfigError, "empty"),
        ({"text": "rain", "translator": "nofolder"}, BundleError, "nofolder"),
    ],
)
def test_mistakes_are_one_line(library, arguments, error, words):
    with pytest.raises(error, match=words) as raised:
        library.search(**arguments)
    assert "\n" not in str(raised.value) and "--" not in str(raised.value)


def test_folders_and_claps_that_cannot_be_used_are_refused(tmp_path, folder):
    with pytest.raises(AudioError, match="contains no sound"):
        c2c_jax.SoundLibrary(tmp_path, CLAP)
    with pytest.raises(CheckpointError, match="miniworld/nothing"):
        c2c_jax.SoundLibrary(folder, "miniworld/nothing")
    with pytest.raises(CheckpointError, match="no audio tower"):
        c2c_jax.SoundLibrary(folder, "miniworld/clip", index=tmp_path, progress=False)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match="none of the 1 sounds"):
        c2c_jax.SoundLibrary(tmp_path, CLAP, progress=False)


def test_translators_to_another_clap_are_refused(library):
    rng = np.random.default_rng(0)
    other = c2c_jax.fit(*rng.normal(size=(2, 100, 64)), "mlp", steps=1, batch_size=64, progress=False)
    assert library.search(text="rain", translator=other, k=1)  # its CLAP is unknown, only the width is compared
    wide = c2c_jax.fit(
        rng.normal(size=(100, 64)), rng.normal(size=(100, 8)), "mlp", steps=1, batch_size=64, progress=False
    )
    with pytest.raises(BundleError, match="another CLAP"):
        library.search(text="rain", translator=wide)
