"""Wrong headers of sound files: all samples are read, and truncated files are refused or reported."""

import numpy as np
import pytest
import soundfile

from c2c_jax.errors import AudioError
from c2c_jax.io.audio import read_audio

RATE = 24_000
# Name, libsndfile's format and subtype, where the size of the samples is stated, in how many bytes, of which order.
SIZED = [
    ("a.wav", "WAV", "PCM_16", b"data", 4, 4, "little"),
    ("b.wav", "WAVEX", "PCM_24", b"data", 4, 4, "little"),
    ("c.wav", "WAV", "FLOAT", b"data", 4, 4, "little"),
    ("a.rf64", "RF64", "PCM_16", b"ds64", 16, 8, "little"),
    ("a.w64", "W64", "PCM_16", b"data\xf3\xac", 16, 8, "little"),
    ("a.aiff", "AIFF", "PCM_16", b"SSND", 4, 4, "big"),
    ("a.aifc", "AIFF", "FLOAT", b"SSND", 4, 4, "big"),
    ("a.caf", "CAF", "PCM_16", b"data", 4, 8, "big"),
    ("a.au", "AU", "PCM_16", b".snd", 8, 4, "big"),
    ("a.svx", "SVX", "PCM_16", b"BODY", 4, 4, "big"),
    ("a.sph", "NIST", "PCM_16", None, 0, 0, "big"),
    ("a.avr", "AVR", "PCM_16", b"2BIT", 26, 4, "big"),
    ("a.voc", "VOC", "PCM_16", None, 0, 0, "big"),
    ("a.sds", "SDS", "PCM_16", None, 0, 0, "big"),
    ("a.wve", "WVE", "ALAW", b"ALaw", 18, 4, "big"),
]
STATING = [row for row in SIZED if row[3] and row[1] not in ("WVE", "AVR")]


def samples(channels: int = 1) -> np.ndarray:
    """A second of noise in 16-bit steps."""
    return np.round(np.random.default_rng(0).normal(size=(RATE, channels)) * 3000) / 2**15


def write(path, layout, subtype, channels=1) -> bytes:
    soundfile.write(path, samples(channels), 8000 if layout == "WVE" else RATE, format=layout, subtype=subtype)
    return path.read_bytes()


def read(path, content: bytes) -> tuple[np.ndarray, str]:
    notes: list[str] = []
    path.write_bytes(content)
    return read_audio(path, 8000 if path.suffix == ".wve" else RATE, on_note=notes.append), " | ".join(notes)


def refusal(path, content: bytes) -> str:
    with pytest.raises(AudioError) as caught:
        read(path, content)
    message = str(caught.value)
    assert message.startswith(f"{path} ") and "\n" not in message
    return message


def stating(content: bytes, row, size: int) -> bytes:
    """The file with another size in its header."""
    _, _, _, magic, offset, width, order = row
    position = content.index(magic) + offset
    return content[:position] + size.to_bytes(width, order) + content[position + width :]


@pytest.mark.parametrize("row", SIZED, ids=lambda row: f"{row[1]}-{row[2]}")
@pytest.mark.parametrize("channels", [1, 2])
def test_whole_cut_and_lengthened(tmp_path, capfd, row, channels):
    name, layout, subtype, *_ = row
    if channels == 2 and layout in ("SVX", "SDS", "WVE"):
        pytest.skip("one channel alone")
    path, tolerance = tmp_path / name, 0 if subtype != "ALAW" else 1e-2
    content = write(path, layout, subtype, channels)
    decoded, notes = read(path, content)
    np.testing.assert_allclose(decoded, samples(channels).mean(axis=1), atol=tolerance + 1e-7)
    assert not notes
    for fraction in (0.5, 0.9, 0.995):
        assert "is truncated" in refusal(path, content[: int(len(content) * fraction)])
    decoded, notes = read(path, content + bytes(100))  # padding
    assert len(decoded) == RATE and not notes
    more = b"\1" * 400
    try:
        decoded, notes = read(path, content + more)
    except AudioError:
        return
    assert notes and len(decoded) >= RATE


