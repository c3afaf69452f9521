import os
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from c2c_jax.errors import ImageError
from c2c_jax.io.formats import IMAGES, SUFFIXES
from c2c_jax.io.images import MAX_ASPECT, MAX_PIXELS, find_images, read_image
from tests.fixtures.image_files import png

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def pixels(path):
    """Reads an image as rows of (r, g, b)."""
    image = read_image(path)
    assert image.mode == "RGB"
    return [[tuple(int(c) for c in pixel) for pixel in row] for row in np.asarray(image)]


def refusal(path):
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def test_rgb_is_read_as_it_is_from_a_path_or_its_string(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[RED, GREEN], [BLUE, (1, 2, 3)]], np.uint8)).save(path)
    assert pixels(path) == pixels(str(path)) == [[RED, GREEN], [BLUE, (1, 2, 3)]]


@pytest.mark.parametrize(
    "cmyk, rgb", [((0, 255, 255, 0), RED), ((255, 0, 255, 0), GREEN), ((0, 0, 0, 255), BLACK), ((0, 0, 0, 0), WHITE)]
)
def test_cmyk_jpeg_has_the_colours_of_its_inks(tmp_path, cmyk, rgb):
    path = tmp_path / "a.jpg"
    Image.new("CMYK", (16, 16), cmyk).save(path, quality=100)
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
    np.testing.assert_allclose(pixels(path)[8][8], rgb, atol=2)


RAMP_16 = [0, 128, 129, 257, 32896, 65406, 65407, 65535]
RAMP_8 = [0, 0, 1, 1, 128, 254, 255, 255]  # v / 257 rounded, by hand: 128 / 257 = 0.498, 129 / 257 = 0.502


def test_16_bit_grey_png_is_scaled_and_not_clipped(file):
    path = file("a.png", png(8, 1, 16, 0, [struct.pack(">8H", *RAMP_16)]))
    assert pixels(path) == [[(v, v, v) for v in RAMP_8]]


def test_16_bit_grey_png_shows_its_transparent_value_white(file):
    key = (b"tRNS", struct.pack(">H", 257))
    path = file("a.png", png(3, 1, 16, 0, [struct.pack(">3H", 0, 257, 514)], key))
    assert pixels(path) == [[BLACK, WHITE, (2, 2, 2)]]


@pytest.mark.parametrize("order, magic", [("<", b"II*\0"), (">", b"MM\0*")])
def test_16_bit_grey_tiff_is_scaled_in_both_byte_orders(file, order, magic):
    tags = [(256, 8), (257, 1), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 16)]
    entries = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    directory = struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", 0)
    data = struct.pack(order + "8H", *RAMP_16)
    path = file("a.tif", magic + struct.pack(order + "I", 8 + len(data)) + data + directory)
    assert pixels(path) == [[(v, v, v) for v in RAMP_8]]


@pytest.mark.parametrize("maximum, values", [(65535, RAMP_16), (4095, [0, 4095])])
def test_16_bit_pgm_is_scaled_by_its_own_maximum(file, maximum, values):
    path = file("a.pgm", b"P5\n%d 1\n%d\n" % (len(values), maximum) + struct.pack(f">{len(values)}H", *values))
    grey = RAMP_8 if maximum == 65535 else [0, 255]
    assert pixels(path) == [[(v, v, v) for v in grey]]


def test_16_bit_rgb_png_keeps_its_colours(file):
    path = file("a.png", png(2, 1, 16, 2, [struct.pack(">6H", 65535, 0, 0, 0, 0x8080, 0xFFFF)]))
    assert pixels(path) == [[RED, (0, 128, 255)]]


def test_rgba_lies_over_white(file):
    row = bytes([255, 0, 0, 255, 0, 0, 255, 0, 0, 0, 0, 51])
    # the last is black at one fifth: 255 * (1 - 51 / 255) = 204
    assert pixels(file("a.png", png(3, 1, 8, 6, [row]))) == [[RED, WHITE, (204, 204, 204)]]


