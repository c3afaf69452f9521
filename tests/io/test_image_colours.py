"""Bit depths, inverted scales, transparency and odd palettes: pixels by the formats' own arithmetic."""

import struct

import numpy as np
import PIL
import pytest
from PIL import Image

from c2c_jax.errors import ImageError
from c2c_jax.io.images import read_image
from tests.fixtures.image_files import bmp, png, tiff

WHITE = (255, 255, 255)


@pytest.fixture
def pixels(tmp_path):
    """Reads a file of these bytes as rows of (r, g, b)."""

    def read(content):
        (tmp_path / "a").write_bytes(content)
        return [[tuple(map(int, pixel)) for pixel in row] for row in np.asarray(read_image(tmp_path / "a"))]

    return read


def grey(*values):
    return [[(value, value, value) for value in values]]


def test_12_bit_grey_tiff_is_scaled_from_4095(pixels):
    packed = bytes([0xFF, 0xF8, 0x00, 0x00, 0x10, 0x08])  # 4095, 2048, 1, 8
    assert pixels(tiff("<", (4, 1), [12], 1, packed)) == grey(255, round(2048 * 255 / 4095), 0, round(8 * 255 / 4095))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_tiff_of_few_bits_both_ways_up(pixels, order, bits):
    maximum = 2**bits - 1
    packed = {1: bytes([0b01000000]), 2: bytes([0b00011110]), 4: bytes([0x01, 0x2F]), 8: bytes([0, 1, 2, 255])}[bits]
    values = {1: (0, 1, 0, 0), 2: (0, 1, 3, 2), 4: (0, 1, 2, 15), 8: (0, 1, 2, 255)}[bits]
    expected = [value * 255 // maximum for value in values]
    assert pixels(tiff(order, (4, 1), [bits], 1, packed)) == grey(*expected)
    assert pixels(tiff(order, (4, 1), [bits], 0, packed)) == grey(*(255 - value for value in expected))


def test_16_bit_grey_tiff_in_which_0_is_white(pixels):
    assert pixels(tiff("<", (3, 1), [16], 0, struct.pack("<3H", 0, 257, 65_535))) == grey(255, 254, 0)


@pytest.mark.parametrize("order", "<>")
def test_16_bit_rgb_tiff_keeps_its_upper_bytes(pixels, order):
    data = struct.pack(order + "6H", 0x1234, 0x5678, 0x9ABC, 0xFFFF, 0, 0x8080)
    assert pixels(tiff(order, (2, 1), [16] * 3, 2, data)) == [[(0x12, 0x56, 0x9A), (255, 0, 0x80)]]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (tiff("<", (1, 1), [16] * 3, 2, bytes(6), t284=2, t273=(8, 10, 12), t279=(2, 2, 2)), "separate planes"),
        (tiff("<", (1, 1), [8], 1, b"\xff", t339=2), "signed samples"),
        (tiff("<", (1, 1), [16], 1, b"\xff\xff", t339=2), "unsupported kind (I)"),
        (tiff("<", (1, 1), [32], 1, bytes(4), t339=3), "unsupported kind (F)"),
        (tiff("<", (2, 2), [8] * 3, 6, bytes(12)), "with subsampled colours"),
        (tiff("<", (1, 1), [8], 1, b"\xff", t254=1), "a thumbnail as its first image"),
    ],
)
def test_samples_that_pillow_reads_wrongly_are_refused_by_name(tmp_path, content, named):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.tif")
    assert named in str(caught.value) and "save it as 8-bit RGB PNG" in str(caught.value)


@pytest.mark.parametrize(
    ("depth", "row", "key", "expected"),
    [
        (1, 0b01000000, 1, (0, 255)),
        (1, 0b01000000, 0, (255, 255)),
        (2, 0b01100000, 1, (255, 170)),
        (2, 0b01100000, 2, (85, 255)),
        (4, 0x5F, 5, (255, 255)),
        (4, 0x54, 5, (255, 0x44)),
        (8, 0x0507, 5, (255, 7)),
    ],
)
def test_the_transparent_grey_of_a_png_is_white_at_every_depth(pixels, depth, row, key, expected):
    rows = [row.to_bytes(2, "big") if depth == 8 else bytes([row])]
    assert pixels(png(2, 1, depth, 0, rows, (b"tRNS", struct.pack(">H", key)))) == grey(*expected)


