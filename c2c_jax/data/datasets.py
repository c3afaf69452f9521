"""Reads captions from data sets of TFDS, Hugging Face and the mini world. Their libraries are imported when needed."""

import functools
import hashlib
import os
import re
from collections.abc import Iterator
from typing import Any

from c2c_jax.data.sources import Source, register_source
from c2c_jax.errors import CaptionError, one_line
from c2c_jax.io.names import is_path_only

BLOCK = 65536  # TFDS records read at a time; large enough to hide Python's overhead per block
GCC = "conceptual_captions"
# A slice of a split contains a colon, as in train[:1000], and so does a drive, as in C:\captions.
_SPEC = re.compile(
    r"(?P<name>(?:[A-Za-z]:(?=[\\/]))?[^:@]+)(?:@(?P<config>[^:]+))?"
    r":(?P<split>(?:[^:\[]|\[[^\]]*\])+)(?::(?P<field>.+))?"
)


@register_source("tfds", "NAME[/CONFIG]:SPLIT:FIELD")
class TFDS(Source):
    """A TFDS data set prepared as ArrayRecord, read without TensorFlow.

    FIELD is the feature's name, with `/` for nested features (`captions/text`); each text of a sequence is a caption.
    `tfds:conceptual_captions:SPLIT` is prepared from Google's TSV files at first use;
    `tfds:miniworld/captions:SPLIT` is generated.
    """

    extra, packages = "tfds", ("tensorflow_datasets", "array_record")

    def parse(self, text: str) -> None:
        """Splits the text into name, split and field. The field defaults to `caption` for Conceptual Captions and the
        mini world. Raises CaptionError for any other form, or for another data set without a field."""
        match = _SPEC.fullmatch(text)
        if not match or match["config"]:
            raise CaptionError(f"cannot read {self.spec!r}; write {self.form}")
        self.name, self.split, self.field = match["name"], match["split"], match["field"] or ""
        if self.name == GCC or self.name.startswith("miniworld/"):
            self.field = self.field or "caption"
        elif not self.field:
            raise CaptionError(f"{self.spec!r} names no field; write tfds:{self.name}:{self.split}:FIELD")

    def stamp(self) -> str:
        """Returns the SHA-256 of the TSV file for a whole split of Conceptual Captions; for others, a hash of the name,
        version, and sizes and shard lengths of the splits. Raises CaptionError if the data set is not on disk, and
        MissingExtraError if TFDS is not installed."""
        self.require_packages()
        from c2c_jax.data.tfds_sets import open_dataset, prepared_from

        builder = open_dataset(self.name, self.split, self.data_dir, self.manual_dir)
        if origin := prepared_from(builder, self.split):
            return origin.sha256
        splits = sorted((name, split.num_bytes, split.shard_lengths) for name, split in builder.info.splits.items())
        return hashlib.sha256(repr((builder.info.full_name, splits)).encode()).hexdigest()

    def records(self) -> Iterator[tuple[str, Any]]:
        """Yields each record's position and texts, parsed as protocol buffers: decoding through TFDS is seven times
        slower and would decode images too. Raises CaptionError or MissingExtraError."""
        self.require_packages()
        import tensorflow_datasets as tfds
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        from c2c_jax.data.tfds_sets import damage_error, open_dataset, prepared_from

        builder = open_dataset(self.name, self.split, self.data_dir, self.manual_dir)
        if origin := prepared_from(builder, self.split):
            self.skipped = origin.left_out
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        try:
            records: Any = builder.as_data_source(split=self.split, deserialize_method=raw)
        except (ValueError, NotImplementedError) as error:  # an unknown split, or files of another format
            splits = ", ".join(builder.info.splits)
            raise CaptionError(f"{self.spec}: {one_line(error)}; splits are {splits}") from error
        for start in range(0, len(records), BLOCK):
            try:
                block = records.__getitems__(range(start, min(start + BLOCK, len(records))))
                examples = map(tf_example_pb2.Example.FromString, block)
                for number, example in enumerate(examples, start):
                    yield f"record {number:,}", self._texts(example.features.feature)
            except (RuntimeError, DecodeError) as error:
                raise damage_error(builder, error) from error

    def _texts(self, features: Any) -> list[str]:
        if self.field not in features:
            texts = ", ".join(sorted(name for name, value in features.items() if value.bytes_list.value))
            raise CaptionError(
                f"{self.spec}: records have no field {self.field!r}; its text or bytes fields are {texts}"
            )
        return [value.decode("utf-8", "surrogateescape") for value in features[self.field].bytes_list.value]


