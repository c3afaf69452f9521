"""Sound files to CLAP vectors: in order, the readable ones, and what is wrong with the others."""

import numpy as np
import pytest
import soundfile

from c2c_jax.errors import CheckpointError
from c2c_jax.hearing import BATCH, sound_vectors
from c2c_jax.sounds import read_sound
from c2c_jax.spaces import load_space
from tests.generation.test_ranking import build_clap


@pytest.fixture(scope="module")
def space(tmp_path_factory, audioldm_folder):
    return load_space(str(build_clap(tmp_path_factory.mktemp("clap") / "clap", audioldm_folder)), only="audio")


def write(folder, count):
    """Files of many lengths, rates and channel counts."""
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        rate, channels = int(rng.choice([16_000, 44_100, 48_000])), int(rng.integers(1, 3))
        noise = rng.normal(size=(round(rng.uniform(0.1, 1.5) * rate), channels)) / 10
        paths.append(folder / f"{number:02}.{('wav', 'flac', 'ogg')[number % 3]}")
        soundfile.write(paths[-1], noise, rate)
    return paths


def test_vectors_and_errors(tmp_path, space):
    """More files than a batch: each vector is that of its own sound."""
    paths = write(tmp_path, BATCH + 5)
    soundfile.write(tmp_path / "silent.wav", np.zeros(100), 48_000)
    (tmp_path / "broken.flac").write_bytes(paths[1].read_bytes()[:1000])
    given = [paths[3], tmp_path / "silent.wav", *paths[:3], tmp_path / "broken.flac", *paths[4:], tmp_path / "none.wav"]
    heard = []
    vectors, errors = sound_vectors(given, space, on_sound=lambda: heard.append(1))
    assert len(heard) == len(given)
    assert list(vectors) == [path for path in given if path in paths]
    assert [name for error in errors for name in ("silent", "broken", "none") if name in str(error)] == [
        "silent",
        "broken",
        "none",
    ]
    expected = space.encode_audio([read_sound(path, 48_000) for path in vectors])
    np.testing.assert_allclose(np.stack(list(vectors.values())), expected, atol=1e-5, rtol=0)
    assert np.ptp(expected, axis=0).max() > 0.01


def test_none_and_one(tmp_path, space):
    assert sound_vectors([], space) == ({}, [])
    (path,) = write(tmp_path, 1)
    vectors, errors = sound_vectors([path], space)
    assert vectors[path].shape == (space.dim,) and not errors


def test_a_space_that_does_not_hear(audioldm_folder):
    with pytest.raises(CheckpointError, match="no audio tower; pass a whole CLAP"):
        sound_vectors([], load_space(f"{audioldm_folder}:text_encoder"))