@pytest.mark.parametrize("row", STATING, ids=lambda row: f"{row[1]}-{row[2]}")
@pytest.mark.parametrize("stated", ["0", "unknown", "smaller"])
def test_a_size_that_lies_or_says_nothing(tmp_path, row, stated):
    """Sizes as stopped recorders leave them, as programs write them into pipes, or too small."""
    name, layout, subtype, _, _, width, order = row
    path = tmp_path / name
    content = write(path, layout, subtype, 2 if layout != "SVX" else 1)
    top = (1 << 8 * width) - 1
    sizes = {"0": [0], "unknown": [top, top >> 1, top - 36, (top >> 1) - 36], "smaller": [10_000]}[stated]
    for size in sizes:
        decoded, notes = read(path, stating(content, row, size))
        np.testing.assert_allclose(decoded, samples(2 if layout != "SVX" else 1).mean(axis=1), atol=1e-7)
        assert bool(notes) == (stated == "smaller")


def test_a_few_bytes_too_few_are_reported(tmp_path):
    content = write(tmp_path / "a.wav", "WAV", "PCM_16")
    decoded, notes = read(tmp_path / "a.wav", content[:-6])
    np.testing.assert_allclose(decoded, samples()[:-3, 0], atol=1e-7)
    assert "is 6 bytes shorter than its header states" in notes


def test_chunks_behind_the_samples_are_no_samples(tmp_path):
    """Complete, with and without the padding byte of odd chunks, and truncated."""
    path = tmp_path / "a.wav"
    content = write(path, "WAV", "PCM_U8")[:-2]
    odd = stating(content, SIZED[0], RATE - 1)[:-1] if len(content) % 2 == 0 else content
    words = b"LIST" + (400).to_bytes(4, "little") + b"INFO" + bytes(range(1, 199)) * 2
    for padding, tail in ((b"\0", words), (b"", words), (b"\0", words[:100])):
        size = len(odd) - odd.index(b"data") - 8
        decoded, notes = read(path, stating(odd, SIZED[0], size) + (padding if size % 2 else b"") + tail)
        assert len(decoded) == size and not notes


def test_a_file_without_samples_and_with_other_chunks(tmp_path):
    content = write(tmp_path / "a.wav", "WAV", "PCM_16")
    empty = stating(content, SIZED[0], 0)[: content.index(b"data") + 8]
    words = b"LIST" + (40).to_bytes(4, "little") + b"INFO" + bytes(range(65, 101))
    assert "no samples" in refusal(tmp_path / "a.wav", empty + words)


def test_chunks_before_and_tags_around(tmp_path):
    path = tmp_path / "a.wav"
    content = write(path, "WAV", "PCM_16")
    position = content.index(b"data")
    tag = b"ID3\4\0\0" + bytes([0, 0, 1, 0]) + bytes(128)
    last = b"TAG" + bytes(125)
    decoded, notes = read(path, tag + content[:position] + b"JUNK\4\0\0\0four" + content[position:] + last)
    np.testing.assert_allclose(decoded, samples()[:, 0], atol=1e-7)
    assert not notes
    lying = b"ID3\4\0\0" + bytes([127] * 4)
    assert "is truncated: its ID3 tag takes" in refusal(path, lying + content)
    assert "only tags" in refusal(path, tag)


def test_joined_files_are_refused(tmp_path):
    for row in (row for row in STATING if row[1] in ("WAV", "AIFF")):
        content = write(tmp_path / row[0], row[1], row[2])
        assert "contains several consecutive sounds" in refusal(tmp_path / row[0], content * 3)


def test_samples_that_begin_late(tmp_path):
    content = write(tmp_path / "a.au", "AU", "PCM_16")
    decoded, notes = read(tmp_path / "a.au", content[:4] + (10_024).to_bytes(4, "big") + b"\xff" * 4 + content[12:])
    np.testing.assert_allclose(decoded, samples()[5000:, 0], atol=1e-7)
    assert "begin at byte 10,024" in notes
    assert "beyond the end of the file" in refusal(tmp_path / "a.au", content[:4] + b"\x7f" * 4 + content[8:])


def test_two_chunks_of_samples(tmp_path):
    content = write(tmp_path / "a.wav", "WAV", "PCM_16")
    second = b"data" + (2000).to_bytes(4, "little") + bytes(2000)
    assert "contains several consecutive sounds" in refusal(tmp_path / "a.wav", content + second)


