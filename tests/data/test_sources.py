"""CSV, JSON lines, globs, TFDS and Hugging Face data sets, against values in the files."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from c2c_jax.cli.arguments import require_captions
from c2c_jax.cli.recipe import read_config
from c2c_jax.data import sources
from c2c_jax.data.caption_files import Csv, Tsv, Txt
from c2c_jax.data.captions import CaptionStream, open_sources
from c2c_jax.errors import CaptionError, MissingExtraError
from c2c_jax.publishing.names import public_caption_spec
from tests.data.test_captions import ROOT, message_of, opened, texts_of, write

CSV = (
    b"\xef\xbb\xbfid,caption,url\r\n"
    b'1,"a dog, barking",u\r\n'
    b'2,"two\nlines",u\r\n'
    b"3\r\n"
    b"4,  ,u\r\n"
    b"\r\n"
    b"5,caf\xe9,u\r\n"
    b'6,"she said ""hi""",u\r\n'
)


def test_csv(tmp_path):
    source = opened(f"csv:{write(tmp_path / 'a:b.csv', CSV)}:caption")
    assert list(source.rows()) == ["a dog, barking", "two lines", 'she said "hi"']
    assert source.skipped.counts == {"too few columns": 1, "empty caption": 1, "not UTF-8": 1}
    assert source.skipped.first == {"too few columns": "line 5", "empty caption": "line 6", "not UTF-8": "line 8"}


def test_csv_columns(tmp_path):
    path = write(tmp_path / "c.csv", b"id,caption,caption\n1,a,b\n")
    assert message_of(f"csv:{path}:text") == f"{path} must have exactly one column 'text'; found id, caption, caption"
    assert "must have exactly one column 'caption'" in message_of(f"csv:{path}:caption")
    assert "'caption'; the file is empty" in message_of(f"csv:{write(tmp_path / 'e.csv', b'')}:caption")
    assert "found no file" in message_of(f"csv:{tmp_path / 'none.csv'}:caption")


def test_jsonl(tmp_path):
    lines = [
        json.dumps({"caption": "a bell"}),
        "{broken",
        json.dumps({"text": "elsewhere"}),
        json.dumps({"caption": ["one", " ", "two\nlines", 3]}),
        json.dumps({"caption": "\ud800"}),
        json.dumps(["caption"]),
        "",
        json.dumps({"caption": "rain"}),
    ]
    source = opened(f"jsonl:{write(tmp_path / 'c.jsonl', chr(10).join(lines).encode())}:caption")
    assert list(source.rows()) == ["a bell", "one", "two lines", "rain"]
    counts = {"not JSON": 1, "no caption": 2, "empty caption": 2, "not text": 1}
    counts["not JSON"] += 1  # half of a surrogate pair is not JSON
    assert source.skipped.counts == counts
    assert source.skipped.first["no caption"] == "line 3"


def test_glob_reads_files_by_name_and_tells_which(tmp_path):
    write(tmp_path / "part-2.txt", b"three\n\xff\n")
    write(tmp_path / "part-1.txt", b"one\ntwo\n")
    source = opened(f"txt:{tmp_path}/part-*.txt")
    assert list(source.rows()) == ["one", "two", "three"]
    assert source.skipped.first == {"not UTF-8": "line 2 of part-2.txt"}
    stamp = source.stamp()
    write(tmp_path / "part-3.txt", b"four\n")
    assert opened(f"txt:{tmp_path}/part-*.txt").stamp() != stamp
    assert "no file matches this pattern" in message_of(f"txt:{tmp_path}/none-*.txt")
    write(tmp_path / "odd[1].txt", b"a name like a pattern\n")
    assert texts_of(f"txt:{tmp_path / 'odd[1].txt'}") == ["a name like a pattern"]


def test_glob_over_looping_links_ends(tmp_path):
    write(tmp_path / "a.txt", b"one\n")
    for name in ("one", "other"):
        (tmp_path / name).symlink_to(tmp_path)
    assert texts_of(f"txt:{tmp_path}/**/*.txt") == ["one"]
    require_captions(f"txt:{tmp_path}/**/a.txt")
    with pytest.raises(CaptionError, match="cannot read captions from"):
        require_captions(f"txt:{tmp_path}/**/b.txt")


def test_spec_of_several_sources_with_weights():
    sources = open_sources("3*tsv:a.tsv + 0.5*csv:b*.csv:x + txt:*.txt")
    assert [(type(source), source.spec, source.weight) for source in sources] == [
        (Tsv, "tsv:a.tsv", 3.0),
        (Csv, "csv:b*.csv:x", 0.5),
        (Txt, "txt:*.txt", None),
    ]


class CocoLike(tfds.core.GeneratorBasedBuilder):
    """Images with several captions each, in COCO's feature names."""

    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="small"), tfds.core.BuilderConfig(name="large")]
    url_infos = None

    def _info(self):
        captions = tfds.features.Sequence({"id": tfds.features.Scalar(np.int64), "text": tfds.features.Text()})
        features = {"captions": captions, "name": tfds.features.Text(), "width": tfds.features.Scalar(np.int64)}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(4), "val": self._generate_examples(1)}

    def _generate_examples(self, count):
        for index in range(count):
            texts = [f"{self.builder_config.name} {index} caption {i}" for i in range(5)]
            texts[3] = " "
            yield (
                index,
                {
                    "captions": [{"id": i, "text": text} for i, text in enumerate(texts)],
                    "name": f"é{index}",
                    "width": 1,
                },
            )


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    for config in ("small", "large"):
        builder = CocoLike(config=config, data_dir=folder, file_format="array_record")
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return folder


