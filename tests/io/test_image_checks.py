"""Damaged images are refused wherever their format has a check."""

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from c2c_jax.errors import ImageError
from c2c_jax.io.images import read_image
from tests.fixtures.image_files import bmp, chunk, png, tiff


@pytest.fixture
def refusal(tmp_path):
    """Returns the error message for a file of these bytes."""

    def read(content):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / "a")
        assert "\n" not in str(caught.value) and str(tmp_path / "a") in str(caught.value)
        return str(caught.value)

    return read


def random_image(seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((48, 36))
    return Image.fromarray((np.asarray(coarse) // 8 * 8 + rng.integers(0, 8, (36, 48, 3))).astype(np.uint8))


def saved(kind, image=None, **options):
    file = io.BytesIO()
    (image or random_image()).save(file, kind, **options)
    return file.getvalue()


def cut(whole: bytes, rng: random.Random) -> bytes:
    return whole[: rng.randrange(len(whole))]


def flipped(whole: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(whole))
    return whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]


def with_more(whole: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(whole))
    return whole[:at] + rng.randbytes(rng.randrange(4, 64)) + whole[at:]


def with_less(whole: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(whole))
    return whole[:at] + whole[at + rng.randrange(1, 64) :]


# The damage that each format can find.
ALL, LENGTHS, CUTS = (cut, flipped, with_more, with_less), (cut, with_less, with_more), (cut, with_less)
FORMATS: dict[str, tuple[bytes, tuple[Callable[[bytes, random.Random], bytes], ...]]] = {
    "PNG": (saved("PNG"), ALL),
    "PNG with alpha": (saved("PNG", random_image().convert("RGBA")), ALL),
    "PNG with a palette": (saved("PNG", random_image().quantize(50)), ALL),
    "APNG": (saved("PNG", save_all=True, append_images=[random_image(1)]), ALL),
    "deflated TIFF": (saved("TIFF", compression="tiff_adobe_deflate"), CUTS),
    "TIFF": (saved("TIFF"), CUTS),
    "LZW TIFF": (saved("TIFF", compression="tiff_lzw"), CUTS),
    "GIF": (saved("GIF"), CUTS),
    "BMP": (saved("BMP"), CUTS),
    "PPM": (saved("PPM"), CUTS),
    "WebP": (saved("WEBP"), CUTS),
    "AVIF": (saved("AVIF"), CUTS),
    "JPEG 2000": (saved("JPEG2000"), LENGTHS),
    "JPEG": (saved("JPEG", quality=95), (cut,)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_refused_or_changes_no_pixel(tmp_path, name):
    whole, kinds = FORMATS[name]
    path, rng, refused = tmp_path / "a", random.Random(0), 0
    path.write_bytes(whole)
    expected = np.asarray(read_image(path))
    for _ in range(40):
        for damage in kinds:
            path.write_bytes(damaged := damage(whole, rng))
            try:
                decoded = np.asarray(read_image(path))
            except ImageError:
                refused += 1
                continue
            np.testing.assert_array_equal(decoded, expected, err_msg=f"{damage.__name__}: {len(damaged)} bytes")
    assert refused > 30 * len(kinds)


def test_a_wrong_checksum_of_a_deflated_strip(refusal):
    strip = bytearray(zlib.compress(bytes(64), 0))
    strip[20] ^= 1
    assert "incorrect data check" in refusal(tiff("<", (8, 8), [8], 1, bytes(strip), t259=8))


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        (dict(t278=2), "lacks strips or tiles"),
        (dict(t322=4, t323=4, t324=(8, 24, 40), t325=(16, 16, 16)), "lacks strips or tiles"),
        (dict(t278=0), "lacks strips or tiles"),
        (dict(t259=8, t273=(8, 8), t279=(200, 200), t278=4), "the file ends early"),
    ],
)
def test_strips_that_do_not_make_the_picture(refusal, tags, named):
    assert named in refusal(tiff("<", (8, 8), [8], 1, bytes(64), **tags))


def test_a_plane_that_is_not_there(refusal):
    content = tiff("<", (2, 1), [8] * 3, 2, bytes(6), t284=2, t273=(8, 10), t279=(2, 2))
    assert "lacks strips or tiles" in refusal(content)


def test_files_that_unfold_are_refused_before_they_do(refusal):
    """Small files whose stated content would take gigabytes or minutes."""
    row = [b"\1\2\3"]
    bomb = zlib.compress(bytes(2**24), 9)
    for kind in (b"iCCP", b"zTXt"):
        assert "too large" in refusal(png(1, 1, 8, 2, row, (kind, b"x\0\0" + bomb)))
    strip = tiff("<", (8, 8), [8], 1, bomb, t259=8)
    assert "do not have the size that its header states" in refusal(strip)
    assert "more than the 17,500,000" in refusal(b"P6\n10000 10000\n254\n")
    tile = tiff("<", (8, 8), [8], 1, bytes(64), t259=5, t322=100_000, t323=100_000, t324=8, t325=64)
    assert "shrink it" in refusal(tile)
    large = Image.new("L", (5200, 5000))
    assert "more than the 24,705,882" in refusal(saved("WEBP", large, lossless=True, method=0, quality=0))


def test_a_jpeg_of_too_many_scans(refusal):
    whole = saved("JPEG", Image.new("L", (64, 64)), progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    assert "more than 64 scans" in refusal(whole[:-2] + scan * 65 + b"\xff\xd9")


def test_animations_of_many_frames_are_read_by_their_first(tmp_path):
    frames = [Image.new("RGB", (8, 8), (index % 256, index // 256, 0)) for index in range(1000)]
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        (tmp_path / kind).write_bytes(saved(kind, frames[0], save_all=True, append_images=frames[1:], **options))
        assert read_image(tmp_path / kind).getcolors() == [(64, (0, 0, 0))]


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "PPM", "WEBP", "AVIF", "JPEG2000"])
@pytest.mark.parametrize(
    "more", [b"a dozen more", bytes(8), bytes(range(255, 155, -1))], ids=["text", "zeros", "bytes"]
)
def test_bytes_behind_the_end_change_nothing(refusal, tmp_path, kind, more):
    """Extra bytes do not change the pixels; a truncated file with extra bytes is refused."""
    whole, path = saved(kind), tmp_path / "b"
    path.write_bytes(whole)
    expected = np.asarray(read_image(path))
    path.write_bytes(whole + more)
    np.testing.assert_array_equal(np.asarray(read_image(path)), expected)
    refusal(whole[: len(whole) // 2])


def test_a_gif_without_its_trailer_is_read(refusal, tmp_path):
    whole = saved("GIF")
    (tmp_path / "b").write_bytes(whole[:-1])
    np.testing.assert_array_equal(read_image(tmp_path / "b"), Image.open(io.BytesIO(whole)).convert("RGB"))
    refusal(whole[:-2])  # nor the end of its last block
    refusal(whole[:13] + whole[13 : 13 + 3 * 2 ** (whole[10] % 8 + 1)])  # no image at all


def test_sizes_in_headers(tmp_path):
    """Some writers omit the size of a BMP, or store several images in a file."""
    content = bmp((1, 1), 24, bytes(4))
    (tmp_path / "b").write_bytes(content[:2] + bytes(4) + content[6:] + bytes(8))
    assert read_image(tmp_path / "b").size == (1, 1)
    (tmp_path / "b").write_bytes(saved("PPM") * 2)
    assert read_image(tmp_path / "b").size == (48, 36)


@pytest.mark.parametrize("is_interlaced", [False, True])
def test_a_png_with_rows_missing(refusal, tmp_path, is_interlaced):
    """A whole zlib stream with its checksum, of fewer rows than the header says; interlaced as in the specification's
    section 8.2."""
    pixels = np.asarray(random_image())[:35, :45]
    steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = [pixels[y::dy, x::dx] for y, x, dy, dx in steps] if is_interlaced else [pixels]
    rows = [b"\0" + row.tobytes() for part in passes for row in part]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 45, 35, 8, 2, 0, 0, is_interlaced))

    def content(rows):
        return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")

    (tmp_path / "whole.png").write_bytes(content(rows))
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "whole.png")), pixels)
    assert "fewer pixels than its header says" in refusal(content(rows[:-1]))
