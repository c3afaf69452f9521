"""Ogg pages: checksums, order, the last granule, missing ends, chains."""

import numpy as np
import pytest
import soundfile

from c2c_jax.io.codecs.ogg import checksum
from tests.io.codecs.test_decode import RATE, read, refusal

CODECS = [("VORBIS", 0.06), ("OPUS", 0.12)]  # and how far off 99 in 100 samples may be: ends are coded badly


def chord(seconds: int) -> np.ndarray:
    """A tone and a little noise."""
    rng, time = np.random.default_rng(0), np.arange(seconds * RATE) / RATE
    return 0.5 * np.sin(2 * np.pi * 441 * time) + rng.normal(size=len(time)) / 50


def ogg(path, codec, seconds=3, channels=1) -> bytes:
    soundfile.write(path, np.repeat(chord(seconds)[:, None], channels, axis=1), RATE, format="OGG", subtype=codec)
    return path.read_bytes()


def pages(content: bytes) -> list[bytes]:
    decoded = []
    while content:
        size = 27 + content[26] + sum(content[27 : 27 + content[26]])
        decoded.append(content[:size])
        content = content[size:]
    return decoded


def sealed(page: bytes) -> bytes:
    """Sets the right checksum."""
    return page[:22] + checksum(page).to_bytes(4, "little") + page[26:]


@pytest.mark.parametrize(("codec", "tolerance"), CODECS)
def test_whole(tmp_path, codec, tolerance):
    content = ogg(tmp_path / "a.ogg", codec)
    assert all(sealed(page) == page for page in pages(content))  # libogg's checksums are the same
    decoded, notes = read(tmp_path / "a.ogg", content)
    assert len(decoded) == 3 * RATE and not notes
    assert np.quantile(np.abs(decoded - chord(3)), 0.99) < tolerance


@pytest.mark.parametrize(("codec", "tolerance"), CODECS)
def test_a_wrong_checksum_anywhere(tmp_path, codec, tolerance):
    """libsndfile would skip such a page and its samples silently."""
    content = ogg(tmp_path / "a.ogg", codec)
    for position in range(30, len(content), len(content) // 40):
        refusal(tmp_path / "a.ogg", content[:position] + bytes([content[position] ^ 32]) + content[position + 1 :])


@pytest.mark.parametrize(("codec", "tolerance"), CODECS)
def test_pages_missing_doubled_and_swapped(tmp_path, codec, tolerance):
    of = pages(ogg(tmp_path / "a.ogg", codec, 6))
    assert len(of) >= 6
    for other in (of[:3] + of[4:], of[:4] + of[3:], [*of[:3], of[4], of[3], *of[5:]], of[1:]):
        assert "is damaged" in refusal(tmp_path / "a.ogg", b"".join(other))
    assert "no Ogg page at byte" in refusal(tmp_path / "a.ogg", b"".join(of[:3]) + b"words" + b"".join(of[3:]))


@pytest.mark.parametrize(("codec", "tolerance"), CODECS)
def test_cut(tmp_path, codec, tolerance):
    """A cut within a page is refused. A cut between pages may be an interrupted recording: it is read and reported."""
    whole = read(tmp_path / "a.ogg", content := ogg(tmp_path / "a.ogg", codec, 6))[0]
    of = pages(content)
    for fraction in (0.3, 0.9, 0.999):
        assert "truncated" in refusal(tmp_path / "a.ogg", content[: int(len(content) * fraction)])
    decoded, notes = read(tmp_path / "a.ogg", b"".join(of[:-1]))
    granule = int.from_bytes(of[-2][6:14], "little")
    frames = granule if codec == "VORBIS" else (granule - int.from_bytes(of[0][38:40], "little")) // (48_000 // RATE)
    assert len(decoded) == frames < len(whole) and "has no end-of-stream page" in notes
    np.testing.assert_allclose(decoded[:-2000], whole[: len(decoded) - 2000], atol=1e-6)
    unmarked = sealed(of[-1][:5] + b"\0" + of[-1][6:])
    decoded, notes = read(tmp_path / "a.ogg", b"".join([*of[:-1], unmarked]))
    assert "has no end-of-stream page" in notes
    np.testing.assert_allclose(decoded, whole, atol=1e-6)


@pytest.mark.parametrize(("codec", "tolerance"), CODECS)
def test_a_last_granule_that_lies(tmp_path, codec, tolerance):
    of = pages(ogg(tmp_path / "a.ogg", codec, 6))
    for granule in (1, 10**9):
        last = sealed(of[-1][:6] + granule.to_bytes(8, "little") + of[-1][14:])
        refusal(tmp_path / "a.ogg", b"".join([*of[:-1], last]))


@pytest.mark.parametrize(("codec", "tolerance"), CODECS)
def test_chains(tmp_path, codec, tolerance):
    content = ogg(tmp_path / "a.ogg", codec, 1)
    decoded, notes = read(tmp_path / "a.ogg", content * 3)
    assert len(decoded) == 3 * RATE and not notes
    assert np.quantile(np.abs(decoded - np.tile(chord(1), 3)), 0.99) < tolerance
    assert "different rates or channels" in refusal(tmp_path / "a.ogg", content + ogg(tmp_path / "b.ogg", codec, 1, 2))


def test_two_sounds_at_once(tmp_path):
    """Alternating pages of two streams: the first stream is read, the other reported."""
    first = pages(ogg(tmp_path / "a.ogg", "VORBIS", 2))
    second = pages(ogg(tmp_path / "b.ogg", "OPUS", 2))
    alternating = [page for pair in zip(first, second, strict=False) for page in pair]
    longer = first if len(first) > len(second) else second
    mixed = alternating + longer[min(len(first), len(second)) :]
    decoded, notes = read(tmp_path / "c.ogg", b"".join(mixed))
    np.testing.assert_array_equal(decoded, read(tmp_path / "a.ogg", b"".join(first))[0])
    assert "contains 2 parallel sounds" in notes


def test_what_is_behind_the_end(tmp_path):
    content = ogg(tmp_path / "a.ogg", "VORBIS", 1)
    assert read(tmp_path / "a.ogg", content + bytes(100))[1] == ""
    decoded, notes = read(tmp_path / "a.ogg", content + b"words")
    assert len(decoded) == RATE and "has 5 bytes after its end" in notes


def test_a_codec_that_is_not_read(tmp_path):
    page = bytearray(pages(ogg(tmp_path / "a.ogg", "VORBIS", 1))[0])
    page[28:36] = b"Speex   "
    assert "has no Vorbis, Opus or FLAC stream" in refusal(tmp_path / "a.spx", sealed(bytes(page)))