@register_source("hf", "NAME[@CONFIG]:SPLIT:FIELD")
class HuggingFace(Source):
    """A data set on the hub, in its cache or in a local folder, read with the `datasets` library.

    FIELD is a column of texts or lists of texts; each text is a caption.
    """

    extra, packages = "hf", ("datasets",)

    def parse(self, text: str) -> None:
        """Splits the text into name, config, split and field. A name that can only be a local path is also added to
        `places`. Raises CaptionError for any other form."""
        match = _SPEC.fullmatch(text)
        if not match or not match["field"]:
            raise CaptionError(f"cannot read {self.spec!r}; write {self.form}")
        self.name, self.config, self.split, self.field = match.groups()
        if is_path_only(self.name):
            self.places = (self.name,)

    def stamp(self) -> str:
        """Returns the `datasets` library's fingerprint. Raises CaptionError if the data set cannot be loaded, and
        MissingExtraError if the library is not installed."""
        return self._dataset._fingerprint

    def records(self) -> Iterator[tuple[str, Any]]:
        """Yields each record's position, counted from 0, and the value of its field.

        Raises CaptionError if the data set cannot be loaded or lacks the column, and MissingExtraError if the library
        is not installed.
        """
        blocks = self._dataset.select_columns(self.field).iter(batch_size=1024)
        values = (value for block in blocks for value in block[self.field])
        return ((f"record {number:,}", value) for number, value in enumerate(values))

    @functools.cached_property
    def _dataset(self) -> Any:
        self.require_packages()
        import datasets

        name = os.path.expanduser(self.name)
        try:
            dataset = datasets.load_dataset(name, self.config, split=self.split, trust_remote_code=False)
        except Exception as error:  # the library raises two dozen kinds of exceptions
            raise CaptionError(f"{self.spec}: {one_line(error):.500}") from error
        if self.field not in dataset.column_names:
            columns = ", ".join(dataset.column_names)
            raise CaptionError(f"{self.spec}: there is no column {self.field!r}; its columns are {columns}")
        return dataset


@register_source("miniworld", "[train|validation|test:]COUNT[:picture|sound|mixed]")
class MiniworldCaptions(Source):
    """Captions of the mini world, generated while they are read; by default of the training split, in all styles."""

    def parse(self, text: str) -> None:
        """Parses the split, the number of captions and their style. Raises CaptionError for any other form."""
        from c2c_jax.miniworld.captions import STYLES

        split, count, style = r"(?:(train|validation|test):)?", "([1-9][0-9]{0,11})", rf"(?::({'|'.join(STYLES)}))?"
        if not (match := re.fullmatch(split + count + style, text)):
            raise CaptionError(f"cannot read {self.spec!r:.80}; write {self.form}")
        self.split, self.count = match[1] or "train", int(match[2])
        self.styles = (match[3],) if match[3] else STYLES

    def stamp(self) -> str:
        """Hashes the first captions, which change with the grammar."""
        from c2c_jax.miniworld.captions import captions

        first = captions(self.split, min(self.count, 4096), styles=self.styles)
        return hashlib.sha256("\n".join((self.spec, *first)).encode()).hexdigest()

    def records(self) -> Iterator[tuple[str, Any]]:
        """Yields the generated captions, each with an empty position."""
        from c2c_jax.miniworld.captions import captions

        return (("", caption) for caption in captions(self.split, self.count, styles=self.styles))