def test_tfds_sequence_of_captions_as_rows(tfds_folder):
    source = opened("tfds:coco_like/large:train:captions/text", tfds_folder)
    assert list(source.rows()) == [f"large {p} caption {i}" for p in range(4) for i in range(5) if i != 3]
    assert (source.skipped.counts, source.skipped.first) == ({"empty caption": 4}, {"empty caption": "record 0"})
    assert texts_of("tfds:coco_like/small:train[1:3]:name", tfds_folder) == ["é1", "é2"]
    assert texts_of("tfds:coco_like/small:val+train[:1]:name", tfds_folder) == ["é0", "é0"]
    stamps = {opened(f"tfds:coco_like/{name}:train:name", tfds_folder).stamp() for name in ("small", "large")}
    assert len(stamps) == 2


def test_tfds_misuse(tfds_folder, tmp_path):
    fields = "its text or bytes fields are captions/text, name"
    assert fields in message_of("tfds:coco_like/small:train:caption", tfds_folder)
    assert "splits are train, val" in message_of("tfds:coco_like/small:test:name", tfds_folder)
    message = message_of("tfds:coco_captions:train:captions/text", tmp_path)
    assert "no set coco_captions is prepared in" in message and "file_format='array_record'" in message


@pytest.fixture
def hf_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"caption": "a bell", "all": ["one", "two"], "id": 1}, {"caption": None, "all": [], "id": 2}]
    rows.append({"caption": "rain", "all": ["three"], "id": 3})
    write(tmp_path / "set" / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    return tmp_path / "set"


def test_hugging_face_dataset(hf_folder):
    source = opened(f"hf:{hf_folder}:train:caption")
    assert list(source.rows()) == ["a bell", "rain"]
    assert source.skipped.counts == {"not text": 1}
    assert texts_of(f"hf:{hf_folder}:train[:1]:all") == ["one", "two"]
    assert opened(f"hf:{hf_folder}:train:caption").stamp() == source.stamp()
    assert "its columns are caption, all, id" in message_of(f"hf:{hf_folder}:train:text")
    assert message_of(f"hf:{hf_folder}:test:caption").startswith(f"hf:{hf_folder}:test:caption: ")


def test_hugging_face_misuse(tmp_path):
    with pytest.raises(CaptionError, match="write hf:NAME"):
        open_sources("hf:nlphuji/flickr30k:test")
    assert message_of(f"hf:{tmp_path / 'none'}:train:caption").startswith("hf:")


@pytest.mark.parametrize(("kind", "package"), [("hf", "datasets"), ("tfds", "tensorflow_datasets")])
def test_a_missing_library_is_named_with_its_extra(kind, package, monkeypatch):
    (source,) = open_sources(f"{kind}:coco:train:text")
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"^{kind}:coco:train:text needs {package}, .*: pip install 'c2c_jax\[{kind}\]'$"
    for read in (source.stamp, lambda: list(source.rows()), lambda: require_captions(source.spec)):
        with pytest.raises(MissingExtraError, match=message):
            read()


def test_a_kind_of_ones_own(tmp_path, monkeypatch):
    """A custom source as in docs/extending.md: read, skipped, mixed and published."""
    docs = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", docs, re.DOTALL) if "register_source" in code)
    write(tmp_path / "recipe.py", example.encode())
    write(tmp_path / "songs" / "a.lrc", b"[00:01]one\n[00:02]\n[00:03] two \n")
    write(tmp_path / "songs" / "b.lrc", b"by nobody\n[00:01]three\n")
    write(tmp_path / "captions.txt", b"x\ny\n")
    monkeypatch.chdir(tmp_path)
    known = dict(sources.SOURCES)
    monkeypatch.setattr("c2c_jax.data.sources.SOURCES", known)
    monkeypatch.setattr("c2c_jax.data.captions.SOURCES", known)
    spec = read_config("recipe.py", []).data.captions
    require_captions(spec)
    lyrics, _ = open_sources(spec)
    assert (lyrics.weight, lyrics.form, list(lyrics.rows())) == (2.0, "lyrics:FOLDER", ["one", "two", "three"])
    first = "1 empty caption (first at line 2 of a.lrc), 1 no time (first at line 1 of b.lrc)"
    assert str(lyrics.skipped) == f"2 rows skipped: {first}"
    assert list(CaptionStream(open_sources(spec), drop_duplicates=True)) == ["one", "two", "x", "three"]
    stamp = lyrics.stamp()
    write(tmp_path / "songs" / "b.lrc", b"[00:01]four\n")
    assert lyrics.stamp() != stamp and len(stamp) == 64
    with pytest.raises(CaptionError, match="no usable caption in lyrics:nowhere: it is empty"):
        list(open_sources("lyrics:nowhere")[0].rows())
    with pytest.raises(CaptionError, match="cannot read captions from nowhere"):
        require_captions("miniworld:9 + lyrics:nowhere")
    assert public_caption_spec("2*lyrics:a/songs") == "2*lyrics:songs"
    monkeypatch.undo()
    assert public_caption_spec("2*lyrics:/home/me/songs") == "2*lyrics:songs"  # where no class is registered for it
