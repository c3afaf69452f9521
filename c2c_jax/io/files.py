"""Which files are read: regular ones alone, so that a pipe or a device never makes a reader wait for ever."""

import contextlib
import errno
import fnmatch
import glob
import hashlib
import os
import re
import stat
import urllib.parse
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path

from c2c_jax.errors import C2CError
from c2c_jax.io.console import printable

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


NAME_PREFIX = "file:"  # of a name that is written down as percent-encoded bytes


def user_path(text: str) -> Path:
    """A path as it was typed, `~` and `~user` expanded as shells expand them: an unknown user's stays as it is."""
    return Path(os.path.expanduser(text))


def text_of(path: Path) -> str:
    """A path as text that any file can hold; `path_of` gives the path again. A path that is not UTF-8 becomes `file:`
    and its bytes percent-encoded."""
    text = str(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return NAME_PREFIX + urllib.parse.quote_from_bytes(os.fsencode(path))
    return NAME_PREFIX + urllib.parse.quote(text) if text.startswith(NAME_PREFIX) else text


def path_of(text: str) -> Path:
    """The path that `text_of` wrote down."""
    if not text.startswith(NAME_PREFIX):
        return Path(text)
    return Path(os.fsdecode(urllib.parse.unquote_to_bytes(text.removeprefix(NAME_PREFIX))))


def found_at(path: Path) -> str:
    """What is at a path, in words: "a file", "a folder", "a named pipe", "no file"."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return "a link to nothing" if _is_link(path) else "no file"
    return KINDS.get(stat.S_IFMT(mode), "a file")


def is_regular(path: Path) -> bool:
    """Whether there is a regular file at a path, links followed; never raises."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_there(path: Path) -> bool:
    """Whether anything exists at a path, even if it cannot be read (its reader then reports that). For optional
    files."""
    return os.path.lexists(path)


def local_path(name: str | Path, error: type[C2CError]) -> Path:
    """A name as a path, `~` and `~user` expanded. Raises `error` for a user that does not exist, and for a name that no
    file can have."""
    try:
        path = Path(name).expanduser()
        os.lstat(path)
    except FileNotFoundError:
        return path
    except RuntimeError:
        raise error(f"{printable(name)}: unknown user; write the home folder in full") from None
    except ValueError:
        raise error(f"{printable(name)} is not a name that a file can have; pass another") from None
    except OSError as cause:
        if cause.errno == errno.ENAMETOOLONG:
            raise error(f"{printable(str(name)[:60])}… is too long for a file's name; pass another") from None
    return path


def open_regular(path: Path, expected: str, error: type[C2CError], advice: str) -> BufferedReader:
    """A regular file, opened for reading bytes.

    expected: what should be there, in words ("a sound file"). Raises `error` in one line, `advice` at its end, for a
    path with anything else, or with nothing.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise error(f"expected {expected} at {path}, found {found_at(path)}; {advice}")
        # What was a file may be a pipe by now: that one is opened without waiting, and then refused.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        file = os.fdopen(descriptor, "rb")
    except FileNotFoundError:
        raise error(f"expected {expected} at {path}, found {found_at(path)}; {advice}") from None
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise error(f"{path} cannot be read ({reason}); {advice}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise error(f"expected {expected} at {path}, found {found_at(path)}; {advice}")
    return file


def stand_in(head: bytes) -> str:
    """What a file is that often stands in another one's place, by its first bytes, in words that follow its name: an
    empty one, a pointer of Git LFS, a web page, the zeros of a partial download; "" for all else."""
    if not head:
        return "is empty"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS and not the file itself: run `git lfs pull` there"
    if re.match(rb"\s*<(?:!doctype html|html)", head, re.IGNORECASE):
        return "is a web page"
    if head.lstrip().startswith(b"<?xml"):
        return "is an XML document"
    if len(head) > 7 and not head.strip(b"\0"):
        return "begins with zeros only, like a partial download"
    return ""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(*folders: Path, others: bool = False) -> Iterator[Path]:
    """All regular files in folders and the folders inside them, sorted by path. Links are followed, each folder is
    entered once, and names that begin with a dot are skipped. others: also what cannot be read: pipes, devices, links
    to nothing, and folders that may not be entered. What is given and is no folder is taken as it is."""
    found = (path for path, is_entered in _walk(folders) if not is_entered)
    return (path for path in sorted(found) if others or is_regular(path))


def matching(pattern: str) -> Iterator[Path]:
    """What there is of a pattern's kind, as shells match it: `*`, `?` and `[…]` within a name, but not the dot that
    hides one, `**` any number of folders, at the end all that `walk` finds in them. For each part of the pattern a
    folder is entered once."""
    first, *parts = Path(pattern).parts or ("",)
    start, parts = (Path(first), parts) if os.path.isabs(first) else (Path(), [first, *parts])
    places = [start]
    for part in parts[:-1]:
        places = list(_matching(places, part, is_last=False))
    found = _matching(places, parts[-1], is_last=True) if parts else iter(places)
    return filter(os.path.isdir, found) if pattern.endswith(os.sep) else found


def _matching(places: Iterable[Path], part: str, is_last: bool) -> Iterator[Path]:
    """The paths of one part of a pattern more."""
    entered: set[tuple[int, int]] = set()
    if part == "**":
        yield from (path for path, is_entered in _walk(places) if is_entered != is_last)
    elif glob.has_magic(part):
        for place in places:
            with contextlib.suppress(OSError):
                for name, _ in _names_in(place, entered) or ():
                    if fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith(".")):
                        yield place / name
    else:
        yield from (place / part for place in places if os.path.lexists(place / part))


def _walk(places: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Each path with whether it is a folder that was entered. Goes by name, so that a folder behind several names is
    entered under the first."""
    entered: set[tuple[int, int]] = set()
    ahead = [(place, os.path.isdir(place)) for place in places][::-1]
    while ahead:
        path, is_folder = ahead.pop()
        try:
            names = _names_in(path, entered) if is_folder else None
        except OSError:  # a folder that may not be read, or that went away
            names, is_folder = None, False
        if names is not None:
            ahead += [(path / name, is_inner) for name, is_inner in reversed(names) if not name.startswith(".")]
        if names is not None or not is_folder:
            yield path, is_folder


def _names_in(folder: Path, entered: set[tuple[int, int]]) -> list[tuple[str, bool]] | None:
    """The names in a folder, sorted, each with whether it is a folder's; None where the folder was entered before.
    Raises OSError."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in entered:
        return None
    entered.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        return sorted((entry.name, _is_folder(entry)) for entry in entries)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except (OSError, ValueError):
        return False
