"""Which files are read: regular ones alone, so that a pipe or a device never makes a reader wait for ever."""

import errno
import glob
import hashlib
import os
import re
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


def is_array(path: Path) -> bool:
    """Whether a path names an .npy file of vectors, and not a folder."""
    return path.suffix.lower() == ".npy" and not path.is_dir()


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
    """All regular files in folders and the folders inside them, sorted by path.

    Links are followed, each folder is entered once, and names that begin with a dot are skipped. A path that is not a
    folder stands for itself. others: also yields what cannot be read: pipes, devices, links to nothing, and folders
    without access.
    """
    found = [path for path in folders if not os.path.isdir(path)]
    ahead = [path for path in reversed(folders) if os.path.isdir(path)]
    entered: set[tuple[int, int]] = set()
    while ahead:
        folder = ahead.pop()
        try:
            status = os.stat(folder)
            if (place := (status.st_dev, status.st_ino)) in entered:
                continue
            entered.add(place)
            with os.scandir(folder) as entries:
                inside = sorted((entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith("."))
        except OSError:  # it may not be read, or went away
            found.append(folder)
            continue
        ahead += [folder / name for name, is_folder in reversed(inside) if is_folder]
        found += [folder / name for name, is_folder in inside if not is_folder]
    return (path for path in sorted(found) if others or is_regular(path))


def matching(pattern: str) -> Iterator[Path]:
    """What matches a pattern of names, as in shells. Behind the first `**`, which stands for any number of folders,
    only files are given; a folder that matches there stands for all files in it."""
    start, deep, rest = pattern.partition("**")
    if not deep:
        yield from map(Path, glob.iglob(pattern))
        return
    for folder in map(Path, glob.iglob(start) if start else [""]):
        for path in walk(folder, others=True):
            inside = path.relative_to(folder)
            if any(one.match(rest.strip(os.sep) or "*") for one in (inside, *inside.parents)):
                yield path


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