def test_grey_with_alpha_lies_over_white(file):
    assert pixels(file("a.png", png(3, 1, 8, 4, [bytes([7, 255, 7, 0, 0, 51])]))) == [
        [(7, 7, 7), WHITE, (204, 204, 204)]
    ]


@pytest.mark.parametrize(
    "alphas, expected",
    [(b"\xff\x00", [RED, WHITE, BLUE]), (b"\x00", [WHITE, GREEN, BLUE]), (b"\xff\x33", [RED, (204, 255, 204), BLUE])],
)
def test_transparent_palette_entries_show_white(file, alphas, expected):
    palette = (b"PLTE", bytes(RED + GREEN + BLUE))
    path = file("a.png", png(3, 1, 8, 3, [bytes([0, 1, 2])], palette, (b"tRNS", alphas)))
    assert pixels(path) == [expected]


def test_palette_without_transparency_shows_its_colours(file):
    path = file("a.png", png(3, 1, 8, 3, [bytes([2, 0, 1])], (b"PLTE", bytes(RED + GREEN + BLUE))))
    assert pixels(path) == [[BLUE, RED, GREEN]]


def test_one_colour_key_shows_white(file):
    key = (b"tRNS", struct.pack(">3H", *GREEN))
    assert pixels(file("a.png", png(2, 1, 8, 2, [bytes(RED + GREEN)], key))) == [[RED, WHITE]]


def test_1_bit(file):
    assert pixels(file("a.png", png(4, 1, 1, 0, [bytes([0b01100000])]))) == [[BLACK, WHITE, WHITE, BLACK]]


def test_animated_gif_gives_its_first_frame(tmp_path):
    path = tmp_path / "a.gif"
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with Image.open(path) as stored:
        assert stored.n_frames == 3
    assert pixels(path) == [[RED] * 4] * 4


