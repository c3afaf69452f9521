"""Checks that output files and folders can be written, made before any long work starts."""

import os
from collections.abc import Iterable
from pathlib import Path

from c2c_jax.errors import ConfigError
from c2c_jax.io import system
from c2c_jax.io.atomic import sweep_once, temporary_folder
from c2c_jax.io.files import describe_path, is_regular
from c2c_jax.io.names import windows_name_fault

MAX_NAME, MAX_PATH = 255, 4000  # bytes that common file systems allow

_tried: set[tuple[Path, int]] = set()  # pairs of folder and length of name for which a test file was written


def require_output_file(path: Path, role: str, inputs: Iterable[Path] = ()) -> None:
    """Raises ConfigError if a regular file cannot be written at `path`, or if it would replace one of the inputs.

    role: how messages begin, such as "--out". inputs: files that the command reads.
    """
    _require_names(path, role)
    kind = describe_path(path)
    if kind == "a folder":
        raise ConfigError(f"{role} {path} is a folder: pass a file in it")
    if kind not in ("a file", "no file", "a broken symbolic link"):
        raise ConfigError(f"{role} {path} is {kind}: pass a regular file")
    if kind == "a file" and any(is_regular(source) and os.path.samefile(path, source) for source in inputs):
        raise ConfigError(f"{role} {path} is one of the inputs: pass another file")
    _require_parent(Path(os.path.realpath(path)).parent, role, path.name)


def require_output_folder(path: Path, role: str) -> None:
    """Raises ConfigError if files cannot be written into the folder `path`, which may be missing."""
    _require_names(path, role)
    if (kind := describe_path(path)) not in ("a folder", "no file"):
        raise ConfigError(f"{role} {path} is {kind}: pass a folder")
    _require_parent(path, role)


def require_replaceable_folder(path: Path, role: str) -> None:
    """Same as `require_output_folder`, for a folder that is replaced as a whole: it may not contain the current
    folder."""
    require_output_folder(path, role)
    sweep_once(Path(os.path.realpath(path)).parent)
    if Path.cwd().is_relative_to(os.path.realpath(path)):
        raise ConfigError(f"{role} {path} contains the current directory: pass another folder")


def _require_parent(folder: Path, role: str, name: str = "file") -> None:
    """Raises ConfigError unless a file of that name can be written in `folder`, which may be missing."""
    existing = Path(os.path.abspath(folder))
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigError(f"{role}: {existing} is {describe_path(existing)}, not a folder: pass another path")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{role}: the folder {existing} is not writable: pass another path")
    sweep_once(existing)  # removes what an interrupted command left
    # On Windows, os.access ignores permissions, and the whole path may be too long, so a file is written as a test.
    if system.IS_WINDOWS and (existing, len(name)) not in _tried:
        try:
            with temporary_folder(existing) as temporary:
                (temporary / name).touch()
        except OSError as error:
            raise ConfigError(
                f"{role}: {existing / name} cannot be written ({error.strerror}): pass another path"
            ) from None
        _tried.add((existing, len(name)))


def _require_names(path: Path, role: str) -> None:
    """Raises ConfigError for a path that no file system allows, or on Windows for a name that Windows does not."""
    if "\0" in str(path):
        raise ConfigError(f"{role} {path} contains a NUL character: pass another path")
    if len(os.fsencode(path)) > MAX_PATH:
        raise ConfigError(f"{role} is a path of {len(os.fsencode(path)):,} bytes: pass one of at most {MAX_PATH:,}")
    if path.parts and path.parts[0].startswith("~"):
        raise ConfigError(f"{role} {path}: unknown user {path.parts[0][1:]}; write ./{path} for a file of that name")
    for name in path.parts:
        if (size := len(os.fsencode(name))) > MAX_NAME:
            raise ConfigError(f"{role}: the name {name} takes {size} bytes, {MAX_NAME} are allowed: pass another path")
        if system.IS_WINDOWS and name != path.anchor and (fault := windows_name_fault(name)):
            raise ConfigError(f"{role}: the name {name} {fault}: pass another path")
