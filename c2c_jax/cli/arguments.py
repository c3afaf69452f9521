"""Flags that several verbs share, and checks of the files that flags name.

The checks run before JAX and torch are imported, so that a typo fails at once. Whether a file can be read is checked
later, by its reader.
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

MAX_SEED = 2**63 - 1


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds RUN, the translator that a verb is about."""
    parser.add_argument(
        "run", type=user_path, metavar="RUN", help="the work directory of a run, a bundle folder, or a hub name"
    )


def add_checkpoints(parser: argparse.ArgumentParser, clap: bool = True) -> argparse._ArgumentGroup:
    """Adds --clip and --clap in a group of their own, which is returned."""
    where = parser.add_argument_group("where things lie")
    where.add_argument("--clip", metavar="NAME", help="the CLIP checkpoint (default: the one the bundle names)")
    if clap:
        where.add_argument(
            "--clap",
            metavar="NAME",
            help="the whole CLAP: hub name, folder or file (default: the one the bundle names)",
        )
    return where


def require_range(args: argparse.Namespace, name: str, least: int, most: int | None = None) -> None:
    """Raises ConfigError where a flag's number is out of bounds."""
    value = getattr(args, name.replace("-", "_"))
    if value is not None and not (least <= value and (most is None or value <= most)):
        bounds = f"{least} or more" if most is None else f"from {least} to {most:,}"
        raise errors.ConfigError(f"--{name} must be {bounds}, found {value}")


def require_images(arguments: Sequence[str | Path]) -> None:
    """Raises ImageError where none of the images, folders and patterns is there: of several the others are used."""
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
    """Raises `error` where a path is given and is not a folder. what: is expected there, in words."""
    if path is not None and not path.is_dir():
        found = "no folder" if describe_path(path) == "no file" else describe_path(path)
        raise error(f"expected {what} at {path}, found {found}: pass an existing folder")


def require_path(path: Path | None, what: str, error: type[C2CError] = errors.ManifestError) -> None:
    """Raises `error` where a path is given and neither a file nor a folder is there."""
    if path is not None and not (is_regular(path) or path.is_dir()):
        raise error(f"expected {what} at {path}, found {describe_path(path)}: pass another path")


def require_bundle(run: Path) -> dict[str, str]:
    """The names of the source and target checkpoints of the bundle that a RUN argument names. Raises BundleError where
    there is none."""
    from c2c_jax.translator.resolve import bundle_folder

    config = read_json_as(dict, bundle_folder(run) / "config.json", errors.BundleError, "make the bundle again")
    sides = {side: config.get(side) for side in ("source", "target")}
    return {side: str(space["name"]) for side, space in sides.items() if isinstance(space, dict) and space.get("name")}


def require_checkpoints(*names: str | None) -> None:
    """Finds every checkpoint that is named, asking the hub for what this machine lacks. Raises CheckpointError."""
    for name in names:
        if name and not is_regular(local_path(name, errors.CheckpointError)):
            from c2c_jax.spaces.weights.folders import checkpoint_folder

            checkpoint_folder(name)


def require_captions(spec: str) -> None:
    """Raises CaptionError where a file of a caption source, or of several, is not there."""
    if ":" not in spec:
        raise errors.CaptionError(
            f"cannot read captions from {spec}: expected a source such as txt:FILE or miniworld:COUNT, or the folder "
            f"of a store, found {describe_path(Path(spec))}"
        )
    from c2c_jax.data.captions import open_sources

    for source in open_sources(spec):
        for place in map(os.path.expanduser, source.places):
            if not _is_there(place):
                raise errors.CaptionError(f"cannot read captions from {place}: nothing is there; pass another path")


def require_store(path: Path | None) -> None:
    """Raises StoreError where a path is given and no embedding store, finished or started, is there."""
    if path is None:
        return
    files = [path / name for name in ("manifest.json", "plan.json")]
    if odd := next((file for file in files if path_exists(file) and not is_regular(file)), None):
        raise errors.StoreError(f"{odd} is {describe_path(odd)}, not a file: pass the folder of a store")
    if not any(map(is_regular, files)):
        raise errors.StoreError(
            f"{path} is not an embedding store (found {describe_path(path)}): pass a folder of c2c embed"
        )


def _is_there(name: str | Path) -> bool:
    return os.path.exists(name) or (glob.has_magic(str(name)) and any(True for _ in glob_paths(str(name))))
