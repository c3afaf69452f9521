"""Images and sounds that are embedded in a page, decoded again."""

import base64
import io
import os
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import soundfile
from PIL import Image

from c2c_jax.errors import ImageError
from c2c_jax.evaluation.report.gallery import audio_address, find_image, image_address, mel_address
from c2c_jax.io.audio_output import mel_spectrogram
from c2c_jax.io.files import sha256_of


def decoded(address: str) -> tuple[str, io.BytesIO]:
    kind, _, content = address.partition(";base64,")
    return kind, io.BytesIO(base64.b64decode(content, validate=True))


def tone(rate: int, seconds: float = 2.0) -> np.ndarray:
    times = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * 440 * times) * np.exp(-times)).astype(np.float32)


def test_embedded_sound_is_nearly_the_same():
    kind, file = decoded(audio_address(tone(16_000), 16_000))
    assert kind == "data:audio/mpeg" and len(file.getvalue()) < 2 * 32_000 / 3
    samples, rate = soundfile.read(file)
    assert rate == 16_000 and len(samples) == 32_000
    assert np.abs(samples - tone(16_000)).max() < 0.02


def test_a_sample_rate_that_mp3_lacks():
    kind, file = decoded(audio_address(tone(14_000), 14_000))
    samples, rate = soundfile.read(file)
    assert kind == "data:audio/wav" and rate == 14_000
    np.testing.assert_allclose(samples, tone(14_000), atol=2 / 32768)


def test_spectrogram_has_low_notes_at_the_bottom():
    kind, file = decoded(mel_address(tone(16_000), 16_000))
    with Image.open(file) as picture:
        shown = np.asarray(picture, float)
    assert kind == "data:image/jpeg" and shown.shape == (256, 640, 3)
    mels = mel_spectrogram(tone(16_000), 16_000)
    colours = matplotlib.colormaps["magma"](1 + mels / 80)[..., :3] * 255
    bright = colours.sum(axis=2).mean(axis=1).argmax()  # the tone's own mel bin, of 128
    assert abs(shown.sum(axis=2).mean(axis=1).argmax() - 2 * (127.5 - bright)) <= 2
    # As bright as the colour map has it, on average.
    np.testing.assert_allclose(shown.mean(axis=(0, 1)), colours.mean(axis=(0, 1)), atol=3)


@pytest.mark.parametrize(("size", "shown"), [((64, 48), (64, 48)), ((1200, 300), (640, 160)), ((300, 400), (300, 400))])
def test_large_pictures_are_scaled_and_small_ones_stay_exact(tmp_path, size, shown):
    """With noise, which compresses worst."""
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    address, *size = image_address(tmp_path / "a.png")
    kind, file = decoded(address)
    with Image.open(file) as picture:
        assert picture.size == shown == tuple(size)
        if max(size) < 200:
            assert kind == "data:image/png"
            np.testing.assert_array_equal(np.asarray(picture), pixels)
        else:
            assert kind == "data:image/jpeg"


def test_a_moved_picture_is_found(tmp_path):
    before, moved = tmp_path / "before/a.png", tmp_path / "beside/a.png"
    before.parent.mkdir()
    moved.parent.mkdir()
    Image.new("RGB", (8, 8), "red").save(before)
    checksum = sha256_of(before)
    assert find_image(before, checksum, [moved.parent]) == before
    shutil.move(before, moved)
    assert find_image(before, checksum, [moved.parent]) == moved
    Image.new("RGB", (8, 8), "blue").save(before)  # another one in its place
    assert find_image(before, checksum, [moved.parent]) == moved
    moved.unlink()
    with pytest.raises(ImageError, match="is not the image that the sound was generated from"):
        find_image(before, checksum, [moved.parent])
    before.unlink()
    with pytest.raises(ImageError, match="found none"):
        find_image(before, checksum, [moved.parent])


def test_only_regular_files_are_read(tmp_path):
    """A record may name a pipe, a device, or a name that is too long."""
    os.mkfifo(tmp_path / "pipe.png")
    for recorded in (tmp_path / "pipe.png", Path("/dev/zero"), Path("n" * 300 + ".png"), Path("a\0.png")):
        with pytest.raises(ImageError, match="found none: restore it"):
            find_image(recorded, "0" * 64, [tmp_path])
