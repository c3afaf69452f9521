"""Flags that several commands share, and checks of the files that flags name.

The checks run before JAX and torch are imported, so that a typo fails at once. Whether a file is readable is
checked later, by its reader.
"""

import argparse
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from c2c_jax import errors
from c2c_jax.errors import C2CError
from c2c_jax.io.files import describe_path, glob_paths, is_regular, local_path, path_exists, user_path
from c2c_jax.io.json import read_json_as
from c2c_jax.io.names import split_name

MAX_SEED = 2**63 - 1


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds the positional argument RUN, which names a translator."""
    parser.add_argument(
        "run",
        type=user_path,
        metavar="RUN",
        help="the translator: the work directory of a training run, a bundle folder, or a hub name",
    )


def add_checkpoints(parser: argparse.ArgumentParser, clap: bool = True) -> argparse._ArgumentGroup:
    """Adds --clip and --clap in an argument group, and returns the group."""
    where = parser.add_argument_group("checkpoints and data")
    where.add_argument("--clip", metavar="NAME", help="CLIP checkpoint (default: as recorded in the bundle)")
    if clap:
        where.add_argument(
            "--clap",
            metavar="NAME",
            help="CLAP checkpoint with its audio tower: hub name, folder or file (default: as recorded in the bundle)",
        )
    return where


def require_range(args: argparse.Namespace, name: str, minimum: int, maximum: int | None = None) -> None:
    """Raises ConfigError if a flag's number is out of bounds."""
    value = getattr(args, name.replace("-", "_"))
    if value is not None and not (minimum <= value and (maximum is None or value <= maximum)):
        bounds = f"{minimum} or more" if maximum is None else f"from {minimum} to {maximum:,}"
        raise errors.ConfigError(f"--{name} must be {bounds}, found {value}")


def require_images(arguments: Sequence[str | Path]) -> None:
    """Raises ImageError if none of the images, folders and patterns exists. If some exist, the others are skipped."""
    if arguments and not any(map(_is_there, arguments)):
        first = Path(arguments[0])
        if glob.has_magic(str(first)):
            raise errors.ImageError(
                f"no image matches the pattern {first}: pass image files, folders or another pattern"
            )
        raise errors.ImageError(
            f"expected an image at {first}, found {describe_path(first)}: pass an image file or a folder"
        )


def require_folder(path: Path | None, what: str, error: type[C2CError] = errors.AudioError) -> None:
    """Raises `error` if a path is given and is not a folder. what: describes the expected folder."""
    if path is not None and not path.is_dir():
        found = "no folder" if describe_path(path) == "no file" else describe_path(path)
        raise error(f"expected {what} at {path}, found {found}: pass an existing folder")


def require_path(path: Path | None, what: str, error: type[C2CError] = errors.ManifestError) -> None:
    """Raises `error` if a path is given and is neither a file nor a folder. what: describes what is expected."""
    if path is not None and not (is_regular(path) or path.is_dir()):
        raise error(f"expected {what} at {path}, found {describe_path(path)}: pass another path")


def require_bundle(run: Path) -> dict[str, str]:
    """Reads the names of the source and target checkpoints from the bundle of a run. Raises BundleError without one."""
    from c2c_jax.io.resolve import bundle_folder

    config = read_json_as(dict, bundle_folder(run) / "config.json", errors.BundleError, "make the bundle again")
    sides = {side: config.get(side) for side in ("source", "target")}
    return {side: str(space["name"]) for side, space in sides.items() if isinstance(space, dict) and space.get("name")}


def require_checkpoints(*names: str | None) -> None:
    """Finds each named checkpoint, and downloads it from the hub if necessary. Raises CheckpointError."""
    for name in names:
        if name and not is_regular(local_path(name, errors.CheckpointError)):
            from c2c_jax.spaces.weights.folders import checkpoint_folder

            checkpoint_folder(name)


def require_captions(spec: str) -> None:
    """Raises CaptionError if a file of a caption source is missing, and MissingExtraError if a package that reads it is
    not installed. spec: one or more sources."""
    if len(split_name(spec)) < 2:
        if is_regular(Path(spec)):
            raise errors.CaptionError(f"cannot read captions from {spec}: write txt:{spec} for one caption a line")
        raise errors.CaptionError(
            f"cannot read captions from {spec}: expected a source such as txt:FILE or miniworld:COUNT, or the folder "
            f"of a store, found {describe_path(Path(spec))}"
        )
    from c2c_jax.data.captions import open_sources

    for source in open_sources(spec):
        source.require_packages()
        for place in map(os.path.expanduser, source.places):
            if not _is_there(place):
                raise errors.CaptionError(f"cannot read captions from {place}: no such file; pass another path")


def require_store(path: Path | None) -> None:
    """Raises StoreError if a path is given and is not an embedding store, finished or unfinished."""
    if path is None:
        return
    files = [path / name for name in ("manifest.json", "plan.json")]
    if odd := next((file for file in files if path_exists(file) and not is_regular(file)), None):
        raise errors.StoreError(f"{odd} is {describe_path(odd)}, not a file: pass the folder of a store")
    if not any(map(is_regular, files)):
        raise errors.StoreError(
            f"{path} is not an embedding store (found {describe_path(path)}): pass a folder that c2c embed wrote"
        )


def _is_there(name: str | Path) -> bool:
    return os.path.exists(name) or (glob.has_magic(str(name)) and any(True for _ in glob_paths(str(name))))