@pytest.mark.parametrize("row", [row for row in SIZED if row[1] in ("WAV", "WAVEX", "W64", "RF64")], ids=lambda r: r[2])
def test_what_the_header_says_twice(tmp_path, row):
    """The sample rate and byte rate, the channels and the frame size."""
    path = tmp_path / row[0]
    content = write(path, row[1], row[2], 2)
    position = content.index(b"fmt ") + (24 if row[1] == "W64" else 8)
    rate = content[: position + 4] + (12_000).to_bytes(4, "little") + content[position + 8 :]
    assert "has an inconsistent header" in read(path, rate)[1]
    try:
        assert (
            "has an inconsistent header: 1 channels"
            in read(path, content[: position + 2] + b"\1" + content[position + 3 :])[1]
        )
    except AudioError:
        pass  # libsndfile refuses it


def test_adpcm(tmp_path):
    for subtype in ("IMA_ADPCM", "MS_ADPCM"):
        content = write(tmp_path / "a.wav", "WAV", subtype)
        decoded, notes = read(tmp_path / "a.wav", content)
        assert RATE <= len(decoded) < RATE + 2100 and not notes  # whole blocks
        assert "is truncated" in refusal(tmp_path / "a.wav", content[:-1000])


@pytest.mark.parametrize(("rate", "channels"), [(1, 1), (2_000_000_000, 1), (RATE, 0), (RATE, 65_535)])
def test_rates_and_channels_out_of_reason(tmp_path, rate, channels):
    content = bytearray(write(tmp_path / "a.wav", "WAV", "PCM_16"))
    content[22:28] = channels.to_bytes(2, "little") + rate.to_bytes(4, "little")
    assert ("Hz: expected 1,000 to" in refusal(tmp_path / "a.wav", bytes(content))) == (rate != RATE)


def test_rows_without_end_are_refused(tmp_path):
    """Many empty chunks, blocks and tags, which would take a reader's time."""
    content = write(tmp_path / "a.wav", "WAV", "PCM_16")
    position = content.index(b"data")
    many = content[:position] + b"JUNK\0\0\0\0" * 20_000 + content[position:]
    assert "more than 10,000 chunks" in refusal(tmp_path / "a.wav", many)
    refusal(tmp_path / "a.voc", b"Creative Voice File\x1a\x1a\x00\x14\x01\x1f\x11" + b"\5\0\0\0" * 100_000)
    refusal(tmp_path / "a.mp3", (b"ID3\4\0\0" + bytes(4)) * 100_000)


def test_alac_without_its_packet_table(tmp_path):
    path = tmp_path / "a.caf"
    content = write(path, "CAF", "ALAC_16")
    decoded, notes = read(path, content)
    np.testing.assert_allclose(decoded, samples()[:, 0], atol=1e-7)
    refusal(path, content.replace(b"pakt", b"free"))
    for size in (int(len(content) * 0.5), int(len(content) * 0.9)):
        assert "is truncated" in refusal(path, content[:size])


def test_flac_of_unknown_and_of_wrong_length(tmp_path):
    """total_samples is the low 36 bits of bytes 21 to 26."""
    path = tmp_path / "a.flac"
    content = write(path, "FLAC", "PCM_16", 2)

    def stating(stated: int) -> bytes:
        head = (int.from_bytes(content[21:26], "big") >> 36 << 36 | stated).to_bytes(5, "big")
        return content[:21] + head + content[26:]

    for stated in (0, 100, RATE - 1):
        decoded, notes = read(path, stating(stated))
        np.testing.assert_allclose(decoded, samples(2).mean(axis=1), atol=1e-7)
        assert not notes
    for stated in (RATE + 1, 10**9):
        assert f"24,000 of {stated:,} frames could be decoded" in refusal(path, stating(stated))


def test_flac_cut_damaged_and_lengthened(tmp_path):
    path = tmp_path / "a.flac"
    content = write(path, "FLAC", "PCM_24")
    for size in (42, 100, len(content) // 2, len(content) - 100, len(content) - 1):
        refusal(path, content[:size])
    for position in range(100, len(content), 997):
        refusal(path, content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
    refusal(path, content + content)
    decoded, notes = read(path, content + b"TAG" + bytes(125))
    assert len(decoded) == RATE and not notes
