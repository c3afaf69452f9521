"""MPEG audio: with and without a Xing frame, truncated, damaged and joined."""

import numpy as np
import pytest
import soundfile

from c2c_jax.io.codecs.mpeg import parse_header
from tests.io.codecs.test_decode import read, refusal

RATE = 24_000  # of what is read; the files may be of another


def tone(seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 441 * np.arange(round(seconds * rate)) / rate)


def mp3(path, seconds=15.0, rate=24_000, channels=1, mode="VARIABLE") -> bytes:
    parts = np.repeat(tone(seconds, rate)[:, None], channels, axis=1)
    soundfile.write(path, parts, rate, format="MP3", bitrate_mode=mode)
    return path.read_bytes()


def stripped(content: bytes) -> bytes:
    """Removes the Xing frame, which is the first."""
    head = parse_header(content[:4])
    assert head and (b"Xing" in content[:200] or b"Info" in content[:200])
    return content[head.length :]


def is_tone(decoded: np.ndarray, start: int, end: int) -> bool:
    """Whether the tone of amplitude 0.5 is there from `start` to `end`, at any phase, in each tenth of a second."""
    tenths = decoded[start:end][: (end - start) // 2400 * 2400].reshape(-1, 2400)
    return bool(np.allclose(np.sqrt((tenths**2).mean(axis=1)), 0.5 / np.sqrt(2), atol=0.02))


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT", "AVERAGE"])
@pytest.mark.parametrize(("rate", "channels"), [(24_000, 1), (48_000, 2), (16_000, 1)])
def test_with_its_xing_frame(tmp_path, mode, rate, channels):
    decoded, notes = read(tmp_path / "a.mp3", mp3(tmp_path / "a.mp3", 3, rate, channels, mode))
    assert len(decoded) == 72_000 and not notes and is_tone(decoded, 2400, 69_600)


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize(("rate", "channels"), [(24_000, 1), (48_000, 2), (44_100, 1)])
def test_without_its_xing_frame(tmp_path, capfd, mode, rate, channels):
    """All 15 s are read, not the 2.17 s that the first frames' bitrate suggests; the encoder's delay is read too."""
    content = stripped(mp3(tmp_path / "a.mp3", 15, rate, channels, mode))
    decoded, notes = read(tmp_path / "a.mp3", content)
    assert 0 <= len(decoded) - 15 * RATE <= 2304 * RATE / rate and not notes
    assert is_tone(decoded, 4800, 15 * RATE - 2400)
    assert capfd.readouterr().err == ""


def test_a_xing_frame_that_lies(tmp_path):
    """Too few frames stated, as after appending: all are read. Too many: the file is truncated."""
    content = mp3(tmp_path / "a.mp3", 5)
    at = content.index(b"Info" if b"Info" in content[:100] else b"Xing") + 8
    frames = int.from_bytes(content[at : at + 4], "big")
    for stated in (0, 10, frames - 1):
        decoded, notes = read(tmp_path / "a.mp3", content[:at] + stated.to_bytes(4, "big") + content[at + 4 :])
        assert 0 <= len(decoded) - 5 * RATE <= 2304 and is_tone(decoded, 2400, 5 * RATE - 2400)
    lying = content[:at] + (frames + 9).to_bytes(4, "big") + content[at + 4 :]
    assert f"is truncated: its header states {frames + 9} MPEG frames, but {frames} are there" in refusal(
        tmp_path / "a.mp3", lying
    )


def test_a_damaged_xing_frame(tmp_path):
    """With a wrong checksum or no mark, all frames are read, and the damage is reported."""
    content = mp3(tmp_path / "a.mp3", 5)
    mark = content.index(b"LAME") - 120
    assert content[mark : mark + 4] in (b"Xing", b"Info")
    for at in (mark, mark + 20, mark + 141, mark + 143):
        decoded, notes = read(tmp_path / "a.mp3", content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert "has a damaged Xing frame" in notes and abs(len(decoded) - 5 * RATE) < 2304
        assert is_tone(decoded, 2400, 5 * RATE - 2400)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.99])
def test_cut(tmp_path, fraction):
    content = mp3(tmp_path / "a.mp3", 5)
    assert "is truncated" in refusal(tmp_path / "a.mp3", content[: int(len(content) * fraction)])
    bare = stripped(content)
    decoded, notes = read(tmp_path / "a.mp3", bare[: int(len(bare) * fraction)])  # nothing says how long it was
    assert "ends in the middle of a frame" in notes and len(decoded) <= 5 * RATE


