"""Which files are read: regular ones alone, so that a pipe or a device never makes a reader wait for ever."""

import errno
import hashlib
import os
import stat
import urllib.parse
from collections.abc import Iterator
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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(folder: Path, others: bool = False) -> Iterator[Path]:
    """All regular files in a folder and the folders inside it, sorted by path. Links are followed, each folder is
    entered once, and names that begin with a dot are skipped. others: also what cannot be read: pipes, devices, links
    to nothing, and folders that may not be entered."""
    return (path for path in sorted(_walk(folder, set())) if others or is_regular(path))


def _walk(folder: Path, entered: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in entered:
            return
        entered.add((status.st_dev, status.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # a folder that may not be read, or that went away
        yield folder
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link to itself
            is_folder = False
        if is_folder:
            yield from _walk(path, entered)
        else:
            yield path


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except (OSError, ValueError):
        return False