def test_the_transparent_colour_of_a_16_bit_png_is_compared_in_its_upper_bytes(pixels):
    row = struct.pack(">9H", 0x1234, 0x5678, 0x9ABC, 0x1334, 0x5678, 0x9ABC, 0x0012, 0x0034, 0x0056)
    key = struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)
    assert pixels(png(3, 1, 16, 2, [row], (b"tRNS", key))) == [[WHITE, (0x13, 0x56, 0x9A), (0, 0, 0)]]


def test_16_bit_png_with_alpha_lies_over_white(pixels):
    assert pixels(png(2, 1, 16, 4, [struct.pack(">4H", 0, 65_535, 0, 0)])) == [[(0, 0, 0), WHITE]]
    assert pixels(png(1, 1, 16, 6, [struct.pack(">4H", 65_535, 0, 0, 0x3333)])) == [[(255, 204, 204)]]


MASKS = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)


def test_a_32_bit_bmp_whose_alpha_is_all_0_is_opaque(pixels):
    assert pixels(bmp((2, 1), 32, bytes([1, 2, 3, 0, 4, 5, 6, 0]), masks=MASKS)) == [[(3, 2, 1), (6, 5, 4)]]
    assert pixels(bmp((2, 1), 32, bytes([1, 2, 3, 0, 4, 5, 6, 255]), masks=MASKS)) == [[WHITE, (6, 5, 4)]]
    assert pixels(bmp((1, 1), 32, bytes([1, 2, 3, 0]))) == [[(3, 2, 1)]]  # version 3: the fourth byte is not used
    assert pixels(bmp((1, 1), 32, bytes([1, 2, 3, 0]))[14:]) == [[(3, 2, 1)]]  # a DIB


def test_a_tiff_that_does_not_say_that_its_fourth_channel_is_alpha(pixels):
    assert pixels(tiff("<", (1, 1), [8] * 4, 2, bytes([1, 2, 3, 0]))) == [[(1, 2, 3)]]
    assert pixels(tiff("<", (1, 1), [8] * 4, 2, bytes([1, 2, 3, 0]), t338=2)) == [[WHITE]]
    assert pixels(tiff("<", (1, 1), [8] * 4, 2, bytes([51, 0, 0, 51]), t338=1)) == [[(255, 204, 204)]]  # premultiplied


def test_ycbcr_tiff_whose_colours_are_stored_whole(pixels):
    content = tiff("<", (1, 1), [8] * 3, 6, bytes([77, 128, 128]), t530=(1, 1))
    if int(PIL.__version__.partition(".")[0]) < 13:
        with pytest.raises(ImageError, match="YCbCr pixels, which Pillow decodes from version 13 on"):
            pixels(content)
    else:
        assert pixels(content) == grey(77)


BLACK_WHITE = [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize(
    ("bits", "row", "palette", "expected"),
    [
        (1, bytes([0b01100000, 0, 0, 0]), BLACK_WHITE, (0, 255, 255, 0)),
        (8, bytes([0, 1, 2, 255]), [(n, n, n) for n in range(256)], (0, 1, 2, 255)),
        (8, bytes([0, 1, 2, 0]), [(9, 9, 9), (8, 8, 8), (7, 7, 7)], (9, 8, 7, 9)),
    ],
)
def test_bmp_with_palettes_of_few_greys(pixels, bits, row, palette, expected):
    upper = bytes(4)
    black = [palette[0]] * 4
    assert pixels(bmp((4, 2), bits, row + upper, palette)) == [black, *grey(*expected)]  # rows from below


@pytest.mark.parametrize(("bits", "palette"), [(8, BLACK_WHITE), (4, BLACK_WHITE), (4, [(n, n, n) for n in range(16)])])
def test_bmp_that_pillow_takes_for_one_of_another_number_of_bits(tmp_path, bits, palette):
    (tmp_path / "a.bmp").write_bytes(bmp((4, 2), bits, bytes(8), palette))
    with pytest.raises(ImageError, match=f"a palette of greys for {bits} bits a pixel"):
        read_image(tmp_path / "a.bmp")


def test_cmyk_jpeg_as_adobe_writes_it_is_inverted_once(tmp_path):
    """Pillow writes CMYK like Adobe: 255 means no ink, with Adobe's marker."""
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()
    np.testing.assert_allclose(np.asarray(read_image(tmp_path / "a.jpg")), [[(255, 0, 0)] * 16] * 16, atol=3)
