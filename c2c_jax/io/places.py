"""Whether files can be written to the places that a command names, asked before any long work."""

import os
from collections.abc import Iterable
from pathlib import Path

from c2c_jax.errors import ConfigError
from c2c_jax.io.atomic import sweep_once
from c2c_jax.io.files import found_at, is_regular

MAX_NAME, MAX_PATH = 255, 4000  # bytes that usual file systems take


def require_file_place(path: Path, role: str, inputs: Iterable[Path] = ()) -> None:
    """Raises ConfigError, in one line, where a regular file cannot be written at `path`, or where it would replace one
    of the files that are read.

    role: how messages begin, such as "--out". inputs: the files that are read.
    """
    _require_names(path, role)
    found = found_at(path)
    if found == "a folder":
        raise ConfigError(f"{role} {path} is a folder: pass a file in it")
    if found not in ("a file", "no file", "a link to nothing"):
        raise ConfigError(f"{role} {path} is {found}: pass a regular file")
    if found == "a file" and any(_is_same(path, one) for one in inputs):
        raise ConfigError(f"{role} {path} is one of the files that are read: pass another file")
    _require_parent(Path(os.path.realpath(path)).parent, role)


def require_folder_place(path: Path, role: str) -> None:
    """Raises ConfigError, in one line, where files cannot be written into the folder `path`, which may be missing."""
    _require_names(path, role)
    if (found := found_at(path)) not in ("a folder", "no file"):
        raise ConfigError(f"{role} {path} is {found}: pass a folder")
    _require_parent(path, role)


def require_replaceable_folder(path: Path, role: str) -> None:
    """As `require_folder_place`, for a folder that is put in place as a whole: it may not hold the folder in which the
    command runs."""
    require_folder_place(path, role)
    sweep_once(Path(os.path.realpath(path)).parent)
    if Path.cwd().is_relative_to(os.path.realpath(path)):
        raise ConfigError(f"{role} {path} holds the folder in which this command runs: pass another folder")


def _require_parent(folder: Path, role: str) -> None:
    """Raises ConfigError unless `folder` may be written to, or, where it is missing, be made."""
    above = Path(os.path.abspath(folder))
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        raise ConfigError(f"{role}: {above} is {found_at(above)}, not a folder: pass another path")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"{role}: the folder {above} is not writable: pass another path")
    sweep_once(above)  # of what an interrupted start has left


def _require_names(path: Path, role: str) -> None:
    """Raises ConfigError for a path with a name that no file system takes."""
    if "\0" in str(path):
        raise ConfigError(f"{role} {path} contains a NUL character: pass another path")
    if len(os.fsencode(path)) > MAX_PATH:
        raise ConfigError(f"{role} is a path of {len(os.fsencode(path)):,} bytes: pass one of at most {MAX_PATH:,}")
    if path.parts and path.parts[0].startswith("~"):
        raise ConfigError(f"{role} {path}: unknown user {path.parts[0][1:]}; write ./{path} for a file of that name")
    for name in path.parts:
        if (size := len(os.fsencode(name))) > MAX_NAME:
            raise ConfigError(f"{role}: the name {name} takes {size} bytes, {MAX_NAME} are allowed: pass another path")


def _is_same(one: Path, other: Path) -> bool:
    return is_regular(other) and os.path.samefile(one, other)
