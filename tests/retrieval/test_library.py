"""A library and its index: any names, both ways of searching, one writer at a time."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import zarr

from c2c_jax.errors import StoreError
from c2c_jax.io.atomic import exclusive_lock
from c2c_jax.retrieval import library
from c2c_jax.retrieval.library import Library, open_library
from c2c_jax.retrieval.scoring import Scoring
from c2c_jax.spaces.encoding import encode_audio_files
from c2c_jax.spaces.space import Space, load_space
from tests.fixtures.kills import contents, killed_at_every_step
from tests.generation.test_ranking import build_clap

ODD = "a\nb.wav", 'it\'s "so".wav', "kind [red] ✓.wav"


@pytest.fixture(scope="module")
def space(tmp_path_factory, audioldm_folder) -> Space:
    return load_space(str(build_clap(tmp_path_factory.mktemp("clap") / "clap", audioldm_folder)))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for seed, name in enumerate((*ODD, *(f"{number}.wav" for number in range(5)))):
        samples = np.random.default_rng(seed).uniform(-0.5, 0.5, 4800 * (1 + seed))
        soundfile.write(folder / "any.wav", samples, 48_000)
        (folder / "any.wav").rename(folder / name)
    return folder


def opened(sounds: Path, space: Space, index: Path) -> Library:
    return open_library(sounds, space.id, index)


def test_the_index_holds_the_towers_vectors_under_any_name(sounds, space, tmp_path):
    made = opened(sounds, space, tmp_path)
    calls = []
    assert len(made.pending) == 8 and made.update(lambda: space, lambda: calls.append(1)) == [] and len(calls) == 8
    found = opened(sounds, space, tmp_path)
    assert not found.pending and {*ODD} < found.rows.keys() and found.place == tmp_path / space.fingerprint[:16]
    vectors, _ = encode_audio_files([sounds / name for name in found.rows], space)
    stored = zarr.open_array(found.place / "sounds", mode="r")[:]
    assert (stored.shape, stored.dtype) == ((8, space.dim), np.float16)
    for name, row in found.rows.items():
        np.testing.assert_array_equal(stored[row], vectors[sounds / name].astype(np.float16))
        assert found.nearest(vectors[sounds / name][None], 3)[0][0][1] == sounds / name
    assert found.update(lambda: pytest.fail("nothing is to be heard")) == []


@pytest.fixture(scope="module")
def vectors(sounds, space) -> dict[str, np.ndarray]:
    found, _ = encode_audio_files(sorted(sounds.iterdir()), space)
    return {path.name: vector_E for path, vector_E in found.items()}


def encoding_of(vectors: dict[str, np.ndarray], scale: float = 1.0):
    """What stands for the audio tower: known vectors by a file's name."""
    return lambda paths, space, on_audio=lambda: None: ({p: vectors[p.name] * scale for p in paths}, [])


@pytest.mark.parametrize("can_exchange", [True, False])
def test_an_index_killed_at_every_step(sounds, space, vectors, tmp_path, monkeypatch, can_exchange):
    """Opened again it is the old one or the new one, and after an update the new one, with nothing beside it."""
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(vectors))
    monkeypatch.setattr(os, "fsync", lambda file: None)
    own, index, old = tmp_path / "own", tmp_path / "index", tmp_path / "old"
    shutil.copytree(sounds, own)
    (own / "4.wav").rename(tmp_path / "4.wav")
    opened(own, space, old).update(lambda: space)
    (tmp_path / "4.wav").rename(own / "4.wav")

    def restore() -> None:
        shutil.rmtree(index, ignore_errors=True)
        shutil.copytree(old, index)

    restore()
    opened(own, space, index).update(lambda: space)
    unbroken = contents(index)
    for _ in killed_at_every_step(lambda: opened(own, space, index).update(lambda: space), restore, can_exchange):
        found = opened(own, space, index)
        assert len(found.rows) in (7, 8) and len(found.pending) == 8 - len(found.rows)
        assert found.update(lambda: space) == [] and contents(index) == unbroken


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_vectors_that_float16_does_not_hold(sounds, space, vectors, tmp_path, monkeypatch, scale):
    """One such among others: the index is of float32, opened too, and cosines are as before."""
    small = {**vectors, "0.wav": vectors["0.wav"] * np.float32(scale)}
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(small))
    made = opened(sounds, space, tmp_path)
    made.update(lambda: space)
    found = opened(sounds, space, tmp_path)
    assert found.vectors_NE.dtype == np.float32
    ((score, path), *_) = found.nearest(vectors["0.wav"][None], 3)[0]
    assert path.name == "0.wav" and score == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_a_sound_whose_vector_means_nothing_is_left_out(sounds, space, vectors, tmp_path, monkeypatch, value):
    bad = {**vectors, "0.wav": np.full_like(vectors["0.wav"], value)}
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(bad))
    made = opened(sounds, space, tmp_path)
    (error,) = made.update(lambda: space)
    assert "0.wav has a CLAP vector that is" in str(error) and len(made.rows) == 7


def test_damage_of_an_index_is_named(sounds, space, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(vectors))
    made = opened(sounds, space, tmp_path / "whole")
    made.update(lambda: space)
    for name in ("sounds/c/0/0", "captions/0.txt", "manifest.json"):
        for damage in (lambda file: os.truncate(file, 10), lambda file: file.write_bytes(b"[" * 100_000)):
            index = Path(shutil.copytree(tmp_path / "whole", tmp_path / "index", dirs_exist_ok=True))
            damage(index / made.place.name / name)
            with pytest.raises(StoreError, match="; delete the index to encode the sounds again") as caught:
                opened(sounds, space, index)
            assert "\n" not in str(caught.value)


