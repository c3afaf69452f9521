"""Google's Conceptual Captions as a TFDS data set, and the strict reading of caption rows it is built on.

Import it and `tfds.builder("conceptual_captions")` knows the set; `load_captions` in `captions.py` does it all.
"""

import codecs
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from c2c_jax.errors import CaptionError

TSV_FILES = {"train": "Train_GCC-training.tsv", "validation": "Validation_GCC-1.1.0-Validation.tsv"}
OFFERED_AT = "https://ai.google.com/research/ConceptualCaptions/download"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class ConceptualCaptions(tfds.core.GeneratorBasedBuilder):
    """TFDS builder over Google's TSV files, laid in TFDS's manual folder: `train`, `validation` or both.

    Record i of a split is the i-th good row of its file. `info.metadata[split]` tells what it was made from:
    `sha256` of the file, and `malformed` and `first_lines` as `read_rows` fills them.

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
        malformed: dict[str, int] = {}
        first_lines: dict[str, int] = {}
        for row, (caption, url) in enumerate(read_rows(path, True, malformed, first_lines)):
            yield row, {"caption": caption, "url": url}
        # TFDS writes the metadata after the last record, so these counts are on disk for every later run.
        self.info.metadata[split] = {"sha256": file_sha256(path), "malformed": malformed, "first_lines": first_lines}


def missing_tsv(manual_dir: os.PathLike) -> str:
    """The one line that says which files are wanted, where they were looked for and how to get them."""
    train, validation = TSV_FILES.values()
    return (
        f"Conceptual Captions not found: put {train} and/or {validation} from {OFFERED_AT} into {manual_dir}, "
        f"or name a file of caption<TAB>url rows as tsv:PATH"
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_rows(
    path: Path, tabbed: bool, malformed: dict[str, int], first_lines: dict[str, int]
) -> Iterator[tuple[str, str]]:
    r"""Yields (caption, url) for each good row of a UTF-8 file, and counts the rest into `malformed` as it goes.

    Only \n ends a row. A byte order mark, \r before \n and blank lines at the end of the file belong to no row.
    tabbed: whether a row is `caption<TAB>url` (further columns are ignored); if not, it is all caption and url is "".
    malformed: reason ("not UTF-8", "no tab", "empty caption") to count, filled in place.
    first_lines: reason to the number of the first such line, counted from 1, filled in place.

    Errors: CaptionError if the file cannot be opened, is UTF-16, or has no good row.
    """

    def leave_out(reason: str, line_number: int) -> None:
        malformed[reason] = malformed.get(reason, 0) + 1
        first_lines.setdefault(reason, line_number)

    form = "caption<TAB>url" if tabbed else "caption"
    try:
        file = open(path, "rb")
    except OSError as error:
        raise CaptionError(f"cannot read captions from {path}: {error.strerror}; give a UTF-8 text file") from error
    good = 0
    blank_lines: list[int] = []
    with file:
        for line_number, line in enumerate(file, start=1):
            if line_number == 1:
                if line.startswith(UTF16):
                    raise CaptionError(f"cannot read captions from {path}: it is UTF-16; save it as UTF-8")
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                blank_lines.append(line_number)
                continue
            # Only now is it known that these were not the end of the file.
            for blank_line in blank_lines:
                leave_out("empty caption", blank_line)
            blank_lines.clear()
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                leave_out("not UTF-8", line_number)
                continue
            caption, tab, rest = text.partition("\t") if tabbed else (text, "", "")
            caption = caption.strip()
            if tabbed and not tab:
                leave_out("no tab", line_number)
            elif not caption:
                leave_out("empty caption", line_number)
            else:
                good += 1
                yield caption, rest.partition("\t")[0].strip()
    if not good:
        why = describe_left_out(malformed, first_lines) if malformed else "the file is empty"
        raise CaptionError(f"no usable caption in {path}: {why}; expected one {form} a line, in UTF-8")


def describe_left_out(malformed: dict[str, int], first_lines: dict[str, int]) -> str:
    """`3 rows left out: 2 no tab (first at line 17), 1 empty caption (first at line 40)`, or `no row left out`."""
    total = sum(malformed.values())
    if not total:
        return "no row left out"
    reasons = [f"{count:,} {reason} (first at line {first_lines[reason]:,})" for reason, count in malformed.items()]
    return f"{total:,} row{'s' if total > 1 else ''} left out: {', '.join(reasons)}"
