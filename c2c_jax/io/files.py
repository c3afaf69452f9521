"""Finds and opens regular files only, so that no reader waits forever for a pipe or a device."""

import errno
import glob
import hashlib
import os
import re
import stat
import urllib.parse
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePath

from c2c_jax.errors import C2CError
from c2c_jax.io.text import printable

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
SEPARATORS = os.sep + (os.altsep or "")  # between folders in a path that a user types
ENCODED_PREFIX = "file:"  # begins a path that is stored as percent-encoded bytes


def user_path(text: str) -> Path:
    """Expands `~` and `~user` as shells do: a path with an unknown user is left unchanged."""
    return Path(os.path.expanduser(text))


def path_to_text(path: PurePath) -> str:
    """Converts a path to UTF-8 text with slashes on every system; `text_to_path` inverts it. A path that is not UTF-8,
    or that has a backslash in a name, becomes `file:` and its percent-encoded bytes."""
    text = path.as_posix()
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return ENCODED_PREFIX + urllib.parse.quote_from_bytes(os.fsencode(text))
    needs_quotes = text.startswith(ENCODED_PREFIX) or "\\" in text
    return ENCODED_PREFIX + urllib.parse.quote(text) if needs_quotes else text


def text_to_path(text: str) -> Path:
    """Converts a text made by `path_to_text`, on any system, back to the path. Backslashes, as in texts from elsewhere,
    separate folders too."""
    if not text.startswith(ENCODED_PREFIX):
        return Path(text.replace("\\", "/"))
    encoded = urllib.parse.unquote_to_bytes(text.removeprefix(ENCODED_PREFIX))
    try:
        return Path(os.fsdecode(encoded))
    except UnicodeDecodeError:  # on Windows, for a name from POSIX that is not UTF-8
        return Path(encoded.decode("utf-8", "surrogateescape"))


def stored_path(text: str, folder: Path = Path()) -> Path:  # noqa: B008
    """Converts a path that was stored as text on any system, relative to `folder`. If nothing exists at it, its
    backslashes are taken as folder separators."""
    path = folder / text
    return path if path_exists(path) or "\\" not in text else folder / text.replace("\\", "/")


def describe_path(path: Path) -> str:
    """Says what is at a path: "a file", "a folder", "a named pipe", "a device", "a broken symbolic link", "no file"."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return "a broken symbolic link" if _is_link(path) else "no file"
    return KINDS.get(stat.S_IFMT(mode), "a file")


def is_regular(path: Path) -> bool:
    """Whether a path is a regular file, or a link to one. Never raises."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def path_exists(path: Path) -> bool:
    """Whether an optional file exists, even if it cannot be read: its reader then reports that."""
    return os.path.lexists(path)


def is_array(path: Path) -> bool:
    """Whether a path ends in .npy and is not a folder."""
    return path.suffix.lower() == ".npy" and not path.is_dir()


def local_path(name: str | Path, error: type[C2CError]) -> Path:
    """Converts a name to a path and expands `~` and `~user`; see also `stored_path`. Raises `error` for an unknown user
    and for a name that no file can have."""
    try:
        path = Path(name).expanduser()
        os.lstat(path)
    except FileNotFoundError:
        return stored_path(str(path))
    except RuntimeError:
        raise error(f"{printable(name)}: unknown user; write the home folder in full") from None
    except ValueError:
        raise error(f"{printable(name)} is not a valid file name; pass another") from None
    except OSError as cause:
        if cause.errno == errno.ENAMETOOLONG:
            raise error(f"{printable(str(name)[:60])}… is too long for a file name; pass another") from None
    return path


def open_regular(path: Path, expected: str, error: type[C2CError], advice: str) -> BufferedReader:
    """Opens a regular file for reading bytes.

    expected: what the file should be, for messages ("a sound file"). Raises `error`, with `advice` at the end of the
    message, if the file is missing, not regular or not readable.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise error(f"expected {expected} at {path}, found {describe_path(path)}; {advice}")
        # If a pipe has replaced the file by now, this opens it without waiting; it is refused below.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        file = os.fdopen(descriptor, "rb")
    except FileNotFoundError:
        raise error(f"expected {expected} at {path}, found {describe_path(path)}; {advice}") from None
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise error(f"{path} cannot be read ({reason}); {advice}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise error(f"expected {expected} at {path}, found {describe_path(path)}; {advice}")
    return file


def describe_placeholder(head: bytes) -> str:
    """Recognises content that often replaces the expected file, by its first bytes.

    Returns words that follow the file's name for an empty file, a Git LFS pointer, a web page, an XML document or the
    zeros of a partial download, else "".
    """
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
    """Returns the SHA-256 of a file in hex. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(*folders: Path, include_unreadable: bool = False) -> Iterator[Path]:
    """Yields all regular files in folders and their subfolders, sorted by path.

    Follows links, enters each folder once, and skips names that begin with a dot. Paths that are not folders are
    yielded too. include_unreadable: also yields pipes, devices, broken links and folders without access.
    """
    paths = [path for path in folders if not os.path.isdir(path)]
    pending = [path for path in reversed(folders) if os.path.isdir(path)]
    entered: set[object] = set()
    while pending:
        folder = pending.pop()
        try:
            status = os.stat(folder)
            # Some drives on Windows do not number files.
            identity = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)
            if identity in entered:
                continue
            entered.add(identity)
            with os.scandir(folder) as entries:
                inside = sorted((entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith("."))
        except OSError:  # not readable, or removed meanwhile
            paths.append(folder)
            continue
        pending += [folder / name for name, is_folder in reversed(inside) if is_folder]
        paths += [folder / name for name, is_folder in inside if not is_folder]
    return (path for path in sorted(paths) if include_unreadable or is_regular(path))


def glob_paths(pattern: str) -> Iterator[Path]:
    """Yields the paths that match a shell pattern.

    If the pattern contains `**` (any number of folders), only files are yielded; a folder that matches stands for all
    files in it.
    """
    start, deep, rest = pattern.partition("**")
    if not deep:
        yield from map(Path, glob.iglob(pattern))
        return
    for folder in map(Path, glob.iglob(start) if start else [""]):
        for path in walk(folder, include_unreadable=True):
            inside = path.relative_to(folder)
            if any(part.match(rest.strip(SEPARATORS) or "*") for part in (inside, *inside.parents)):
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
