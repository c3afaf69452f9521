"""Google's Conceptual Captions as a TFDS data set: once imported, `tfds.builder("conceptual_captions")` knows it."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from c2c_jax.data.rows import LeftOut, file_sha256, read_tsv
from c2c_jax.errors import CaptionError

TSV_FILES = {"train": "Train_GCC-training.tsv", "validation": "Validation_GCC-1.1.0-Validation.tsv"}
OFFERED_AT = "https://ai.google.com/research/ConceptualCaptions/download"


class ConceptualCaptions(tfds.core.GeneratorBasedBuilder):
    """TFDS builder over Google's TSV files, laid in TFDS's manual folder: `train`, `validation` or both.

    Record i of a split is the i-th good row of its file. `info.metadata[split]` tells what it was made from:
    `sha256` of the file, and `left_out`, the fields of a `rows.LeftOut`.

    Errors: CaptionError where neither file is there, or one has no usable row.
    Source: Sharma et al., "Conceptual Captions", ACL 2018.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put {' and/or '.join(TSV_FILES.values())} from {OFFERED_AT} into the manual folder."
    )
    # Nothing is downloaded, so there are no checksums; TFDS would look for them with importlib_resources, a package
    # it needs for that but does not install on this Python.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Captions of pictures on the web, and the pictures' addresses (GCC, CC3M).",
            homepage=OFFERED_AT,
            features=tfds.features.FeaturesDict({"caption": tfds.features.Text(), "url": tfds.features.Text()}),
            metadata=tfds.core.MetadataDict(),
            # Keeps the order of the file: line numbers, records and rows of an embedding store then go together.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        found = {split: Path(dl_manager.manual_dir) / name for split, name in TSV_FILES.items()}
        found = {split: path for split, path in found.items() if path.is_file()}
        if not found:
            raise CaptionError(missing_tsv(dl_manager.manual_dir))
        return {split: self._generate_examples(split, path) for split, path in found.items()}

    def _generate_examples(self, split: str, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
        left_out = LeftOut()
        row = -1
        for row, (caption, url) in enumerate(read_tsv(path, left_out)):
            yield row, {"caption": caption, "url": url}
        if row < 0:
            raise CaptionError(
                f"no usable caption in {path}: {left_out}; expected one caption<TAB>url a line, in UTF-8"
            )
        # TFDS writes the metadata after the last record, so these counts are on disk for every later run.
        self.info.metadata[split] = {"sha256": file_sha256(path), "left_out": dataclasses.asdict(left_out)}


def missing_tsv(manual_dir: os.PathLike) -> str:
    """The one line that says which files are wanted, where they were looked for and how to get them."""
    train, validation = TSV_FILES.values()
    return (
        f"Conceptual Captions not found: put {train} and/or {validation} from {OFFERED_AT} into {manual_dir}, "
        f"or name a file of caption<TAB>url rows as tsv:PATH"
    )