def test_joined_files(tmp_path):
    """Joined files with and without Xing frames, with tags between them, and with another rate."""
    path = tmp_path / "a.mp3"
    content = mp3(path, 2)
    id3, id3v1 = b"ID3\3\0\0" + bytes([0, 0, 1, 0]) + b"\xff\xfb\x90\0" * 32, b"TAG" + b"words" * 25
    decoded, notes = read(path, content + content)
    assert len(decoded) == 4 * RATE and not notes
    assert is_tone(decoded, 2400, 2 * RATE - 2400) and is_tone(decoded, 2 * RATE + 2400, 4 * RATE - 2400)
    decoded, notes = read(path, id3 + content + id3v1 + id3 + content + id3v1)
    assert len(decoded) == 4 * RATE and not notes
    decoded, notes = read(path, content + stripped(content))
    assert 0 <= len(decoded) - 4 * RATE <= 2304 and not notes
    assert "different rates" in refusal(path, content + mp3(tmp_path / "b.mp3", 2, 48_000))


def test_damage_in_the_middle(tmp_path):
    content = mp3(tmp_path / "a.mp3", 5)
    for bare in (content, stripped(content)):
        middle = len(bare) // 2
        junk = np.random.default_rng(0).integers(0, 256, 3000, np.uint8).tobytes()
        assert "is damaged: bytes" in refusal(tmp_path / "a.mp3", bare[:middle] + junk + bare[middle + 3000 :])
        assert "is damaged: bytes" in refusal(tmp_path / "a.mp3", bare[:middle] + b"words" + bare[middle:])
    _, notes = read(tmp_path / "a.mp3", content[:100] + stripped(content)[: len(content) // 2])  # and the Xing frame
    assert "begins with 100 non-audio bytes" in notes
    decoded, notes = read(tmp_path / "a.mp3", content + b"words, words and more words")
    assert len(decoded) == 5 * RATE and "ends in 27 non-audio bytes" in notes
    decoded, notes = read(tmp_path / "a.mp3", content + bytes(1000))
    assert len(decoded) == 5 * RATE and not notes


def test_a_large_tag_is_not_read(tmp_path):
    """A sparse file with a 200 MB tag before the audio."""
    content, path = mp3(tmp_path / "a.mp3", 1), tmp_path / "b.mp3"
    with open(path, "wb") as file:
        file.write(b"ID3\4\0\0" + bytes([95, 0, 0, 0]))
        file.seek(10 + (95 << 21))
        file.write(content)
    decoded, notes = read(tmp_path / "a.mp3", content)
    from c2c_jax.io.audio import read_audio

    np.testing.assert_array_equal(read_audio(path, RATE), decoded)


def test_a_resource_fork_beside_it(tmp_path, monkeypatch):
    """macOS leaves `._a.mp3` next to `a.mp3` on other disks; libsndfile would then decode it as SD2."""
    content = mp3(tmp_path / "a.mp3", 1)
    (tmp_path / "._a.mp3").write_bytes(b"\0\5\x16\7" + bytes(100))
    (tmp_path / "._").write_bytes(b"\0\5\x16\7" + bytes(100))
    monkeypatch.chdir(tmp_path)
    assert len(read(tmp_path / "a.mp3", content)[0]) == RATE


@pytest.mark.parametrize(
    ("four", "expected"),
    [
        (b"\xff\xfb\x90\xc0", (3, 3, 44_100, True, 417, 1152)),
        (b"\xff\xfb\x92\x00", (3, 3, 44_100, False, 418, 1152)),
        (b"\xff\xf3\x84\x00", (2, 3, 24_000, False, 192, 576)),
        (b"\xff\xe3\x88\x00", (0, 3, 8000, False, 576, 576)),
        (b"\xff\xfd\x84\x00", (3, 2, 48_000, False, 384, 1152)),
        (b"\xff\xff\x84\x00", (3, 1, 48_000, False, 256, 384)),
    ],
)
def test_heads(four, expected):
    """Against the tables and formulas of ISO/IEC 11172-3, 2.4.2.3."""
    head = parse_header(four)
    assert (head.version, head.layer, head.rate, head.is_mono, head.length, head.samples) == expected


@pytest.mark.parametrize(
    "four", [b"\xff\xf9\x90\0", b"\xff\xeb\x90\0", b"\xff\xfb\xf0\0", b"\xff\xfb\x0c\0", b"\xff\xfb"]
)
def test_what_is_no_head(four):
    assert parse_header(four) is None
