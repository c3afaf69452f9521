"""Caption sources: the class that every kind of source derives from, and the registry of kinds."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

from c2c_jax.errors import CaptionError

MAX_CAPTION_BYTES = 2**16
LONG_CAPTION = f"caption longer than {MAX_CAPTION_BYTES:,} bytes"
_LINE_END = re.compile(r"\r\n?|\n")


@dataclasses.dataclass(frozen=True)
class Malformed:
    """A record without a caption, or `count` of them in succession. reason: a few words, under which it is counted."""

    reason: str
    count: int = 1


@dataclasses.dataclass
class Skipped:
    """The rows of a source that were skipped. counts: reason → number. first: reason → position of the first one."""

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    first: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, reason: str, where: str, count: int = 1) -> None:
        """Counts rows that are skipped for one reason, the first of them at `where`."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        self.first.setdefault(reason, where)

    def __str__(self) -> str:
        """`3 rows skipped: 2 no tab (first at line 17), 1 empty caption (first at line 40)`, or `no row skipped`."""
        total = sum(self.counts.values())
        if not total:
            return "no row skipped"
        reasons = [f"{count:,} {reason} (first at {self.first[reason]})" for reason, count in self.counts.items()]
        return f"{total:,} row{'s' if total > 1 else ''} skipped: {', '.join(reasons)}"


class Source:
    """A source of captions, named by a spec such as `txt:captions.txt`. Subclasses, one for each kind, give `records`.

    spec: the source's name, without its weight. weight: its fraction of a mixture; None if it was given none.
    data_dir: folder of prepared TFDS data sets. manual_dir: folder of Google's TSV files. "": TFDS's own defaults.
    places: the files, folders and patterns that the spec names, as they are written there. They are looked for before a
    long command starts, and only their last component is published. skipped: what the last reading skipped.
    """

    form: ClassVar[str]  # how a spec of this kind is written; set by `register_source`

    def __init__(self, spec: str, weight: float | None = None, data_dir: str = "", manual_dir: str = ""):
        self.spec, self.weight, self.data_dir, self.manual_dir = spec, weight, data_dir, manual_dir
        self.places: tuple[str, ...] = ()
        self.skipped = Skipped()
        self.parse(spec.partition(":")[2])

    def parse(self, text: str) -> None:
        """Reads what follows the kind in the spec. Raises CaptionError if it is not of this kind's form."""
        self.text = text

    def records(self) -> Iterator[tuple[str, Any]]:
        """Yields the records in order: the position, for messages ("line 7"), and a text, a list of texts or Malformed.

        Raises CaptionError for a source that is missing or cannot be read.
        """
        raise NotImplementedError

    def stamp(self) -> str:
        """A string that changes if the captions change. By default the SHA-256 of all captions, in hex."""
        digest = hashlib.sha256()
        for caption in self.rows():
            digest.update(f"{caption}\n".encode())
        return digest.hexdigest()

    def rows(self) -> Iterator[str]:
        """Yields the captions in order, without outer whitespace and line ends; the others are counted in `skipped`.

        Raises CaptionError if there is none, and as `records`.
        """
        self.skipped, count = Skipped(), 0
        for where, value in self.records():
            for caption in captions_in(value, self.skipped, where):
                count += 1
                yield caption
        if not count:
            raise CaptionError(
                f"no usable caption in {self.spec}: {self.skipped if self.skipped.counts else 'it is empty'}"
            )


def captions_in(value: Any, skipped: Skipped, where: str) -> Iterator[str]:
    """Yields the captions in a record's value: itself, or each of a list (COCO's five per image). See `Source.rows`."""
    for text in value if isinstance(value, list | tuple) else (value,):
        if isinstance(text, Malformed):
            skipped.add(text.reason, where, text.count)
            continue
        if not isinstance(text, str):
            skipped.add("not text", where)
            continue
        caption = _LINE_END.sub(" ", text).strip()
        try:
            size = len(caption.encode("utf-8"))
        except UnicodeEncodeError:
            skipped.add("not UTF-8", where)
            continue
        if not size:
            skipped.add("empty caption", where)
        elif size > MAX_CAPTION_BYTES:
            skipped.add(LONG_CAPTION, where)
        else:
            yield caption


SOURCES: dict[str, type[Source]] = {}  # by the word before the first colon of a spec

Kind = TypeVar("Kind", bound=type[Source])


def register_source(prefix: str, form: str) -> Callable[[Kind], Kind]:
    """Class decorator that adds a kind of caption source: its specs are `PREFIX:…`.

    form: what follows the colon, for messages, such as "PATH:COLUMN".
    """

    def register(kind: Kind) -> Kind:
        kind.form = f"{prefix}:{form}"
        SOURCES[prefix] = kind
        return kind

    return register