# The stored image is 3 wide and 2 high, with a red upper left and a blue upper right corner. Where they belong when
# upright, (row, column), from the EXIF standard's wording of what the stored row 0 and column 0 are.
CORNERS = {
    1: ((2, 3), (0, 0), (0, 2)),  # top, left
    2: ((2, 3), (0, 2), (0, 0)),  # top, right
    3: ((2, 3), (1, 2), (1, 0)),  # bottom, right
    4: ((2, 3), (1, 0), (1, 2)),  # bottom, left
    5: ((3, 2), (0, 0), (2, 0)),  # left, top
    6: ((3, 2), (0, 1), (2, 1)),  # right, top
    7: ((3, 2), (2, 1), (0, 1)),  # right, bottom
    8: ((3, 2), (2, 0), (0, 0)),  # left, bottom
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", CORNERS)
def test_exif_orientation_is_turned_upright(tmp_path, orientation, suffix):
    image = Image.new("RGB", (3, 2), WHITE)
    image.putpixel((0, 0), RED)
    image.putpixel((2, 0), BLUE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    image.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    shape, red, blue = CORNERS[orientation]
    rows = pixels(path)
    assert (len(rows), len(rows[0])) == shape
    assert rows[red[0]][red[1]] == RED
    assert rows[blue[0]][blue[1]] == BLUE


def test_exif_rotated_jpeg_photo(tmp_path):
    image = Image.new("RGB", (48, 32), WHITE)
    image.paste(RED, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif, quality=100)
    rows = pixels(tmp_path / "a.jpg")
    assert (len(rows), len(rows[0])) == (48, 32)
    np.testing.assert_allclose(rows[2][29], RED, atol=3)
    np.testing.assert_allclose(rows[2][2], WHITE, atol=3)


def test_exif_rotated_16_bit_grey(file):
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    path = file("a.png", png(2, 1, 16, 0, [struct.pack(">2H", 257, 514)], (b"eXIf", tiff)))
    assert pixels(path) == [[(1, 1, 1)], [(2, 2, 2)]]


def test_a_block_that_is_no_exif_leaves_the_picture_as_stored(file):
    assert pixels(file("a.png", png(1, 1, 8, 0, [b"\x05"], (b"eXIf", b"garbage")))) == [[(5, 5, 5)]]


def test_a_long_picture_is_read_up_to_the_limit_of_its_shape(file):
    path = file("long.png", png(30_000, 150, 1, 0, [bytes(3750)] * 150))
    assert read_image(path).size == (30_000, 150)


@pytest.mark.parametrize("width, height", [(30_000, 149), (149, 30_000), (30_000, 1)])
def test_a_picture_too_long_for_its_width_is_refused(file, width, height):
    path = file("strip.png", png(width, height, 1, 0, [bytes((width + 7) // 8)] * height))
    message = refusal(path)
    assert f"{width} x {height}" in message and str(MAX_ASPECT) in message


# 12,000 x 12,000 is beyond our limit, 30,000 x 30,000 beyond where PIL raises. No file holds pixels: only an image
# refused before decoding is not called damaged.
@pytest.mark.parametrize("width, height", [(12_000, 12_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_too_large_is_refused_before_it_is_decoded(file, width, height):
    message = refusal(file("huge.png", png(width, height, 8, 2, [])))
    assert f"{MAX_PIXELS:,}" in message and "damaged" not in message


def test_a_picture_beyond_pils_warning_and_within_the_limit_is_read_without_one(file):
    path = file("large.png", png(10_000, 9_000, 1, 0, [bytes(1250)] * 9_000))
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_image(path).size == (2500, 2250)  # averaged down by 4
    assert caught == []
    assert Image.MAX_IMAGE_PIXELS == limit


def test_missing_folder_and_empty_are_told_apart(tmp_path, file):
    assert "no file" in refusal(tmp_path / "none.png")
    assert "folder" in refusal(tmp_path)
    assert "empty" in refusal(file("empty.png", b""))


def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tif", "ppm", "jp2", "avif"])
def test_whole_files_of_every_format_are_read_and_cut_ones_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    noise().save(path)
    assert read_image(path).size == (64, 64)
    whole = path.read_bytes()
    for part in (len(whole) // 2, 20, 3):
        path.write_bytes(whole[:part])
        assert "damaged" in refusal(path)


def test_damaged_pixel_data_is_refused(tmp_path):
    path = tmp_path / "a.png"
    noise().save(path)
    data = bytearray(path.read_bytes())
    data[200:240] = bytes(40)
    path.write_bytes(data)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='4' height='4'/>"),
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n%%EOF\n"),
        ("a.png", b"not an image at all\n"),
        ("a.jpg", b"RIFF\0\0\0\0WAVEfmt "),
    ],
)
def test_other_formats_are_refused_with_what_to_do(file, name, content):
    assert "save it as PNG or JPEG" in refusal(file(name, content))


@pytest.mark.parametrize("mode", ["LAB", "F", "I"])
def test_pixels_that_pil_would_convert_wrongly_are_refused(tmp_path, mode):
    path = tmp_path / "a.tif"
    Image.new(mode, (2, 2)).save(path)
    assert f"({mode})" in refusal(path)


def test_a_name_that_is_not_utf_8_and_one_of_249_letters(tmp_path):
    noise().save(tmp_path / "a.png")
    for name in (b"caf\xe9.png", b"n" * 245 + b".png"):
        path = tmp_path / os.fsdecode(name)
        path.write_bytes((tmp_path / "a.png").read_bytes())
        assert find_images([str(path)]) == [path]
        assert read_image(path).size == (64, 64)


@pytest.mark.parametrize("name", ["a\0b.png", "n" * 300 + ".png"])
def test_names_that_no_file_can_have(tmp_path, name):
    assert find_images([str(tmp_path / name)]) == [tmp_path / name]
    with pytest.raises(ImageError):
        read_image(tmp_path / name)


def test_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    assert "found a named pipe" in refusal(tmp_path / "pipe.png")
    assert "found a device" in refusal(tmp_path / "zero.png")
    with pytest.raises(ImageError, match="contains no image"):
        find_images([str(tmp_path)])


def test_a_folder_gives_all_that_is_read_and_says_once_what_is_passed_over(tmp_path, caplog):
    """Subfolders and links are searched, in order; hidden files and our spectrograms are not reported."""
    inside, outside = tmp_path / "photos", tmp_path / "real"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    names = "a.png b.JPG c.jfif d.jpe e.j2k f.dib g.apng h.tiff i.webp j.avif k.mpo deep/l.pbm".split()
    for name in names:
        (inside / name).touch()
    for name in (".hidden.png", "x.mel.png"):
        (inside / name).touch()
    os.mkfifo(inside / "pipe.png")
    for name in ("p.heic", "deep/q.HEIC", "raw.dng", "notes.txt"):
        (inside / name).write_bytes(b"II*\0")  # by content all TIFF
    (outside / "m.gif").touch()
    (outside / "no_suffix").write_bytes(b"\x89PNG\r\n\x1a\n")
    (inside / "linked").symlink_to(outside)
    (inside / "linked" / "loop").symlink_to(inside)
    paths = find_images([str(inside), str(inside / "*.png"), str(inside)])
    expected = sorted([*names, "linked/m.gif", "linked/no_suffix", "p.heic", "deep/q.HEIC", "notes.txt"])
    assert [str(path.relative_to(inside)) for path in paths] == sorted(expected, key=lambda name: inside / name)
    assert caplog.messages == ["2 files skipped, not images of a supported format: 1 named pipe, 1 .dng"]
    (inside / "r.heic").write_bytes(bytes(4) + b"ftypheic")
    find_images([str(inside)])
    assert caplog.messages[1:] == ["3 files skipped, not images of a supported format: 1 .heic, 1 named pipe, 1 .dng"]
    find_images([str(inside / "deep")])
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("name", ["", "/*", "/**"])
def test_what_is_no_regular_file_is_counted(tmp_path, name, caplog):
    (tmp_path / "a.png").touch()
    (tmp_path / "lost.png").symlink_to("nowhere")  # for its reader to refuse
    (tmp_path / "lost").symlink_to("nowhere")
    (tmp_path / "device").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    paths = find_images([f"{tmp_path}{name}"])
    assert paths == [tmp_path / "a.png", tmp_path / "lost.png"]
    assert caplog.messages == [
        "3 files skipped, not images of a supported format: 1 device, 1 broken symbolic link, 1 named pipe"
    ]


def test_a_pattern_over_looping_links_ends(tmp_path):
    (tmp_path / "a.png").touch()
    for name in ("one", "other"):
        (tmp_path / name).symlink_to(tmp_path)
    assert find_images([f"{tmp_path}/**/*.png"]) == [tmp_path / "a.png"]
    assert find_images([f"{tmp_path}/**/*"]) == [tmp_path / "a.png"]


def test_folders_and_patterns_without_pictures(tmp_path):
    for argument, kind in ((str(tmp_path), "folder"), (str(tmp_path / "*.png"), "pattern")):
        with pytest.raises(ImageError, match=f"{kind} .* contains no image: expected files ending in .jpg, .jpeg"):
            find_images([argument])
    with pytest.raises(ImageError, match="the folder .*gone/ does not exist"):
        find_images([f"{tmp_path}/gone/"])
    assert find_images([str(tmp_path / "gone.png")]) == [tmp_path / "gone.png"]


def test_every_suffix_that_pillow_reads_of_these_formats_is_looked_for():
    """All but .pfm, whose pixels are unbounded numbers."""
    Image.init()
    theirs = {suffix for suffix, name in Image.registered_extensions().items() if name in IMAGES}
    assert theirs - {".pfm"} <= set(SUFFIXES["image"])
