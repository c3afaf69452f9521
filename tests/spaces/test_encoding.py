"""Encoding of sound files: vectors of the readable ones and errors of the others, in order."""

import os

import numpy as np
import pytest
import soundfile

from c2c_jax.errors import CheckpointError
from c2c_jax.io.audio import read_audio
from c2c_jax.spaces.encoding import AUDIO_BATCH, encode_audio_files
from c2c_jax.spaces.space import load_space
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
    """With more files than a batch, each vector belongs to its own sound."""
    paths = write(tmp_path, AUDIO_BATCH + 5)
    soundfile.write(tmp_path / "silent.wav", np.zeros(100), 48_000)
    (tmp_path / "broken.flac").write_bytes(paths[1].read_bytes()[:1000])
    given = [paths[3], tmp_path / "silent.wav", *paths[:3], tmp_path / "broken.flac", *paths[4:], tmp_path / "none.wav"]
    heard = []
    vectors, errors = encode_audio_files(given, space, on_audio=lambda: heard.append(1))
    assert len(heard) == len(given)
    assert list(vectors) == [path for path in given if path in paths]
    assert [name for error in errors for name in ("silent", "broken", "none") if name in str(error)] == [
        "silent",
        "broken",
        "none",
    ]
    expected = space.encode_audio([read_audio(path, 48_000) for path in vectors])
    np.testing.assert_allclose(np.stack(list(vectors.values())), expected, atol=1e-5, rtol=0)
    assert np.ptp(expected, axis=0).max() > 0.01


def test_notes_come_in_input_order(tmp_path, space, caplog):
    """If channels cancel, one of them is encoded; a silent start is skipped."""
    rng = np.random.default_rng(0)
    waveform = (rng.normal(size=48_000) / 10).astype(np.float32)
    assert space.require_audio_preprocessor().max_seconds == 1
    delayed = np.concatenate([np.zeros(3 * 48_000), rng.normal(size=2 * 48_000) / 10]).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([waveform, -waveform], axis=1), 48_000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", waveform, 48_000, subtype="FLOAT")
    soundfile.write(tmp_path / "c.wav", delayed, 48_000, subtype="FLOAT")
    paths = [tmp_path / name for name in ("c.wav", "b.wav", "a.wav")]
    vectors, errors = encode_audio_files(paths, space)
    assert list(vectors) == paths and not errors
    np.testing.assert_allclose(vectors[paths[2]], vectors[paths[1]], atol=1e-5)
    expected = space.encode_audio([delayed[3 * 48_000 : 4 * 48_000]])[0]
    np.testing.assert_allclose(vectors[paths[0]], expected, atol=1e-5)
    assert [line.split(" ")[:2] for line in caplog.messages] == [["note:", str(paths[0])], ["note:", str(paths[2])]]


@pytest.mark.parametrize("name", ["pipe.wav", "zero.wav", "short.wav"])
def test_unreadable_files(tmp_path, space, name):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    soundfile.write(tmp_path / "short.wav", np.full(10, 0.1), 48_000)
    vectors, (error,) = encode_audio_files([tmp_path / name], space)
    reason = {"pipe.wav": "a named pipe", "zero.wav": "a device", "short.wav": "lasts 0.208 ms"}[name]
    assert not vectors and reason in str(error)


def test_no_file_and_one_file(tmp_path, space):
    assert encode_audio_files([], space) == ({}, [])
    (path,) = write(tmp_path, 1)
    vectors, errors = encode_audio_files([path], space)
    assert vectors[path].shape == (space.dim,) and not errors


def test_space_without_audio_tower(audioldm_folder):
    with pytest.raises(CheckpointError, match="no audio tower; pass a whole CLAP"):
        encode_audio_files([], load_space(f"{audioldm_folder}:text_encoder"))