def test_any_path_of_an_index(sounds, space, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(vectors))
    for name in ("a b", "x#1", "x?1", "%20", "x[0]", "é ✓", "c/../d"):
        (tmp_path / "c").mkdir(exist_ok=True)
        opened(sounds, space, tmp_path / name / "index").update(lambda: space)
        assert not opened(sounds, space, tmp_path / name / "index").pending
    monkeypatch.chdir(tmp_path / "c")
    assert not opened(sounds, space, Path("../d/index")).pending


def test_an_index_that_cannot_be_written_is_one_line(sounds, space, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(vectors))
    (tmp_path / "file").write_text("in the place of a folder")
    with pytest.raises((StoreError, OSError)) as caught:
        opened(sounds, space, tmp_path / "file").update(lambda: space)
    assert "\n" not in str(caught.value)


def scoring_by(vectors: dict[str, np.ndarray]) -> Scoring:
    """Centred cosines, less hubness by ten references."""
    rng, dim = np.random.default_rng(1), len(vectors["0.wav"])
    mean_E = unit(np.stack(list(vectors.values()))).mean(axis=0)
    return Scoring(
        query_mean_E=(rng.normal(size=dim) / 2 / dim**0.5).astype(np.float32),
        candidate_mean_E=mean_E.astype(np.float32),
        reference_RE=rng.normal(size=(10, dim)).astype(np.float32),
    )


def unit(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)


@pytest.mark.parametrize("block", [3, 2**15])
def test_scores_other_than_cosines_by_hand(sounds, space, vectors, tmp_path, monkeypatch, block):
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(vectors))
    monkeypatch.setattr(library, "BLOCK", block)
    made = opened(sounds, space, tmp_path)
    made.update(lambda: space)
    query, scoring = np.random.default_rng(0).normal(size=(4, space.dim)).astype(np.float32), scoring_by(vectors)
    names = sorted(made.rows)
    stored = np.stack([made.vectors_NE[made.rows[name]] for name in names])
    centred = unit(unit(stored) - scoring.candidate_mean_E)
    queries, references = (unit(unit(x) - scoring.query_mean_E) for x in (query, scoring.reference_RE))
    hubness = 0.5 * np.sort(centred @ references.T, axis=1)[:, -2:].mean(axis=1)
    for found, scores in zip(made.nearest(query, 5, scoring), queries @ centred.T - hubness, strict=True):
        order = np.argsort(-scores)[:5]
        assert [path for _, path in found] == [sounds / names[place] for place in order]
        np.testing.assert_allclose([score for score, _ in found], scores[order], atol=1e-5)


@pytest.mark.parametrize("is_plain", [True, False])
def test_vectors_of_an_index_that_are_no_numbers(sounds, space, vectors, tmp_path, monkeypatch, is_plain):
    """Whichever block they are in."""
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(vectors))
    monkeypatch.setattr(library, "BLOCK", 3)
    made = opened(sounds, space, tmp_path)
    made.update(lambda: space)
    scoring = Scoring() if is_plain else scoring_by(vectors)
    for row in (0, 7):
        made.vectors_NE[row] = np.nan
        with pytest.raises(StoreError, match="holds zero or non-finite vectors; delete the index"):
            made.nearest(vectors["0.wav"][None], 2, scoring)
        made.vectors_NE[row] = 1


def test_one_writer_at_a_time(sounds, space, tmp_path):
    made = opened(sounds, space, tmp_path)
    with exclusive_lock(tmp_path), pytest.raises(StoreError, match="another process is writing"):
        made.update(lambda: space)


def test_a_library_that_lost_all_its_sounds(sounds, space, tmp_path):
    own = Path(shutil.copytree(sounds, tmp_path / "own"))
    made = opened(own, space, tmp_path / "index")
    made.update(lambda: space)
    for name in made.rows:
        (own / name).write_bytes(b"no sound")
    for failures in (8, 0):  # what could not be read is not tried again
        lost = opened(own, space, tmp_path / "index")
        assert len(lost.update(lambda: space)) == failures and not lost.rows and len(lost.unreadable) == 8


def test_a_name_that_is_not_utf8(sounds, space, tmp_path):
    own = Path(shutil.copytree(sounds, tmp_path / "own"))
    raw = (own / "0.wav").rename(own / os.fsdecode(b"caf\xe9.wav"))
    made = opened(own, space, tmp_path / "index")
    assert made.update(lambda: space) == [] and len(made.rows) == 8
    again = opened(own, space, tmp_path / "index")
    assert not again.pending and again.rows == made.rows
    ((best, *_),) = again.nearest(np.asarray(made.vectors_NE[made.rows["file:caf%E9.wav"]], np.float32)[None], 1)
    assert best[1] == raw


def test_an_index_of_another_space_or_format_is_refused(sounds, space, tmp_path):
    made = opened(sounds, space, tmp_path)
    made.update(lambda: space)
    manifest = made.place / "manifest.json"
    whole = manifest.read_text()
    for old, new, told in (
        (space.fingerprint, "0" * 64, "is of another space"),
        ('"format": 1', '"format": 0', "is of format 0, expected 1"),
        ('"rows"', '"row"', "required field `rows`"),
        ("{", "", "cannot be read as JSON"),
        ('"rows": 8', '"rows": 80', "chunk 0 is damaged .*delete the index to encode the sounds again"),
        ('"rows": 8', '"rows": 8000000', "expected one checksum per chunk"),
        ('"chunk_rows": 4096', '"chunk_rows": 0', "chunk_rows"),
        ('"dtype": "float16"', f'"dtype": {10**30}', "dtype"),
    ):
        manifest.write_text(whole.replace(old, new))
        with pytest.raises(StoreError, match=told):
            opened(sounds, space, tmp_path)
