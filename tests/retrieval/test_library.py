"""A library and its index: unusual names, scores, damage, and concurrent writers."""

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
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for seed, name in enumerate((*ODD, *(f"{number}.wav" for number in range(5)))):
        samples = np.random.default_rng(seed).uniform(-0.5, 0.5, 4800 * (1 + seed))
        soundfile.write(folder / "any.wav", samples, 48_000)
        (folder / "any.wav").rename(folder / name)
    return folder


def open_index(folder: Path, space: Space, index: Path) -> Library:
    return open_library(folder, space.id, index)


def test_index_stores_vectors_under_any_file_name(folder, space, tmp_path):
    opened = open_index(folder, space, tmp_path)
    calls = []
    assert len(opened.pending) == 8 and opened.update(lambda: space, lambda: calls.append(1)) == [] and len(calls) == 8
    reopened = open_index(folder, space, tmp_path)
    assert (
        not reopened.pending
        and {*ODD} < reopened.rows.keys()
        and reopened.index_folder == tmp_path / space.fingerprint[:16]
    )
    vectors, _ = encode_audio_files([folder / name for name in reopened.rows], space)
    stored = zarr.open_array(reopened.index_folder / "sounds", mode="r")[:]
    assert (stored.shape, stored.dtype) == ((8, space.dim), np.float16)
    for name, row in reopened.rows.items():
        np.testing.assert_array_equal(stored[row], vectors[folder / name].astype(np.float16))
        assert reopened.nearest(vectors[folder / name][None], 3)[0][0][1] == folder / name
    assert reopened.update(lambda: pytest.fail("no sound needs encoding")) == []


@pytest.fixture(scope="module")
def vectors(folder, space) -> dict[str, np.ndarray]:
    encoded, _ = encode_audio_files(sorted(folder.iterdir()), space)
    return {path.name: vector_E for path, vector_E in encoded.items()}


def encoding_of(vectors: dict[str, np.ndarray], scale: float = 1.0):
    """Replaces `encode_audio_files`: returns known vectors by file name."""
    return lambda paths, space, on_audio=lambda: None: ({p: vectors[p.name] * scale for p in paths}, [])


@pytest.mark.parametrize("can_exchange", [True, False])
def test_an_index_killed_at_every_step(folder, space, vectors, tmp_path, monkeypatch, can_exchange):
    """A reopened index is the old or the new one; after an update it is the new one, without leftover files."""
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(vectors))
    monkeypatch.setattr(os, "fsync", lambda file: None)
    source, index, old = tmp_path / "own", tmp_path / "index", tmp_path / "old"
    shutil.copytree(folder, source)
    (source / "4.wav").rename(tmp_path / "4.wav")
    open_index(source, space, old).update(lambda: space)
    (tmp_path / "4.wav").rename(source / "4.wav")

    def restore() -> None:
        shutil.rmtree(index, ignore_errors=True)
        shutil.copytree(old, index)

    restore()
    open_index(source, space, index).update(lambda: space)
    unbroken = contents(index)
    for _ in killed_at_every_step(
        lambda: open_index(source, space, index).update(lambda: space), restore, can_exchange
    ):
        reopened = open_index(source, space, index)
        assert len(reopened.rows) in (7, 8) and len(reopened.pending) == 8 - len(reopened.rows)
        assert reopened.update(lambda: space) == [] and contents(index) == unbroken


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_vectors_out_of_float16_range(folder, space, vectors, tmp_path, monkeypatch, scale):
    """With one such vector, the index is stored in float32 and cosines do not change."""
    small = {**vectors, "0.wav": vectors["0.wav"] * np.float32(scale)}
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(small))
    opened = open_index(folder, space, tmp_path)
    opened.update(lambda: space)
    reopened = open_index(folder, space, tmp_path)
    assert reopened.vectors_NE.dtype == np.float32
    ((score, path), *_) = reopened.nearest(vectors["0.wav"][None], 3)[0]
    assert path.name == "0.wav" and score == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_sounds_with_zero_or_non_finite_vectors_are_left_out(folder, space, vectors, tmp_path, monkeypatch, value):
    bad = {**vectors, "0.wav": np.full_like(vectors["0.wav"], value)}
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(bad))
    opened = open_index(folder, space, tmp_path)
    (error,) = opened.update(lambda: space)
    assert "0.wav has a CLAP vector that is" in str(error) and len(opened.rows) == 7


def test_damaged_index_is_refused(folder, space, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(vectors))
    opened = open_index(folder, space, tmp_path / "whole")
    opened.update(lambda: space)
    for name in ("sounds/c/0/0", "captions/0.txt", "manifest.json"):
        for damage in (lambda file: os.truncate(file, 10), lambda file: file.write_bytes(b"[" * 100_000)):
            index = Path(shutil.copytree(tmp_path / "whole", tmp_path / "index", dirs_exist_ok=True))
            damage(index / opened.index_folder.name / name)
            with pytest.raises(StoreError, match="; delete the index to encode the sounds again") as caught:
                open_index(folder, space, index)
            assert "\n" not in str(caught.value)


