"""Defines the base class of caption sources and the registry of their kinds."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

from c2c_jax.config import register_class
from c2c_jax.errors import CaptionError
from c2c_jax.io.extras import require_extra

MAX_CAPTION_BYTES = 2**16
LONG_CAPTION = f"caption longer than {MAX_CAPTION_BYTES:,} bytes"
_LINE_END = re.compile(r"\r\n?|\n")


@dataclasses.dataclass(frozen=True)
class Malformed:
    """A record without a usable caption, or `count` consecutive ones. reason: a few words for the report."""

    reason: str
    count: int = 1


@dataclasses.dataclass
class Skipped:
    """Counts the skipped rows of a source. counts: reason → number. first: reason → position of the first one."""

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    first: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, reason: str, position: str, count: int = 1) -> None:
        """Adds rows that were skipped for the same reason, the first of them at `position`."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        self.first.setdefault(reason, position)

    def __str__(self) -> str:
        """Formats as `3 rows skipped: 2 no tab (first at line 17), 1 empty caption (first at line 40)`."""
        total = sum(self.counts.values())
        if not total:
            return "no row skipped"
        reasons = [f"{count:,} {reason} (first at {self.first[reason]})" for reason, count in self.counts.items()]
        return f"{total:,} row{'s' if total > 1 else ''} skipped: {', '.join(reasons)}"


class Source:
    """A source of captions, named by a spec such as `txt:captions.txt`. Each kind is a subclass with `records`.

    spec: without the weight. weight: relative weight when sources are mixed, or None. data_dir: folder of prepared TFDS
    data sets. manual_dir: folder of Google's TSV files. "" means TFDS's default.
    places: the files, folders and glob patterns in the spec. Long commands check them before they start, and
    publishing keeps only their last component. skipped: the rows that the last reading skipped.
    """

    form: ClassVar[str]  # form of specs of this kind; set by `register_source`
    extra: ClassVar[str] = ""  # extra of c2c_jax that installs `packages`
    packages: ClassVar[tuple[str, ...]] = ()  # names, as imported, of the packages that read captions of this kind

    def __init__(self, spec: str, weight: float | None = None, data_dir: str = "", manual_dir: str = ""):
        self.spec, self.weight, self.data_dir, self.manual_dir = spec, weight, data_dir, manual_dir
        self.places: tuple[str, ...] = ()
        self.skipped = Skipped()
        self.parse(spec.partition(":")[2])

    def parse(self, text: str) -> None:
        """Parses the spec after `KIND:`. Raises CaptionError if it is invalid."""
        self.text = text

    def require_packages(self) -> None:
        """Raises MissingExtraError if a package that is needed to read this kind is not installed."""
        require_extra(self.extra, self.spec, *self.packages)

    def records(self) -> Iterator[tuple[str, Any]]:
        """Yields each record's position for messages ("line 7") and its value: a text, a list of texts or Malformed.

        Raises CaptionError if the source is missing or cannot be read.
        """
        raise NotImplementedError

    def stamp(self) -> str:
        """Returns a string that changes if the captions change; by default the SHA-256 of all captions in hex."""
        digest = hashlib.sha256()
        for caption in self.rows():
            digest.update(f"{caption}\n".encode())
        return digest.hexdigest()

    def rows(self) -> Iterator[str]:
        """Yields the captions in order, without outer whitespace and line ends. Counts unusable rows in `skipped`.

        Raises CaptionError if the source has no captions, and whatever `records` raises.
        """
        self.skipped, count = Skipped(), 0
        for position, value in self.records():
            for caption in captions_in(value, self.skipped, position):
                count += 1
                yield caption
        if not count:
            raise CaptionError(
                f"no usable caption in {self.spec}: {self.skipped if self.skipped.counts else 'it is empty'}"
            )


def captions_in(value: Any, skipped: Skipped, position: str) -> Iterator[str]:
    """Yields the usable captions of a record's value, a text or a list (COCO has five per image). See `Source.rows`."""
    for text in value if isinstance(value, list | tuple) else (value,):
        if isinstance(text, Malformed):
            skipped.add(text.reason, position, text.count)
            continue
        if not isinstance(text, str):
            skipped.add("not text", position)
            continue
        caption = _LINE_END.sub(" ", text).strip()
        try:
            size = len(caption.encode("utf-8"))
        except UnicodeEncodeError:
            skipped.add("not UTF-8", position)
            continue
        if not size:
            skipped.add("empty caption", position)
        elif size > MAX_CAPTION_BYTES:
            skipped.add(LONG_CAPTION, position)
        else:
            yield caption


SOURCES: dict[str, type[Source]] = {}  # KIND of a spec → class

Kind = TypeVar("Kind", bound=type[Source])


def register_source(prefix: str, form: str) -> Callable[[Kind], Kind]:
    """Class decorator that registers a kind of caption source, with specs `PREFIX:…`.

    form: the rest of its specs, for messages, such as "PATH:COLUMN". Raises ConfigError, see `register_class`.
    """

    def register(kind: Kind) -> Kind:
        kind.form = f"{prefix}:{form}"
        register_class(SOURCES, "caption source", prefix, kind)
        return kind

    return register
