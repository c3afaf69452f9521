"""Manifests, and folders of data sets in the layouts that their authors document. The files are empty."""

import os
from pathlib import Path

import pytest

from c2c_jax.errors import ManifestError
from c2c_jax.evaluation.pairs import NO_AUDIO, NO_IMAGE, read_pairs


def lay(folder: Path, *names: str, **texts: str) -> Path:
    """Empty files of these names, and lists with their texts; in a name `__` stands for a dot."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name, text in texts.items():
        path = folder / name.replace("__", ".").replace("_in_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def found(folder: Path, path: Path | None = None):
    """(image, audio, label) of each item, names relative to the folder, and the left out ones."""
    pairs = read_pairs(path or folder)

    def relative(file: Path | None) -> str | None:
        return str(file.relative_to(folder)) if file else None

    items = [(relative(item.image), relative(item.audio), item.label) for item in pairs.items]
    left_out = [(skipped.file.removeprefix(f"{folder}/"), skipped.why) for skipped in pairs.skipped]
    return items, left_out


def test_manifest(tmp_path):
    lay(tmp_path, "a.png", "sounds/a.wav", "b.png", "c.wav")
    rows = [
        "audio,image,caption,label",
        'sounds/a.wav,a.png,"a dog, barking",dog',
        ",b.png,,cat",
        "c.wav,gone.png,,",
        "",
        "gone.wav,,,cat",
        "c.wav,b.png",
    ]
    (tmp_path / "pairs.csv").write_text("\ufeff" + "\r\n".join(rows), encoding="utf-8")
    pairs = read_pairs(tmp_path / "pairs.csv")
    assert [(item.image, item.audio, item.label, item.caption) for item in pairs.items] == [
        (tmp_path / "a.png", tmp_path / "sounds/a.wav", "dog", "a dog, barking"),
        (tmp_path / "b.png", None, "cat", None),
        (None, tmp_path / "c.wav", None, None),
    ]
    assert [(skipped.file, skipped.why) for skipped in pairs.skipped] == [
        ("pairs.csv, line 7", "2 fields where the header has 4"),
        (str(tmp_path / "gone.png"), "there is no such file"),
        (str(tmp_path / "gone.wav"), "there is no such file"),
        (str(tmp_path / "b.png"), NO_AUDIO),
        (str(tmp_path / "c.wav"), NO_IMAGE),
    ]
    assert pairs.labels == ["cat", "dog"] and pairs.description == "manifest pairs.csv"
    (tmp_path / "pairs.csv").rename(tmp_path / "manifest.csv")
    assert read_pairs(tmp_path).items == pairs.items


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("img,wav\na.png,a.wav\n", "neither a column image nor audio; its columns are img, wav"),
        ("", "its columns are none, the file is empty"),
        (
            "image,audio,lable\na.png,a.wav,x\n",
            "unknown or duplicate columns: lable; expected each once of image, audio",
        ),
        ("image,image\na.png,a.png\n", "duplicate columns: image;"),
        ("image;audio\na.png;a.wav\n", "separates its columns by semicolons; expected commas"),
        ("image\taudio\na.png\ta.wav\n", "separates its columns by tabs; expected commas"),
        ("image,audio\n", "none of the images and sounds listed in .* exist$"),
        ("image,audio\ngone.png,\n", "the first of 1: .*gone.png: there is no such file"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError, match=message):
        read_pairs(tmp_path / "pairs.csv")


def test_an_impossible_file_name_affects_one_row(tmp_path):
    lay(tmp_path, "a.png", pairs__csv=f"image\na.png\n{'b' * 300}.png\n")
    items, left_out = found(tmp_path, tmp_path / "pairs.csv")
    assert items == [("a.png", None, None)]
    assert left_out == [(f"{'b' * 300}.png", "there is no such file")]


def test_an_unreadable_row_affects_no_other(tmp_path):
    """Stray quotes, a row of 200,000 letters, a NUL, and a valid caption over two lines."""
    lay(tmp_path, "a.png", "b.png", "c.png", "d.png")
    rows = [
        "image,caption",
        'a.png,"never closed',
        "b.png,two",
        "c.png," + "x" * 200_000,
        "c.png,\0",
        'c.png,"a ""dog"" in\nthe rain, barking"',
        'd.png,5" nails',
    ]
    (tmp_path / "pairs.csv").write_text("\n".join(rows), encoding="utf-8")
    pairs = read_pairs(tmp_path / "pairs.csv")
    assert [(item.image.name, item.caption) for item in pairs.items] == [
        ("b.png", "two"),
        ("c.png", 'a "dog" in\nthe rain, barking'),
        ("d.png", '5" nails'),
    ]
    assert [(skipped.file, skipped.why) for skipped in pairs.skipped] == [
        ("pairs.csv, line 2", "a quote that is not closed"),
        ("pairs.csv, line 4", "more than 65,536 bytes"),
        ("pairs.csv, line 5", "a NUL in it"),
    ]


def test_a_stray_quote_before_many_rows(tmp_path):
    lay(tmp_path, "a.png")
    (tmp_path / "pairs.csv").write_text('image,caption\na.png,"\n' + "a.png,x\n" * 50_000, encoding="utf-8")
    pairs = read_pairs(tmp_path / "pairs.csv")
    assert len(pairs.items) == 50_000 and len(pairs.skipped) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_all_kinds(tmp_path, end):
    lay(tmp_path, "a.png", "b.png")
    (tmp_path / "pairs.csv").write_bytes(end.join(["image,label", "a.png,dog", "b.png,cat", ""]).encode())
    assert found(tmp_path, tmp_path / "pairs.csv") == ([("a.png", None, "dog"), ("b.png", None, "cat")], [])


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-16", "it is UTF-16; save it as UTF-8"),
        ("utf-32", "it is UTF-32; save it as UTF-8"),
        ("utf-16-le", "it is UTF-16; save it as UTF-8"),
        ("utf-16-be", "it is UTF-16; save it as UTF-8"),
        ("latin-1", "byte 0xe9 in line 2; Latin-1 or Windows-1252"),
    ],
)
def test_other_encodings_are_named(tmp_path, encoding, message):
    (tmp_path / "pairs.csv").write_bytes("image,label\na.png,caf\u00e9\n".encode(encoding))
    with pytest.raises(ManifestError, match=message):
        read_pairs(tmp_path / "pairs.csv")


def test_only_regular_files_are_listed_or_read(tmp_path):
    lay(tmp_path, "a.png", pairs__csv="image,audio\na.png,pipe.wav\n,.\n")
    os.mkfifo(tmp_path / "pipe.wav")
    items, left_out = found(tmp_path, tmp_path / "pairs.csv")
    assert items == [("a.png", None, None)]
    assert left_out[0] == ("pipe.wav", "expected a file, found a named pipe")
    assert left_out[1][1] == "expected a file, found a folder"
    with pytest.raises(ManifestError, match="no manifest at .*pipe.wav, found a named pipe"):
        read_pairs(tmp_path / "pipe.wav")
    with pytest.raises(ManifestError, match="no manifest at"):
        read_pairs(tmp_path / ("x" * 300))


def test_a_list_that_is_too_large_is_refused(tmp_path):
    with open(tmp_path / "pairs.csv", "wb") as file:
        file.truncate(2**25 + 1)
    with pytest.raises(ManifestError, match="more than 33,554,432 bytes: split it"):
        read_pairs(tmp_path / "pairs.csv")


def test_linked_folders_are_followed_and_other_files_are_counted(tmp_path):
    real = lay(tmp_path / "real", "a.png", "b.jfif", "c.heic", "notes.txt")
    data = lay(tmp_path / "data", "sounds/a.wav", "sounds/b.rf64", "sounds/c.m4a")
    (data / "images").symlink_to(real)
    (real / "loop").symlink_to(real)
    os.mkfifo(real / "pipe")
    (data / "sounds" / "lost").symlink_to("nowhere")
    pairs = read_pairs(data)
    assert sorted(item.image.name for item in pairs.items if item.image and item.audio) == ["a.png", "b.jfif"]
    assert str(pairs).endswith(
        "; 5 files skipped, not images or sounds of a supported format: 1 .heic, 1 .txt, 1 named pipe, 1 .m4a, "
        "1 broken symbolic link"
    )


def test_several_labels_of_a_file_are_reported(tmp_path):
    lay(tmp_path, "a.png", "b.wav", "c.wav", pairs__csv="image,audio,label\na.png,b.wav,dog\na.png,c.wav,cat\n")
    assert found(tmp_path, tmp_path / "pairs.csv")[1] == [("a.png", "has several labels (dog, cat); the first is used")]


def test_paths_that_are_not_manifests(tmp_path):
    with pytest.raises(ManifestError, match="no manifest at .*gone.csv: give a CSV file with a header of image, audio"):
        read_pairs(tmp_path / "gone.csv")
    (tmp_path / "pairs.csv").write_bytes(b"image,audio\n\xff\xfe\n")
    with pytest.raises(
        ManifestError, match="not a CSV file in UTF-8 .byte 0xff in line 2; Latin-1 .*: save it as CSV in UTF-8"
    ):
        read_pairs(tmp_path / "pairs.csv")
    with pytest.raises(ManifestError, match="contains no image and no sound; for videos, first extract frames"):
        read_pairs(lay(tmp_path / "videos", "a.mp4"))


def test_vggsound(tmp_path):
    """The test split, in the list's order, with the authors' file names."""
    lay(
        tmp_path,
        "frames/---g-f_I2yQ_000001.jpg",
        "audio/---g-f_I2yQ_000001.wav",
        "frames/--0PQM4-hqg_000030.jpg",
        "audio/--0PQM4-hqg_000030.flac",
        "audio/-0mjrMposBM_000080.wav",
        "frames/other.jpg",
        vggsound__csv="--0PQM4-hqg,30,waterfall burbling,test\n---1_cCGK4M,0,train whistling,train\n"
        '---g-f_I2yQ,1,"people, marching",test\n-0mjrMposBM,80,gone,test\n-goneggoneg,5,bell,test\nodd,1,row\n',
    )
    items, left_out = found(tmp_path)
    assert items == [
        ("frames/--0PQM4-hqg_000030.jpg", "audio/--0PQM4-hqg_000030.flac", "waterfall burbling"),
        ("frames/---g-f_I2yQ_000001.jpg", "audio/---g-f_I2yQ_000001.wav", "people, marching"),
        (None, "audio/-0mjrMposBM_000080.wav", "gone"),
    ]
    assert left_out == [
        ("vggsound.csv, line 6", "3 fields where the header has 4"),
        ("-goneggoneg_000005", "listed in vggsound.csv but not in the folder"),
        ("audio/-0mjrMposBM_000080.wav", NO_IMAGE),
    ]


def test_vgg_ss_and_flickr_soundnet(tmp_path):
    """Frames and sounds have equal names. Folders with longer cuts are not searched."""
    lay(
        tmp_path,
        "frames/zpWuikVorYg_000032.jpg", "audio/zpWuikVorYg_000032.wav", "extend_frames/zpWuikVorYg_000032.jpg",
        "frames/10000130166.jpg", "audio/10000130166.wav", "Annotations/2.xml",
    )  # fmt: skip
    assert found(tmp_path) == (
        [
            ("frames/10000130166.jpg", "audio/10000130166.wav", None),
            ("frames/zpWuikVorYg_000032.jpg", "audio/zpWuikVorYg_000032.wav", None),
        ],
        [],
    )


def test_esc_50_has_only_sounds(tmp_path):
    lay(
        tmp_path,
        "audio/1-100032-A-0.wav",
        "audio/1-100210-A-36.wav",
        meta_in_esc50__csv="filename,fold,target,category,esc10,src_file,take\n"
        "1-100210-A-36.wav,1,36,vacuum_cleaner,False,100210,A\n1-100032-A-0.wav,1,0,dog,True,100032,A\n",
    )
    items = [(None, "audio/1-100210-A-36.wav", "vacuum cleaner"), (None, "audio/1-100032-A-0.wav", "dog")]
    assert found(tmp_path) == (items, [])
    lay(tmp_path, meta_in_esc50__csv="file,class\na.wav,dog\n")
    with pytest.raises(ManifestError, match="lacks a column filename or category; its columns are file, class"):
        read_pairs(tmp_path)
    lay(tmp_path, meta_in_esc50__csv="filename,category\na.wav\n")
    with pytest.raises(ManifestError, match="the first of 1: esc50.csv, line 2: 1 fields where the header has 2"):
        read_pairs(tmp_path)


def test_urbansound(tmp_path):
    lay(
        tmp_path,
        "audio/fold5/100032-3-0-0.wav",
        metadata_in_UrbanSound8K__csv="slice_file_name,fold,classID,class\n100032-3-0-0.wav,5,3,dog_bark\n",
    )
    assert found(tmp_path) == ([(None, "audio/fold5/100032-3-0-0.wav", "dog bark")], [])


def test_imagehear_has_only_pictures(tmp_path):
    """Classes come from numbered names, as published, or from folders."""
    flat = lay(tmp_path / "flat", "dog1.jpg", "dog2.jpg", "church bell1.png", ".hidden1.jpg", "dog1.mel.png")
    assert found(flat)[0] == [
        ("church bell1.png", None, "church bell"),
        ("dog1.jpg", None, "dog"),
        ("dog2.jpg", None, "dog"),
    ]
    nested = lay(tmp_path / "nested", "dog/1.jpg", "big_cat/1.jpg")
    assert found(nested)[0] == [("big_cat/1.jpg", None, "big cat"), ("dog/1.jpg", None, "dog")]
    assert found(flat)[1] == found(nested)[1] == []
    photos = lay(tmp_path / "photos", "IMG_1.jpg", "IMG_2.jpg")  # one name: no class
    assert [label for *_, label in found(photos)[0]] == [None, None]


def test_own_folders_pair_by_name_within_their_classes(tmp_path):
    lay(tmp_path, "images/dog/1.jpg", "images/cat/1.jpg", "sounds/dog/1.wav", "sounds/cat/2.wav")
    items, left_out = found(tmp_path)
    assert items == [
        ("images/cat/1.jpg", None, "cat"),
        ("images/dog/1.jpg", "sounds/dog/1.wav", "dog"),
        (None, "sounds/cat/2.wav", "cat"),
    ]
    assert left_out == [("images/cat/1.jpg", NO_AUDIO), ("sounds/cat/2.wav", NO_IMAGE)]


def test_names_of_the_two_folders_are_not_classes(tmp_path):
    """As c2c miniworld export writes them, under other names, and with classes on one side only."""
    for pictures, sounds in (("pictures", "sounds"), ("Images", "Audio"), ("bilder", "klang")):
        folder = lay(
            tmp_path / pictures, f"{pictures}/0.png", f"{pictures}/1.png", f"{sounds}/0.wav", f"{sounds}/1.wav"
        )
        pairs = [(f"{pictures}/{n}.png", f"{sounds}/{n}.wav", None) for n in range(2)]
        assert found(folder) == (pairs, [])
    folder = lay(tmp_path / "one", "bilder/dog/0.png", "bilder/cat/1.png", "klang/0.wav", "klang/2.wav")
    assert sorted(found(folder)[0], key=str) == [
        ("bilder/cat/1.png", None, "cat"),
        ("bilder/dog/0.png", "klang/0.wav", "dog"),
        (None, "klang/2.wav", None),
    ]


def test_one_flat_folder(tmp_path):
    lay(tmp_path, "rain.jpg", "rain.wav", "sea.png")
    assert found(tmp_path) == ([("rain.jpg", "rain.wav", None), ("sea.png", None, None)], [("sea.png", NO_AUDIO)])