def test_unusual_index_paths(folder, space, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(vectors))
    for name in ("a b", "x#1", "x?1", "%20", "x[0]", "é ✓", "c/../d"):
        (tmp_path / "c").mkdir(exist_ok=True)
        open_index(folder, space, tmp_path / name / "index").update(lambda: space)
        assert not open_index(folder, space, tmp_path / name / "index").pending
    monkeypatch.chdir(tmp_path / "c")
    assert not open_index(folder, space, Path("../d/index")).pending


def test_unwritable_index_raises_a_one_line_error(folder, space, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(vectors))
    (tmp_path / "file").write_text("in the place of a folder")
    with pytest.raises((StoreError, OSError)) as caught:
        open_index(folder, space, tmp_path / "file").update(lambda: space)
    assert "\n" not in str(caught.value)


def scoring_by(vectors: dict[str, np.ndarray]) -> Scoring:
    """Centred cosines minus hubness with ten references."""
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
def test_centred_scores_less_hubness_by_hand(folder, space, vectors, tmp_path, monkeypatch, block):
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(vectors))
    monkeypatch.setattr(library, "BLOCK", block)
    opened = open_index(folder, space, tmp_path)
    opened.update(lambda: space)
    query, scoring = np.random.default_rng(0).normal(size=(4, space.dim)).astype(np.float32), scoring_by(vectors)
    names = sorted(opened.rows)
    stored = np.stack([opened.vectors_NE[opened.rows[name]] for name in names])
    centred = unit(unit(stored) - scoring.candidate_mean_E)
    queries, references = (unit(unit(x) - scoring.query_mean_E) for x in (query, scoring.reference_RE))
    hubness = 0.5 * np.sort(centred @ references.T, axis=1)[:, -2:].mean(axis=1)
    for matches, scores in zip(opened.nearest(query, 5, scoring), queries @ centred.T - hubness, strict=True):
        order = np.argsort(-scores)[:5]
        assert [path for _, path in matches] == [folder / names[row] for row in order]
        np.testing.assert_allclose([score for score, _ in matches], scores[order], atol=1e-5)


@pytest.mark.parametrize("is_plain", [True, False])
def test_non_finite_vectors_in_an_index_are_refused(folder, space, vectors, tmp_path, monkeypatch, is_plain):
    """In any block."""
    monkeypatch.setattr(library, "encode_audio_files", encoding_of(vectors))
    monkeypatch.setattr(library, "BLOCK", 3)
    opened = open_index(folder, space, tmp_path)
    opened.update(lambda: space)
    scoring = Scoring() if is_plain else scoring_by(vectors)
    for row in (0, 7):
        opened.vectors_NE[row] = np.nan
        with pytest.raises(StoreError, match="holds zero or non-finite vectors; delete the index"):
            opened.nearest(vectors["0.wav"][None], 2, scoring)
        opened.vectors_NE[row] = 1


def test_one_writer_at_a_time(folder, space, tmp_path):
    opened = open_index(folder, space, tmp_path)
    with exclusive_lock(tmp_path), pytest.raises(StoreError, match="another process is writing"):
        opened.update(lambda: space)


def test_library_in_which_all_sounds_became_unreadable(folder, space, tmp_path):
    source = Path(shutil.copytree(folder, tmp_path / "own"))
    opened = open_index(source, space, tmp_path / "index")
    opened.update(lambda: space)
    for name in opened.rows:
        (source / name).write_bytes(b"no sound")
    for failures in (8, 0):  # unreadable files are not tried again
        lost = open_index(source, space, tmp_path / "index")
        assert len(lost.update(lambda: space)) == failures and not lost.rows and len(lost.unreadable) == 8


def test_file_name_that_is_not_utf8(folder, space, tmp_path):
    source = Path(shutil.copytree(folder, tmp_path / "own"))
    raw = (source / "0.wav").rename(source / os.fsdecode(b"caf\xe9.wav"))
    opened = open_index(source, space, tmp_path / "index")
    assert opened.update(lambda: space) == [] and len(opened.rows) == 8
    again = open_index(source, space, tmp_path / "index")
    assert not again.pending and again.rows == opened.rows
    ((best, *_),) = again.nearest(np.asarray(opened.vectors_NE[opened.rows["file:caf%E9.wav"]], np.float32)[None], 1)
    assert best[1] == raw


def test_an_index_of_another_space_or_format_is_refused(folder, space, tmp_path):
    opened = open_index(folder, space, tmp_path)
    opened.update(lambda: space)
    manifest = opened.index_folder / "manifest.json"
    whole = manifest.read_text()
    for old, new, message in (
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
        with pytest.raises(StoreError, match=message):
            open_index(folder, space, tmp_path)
