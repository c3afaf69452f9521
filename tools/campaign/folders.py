"""Tests folders of images and sounds with one odd entry: strange names, loops, deep nesting, pipes, unreadable files.

Readable files must be read, whatever their names. All others must be reported, or the command must end with an error.
"""

import contextlib
import dataclasses
import functools
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tools.campaign.cases import Case, Context, Outcome
from tools.campaign.directed import bind_socket
from tools.campaign.inputs import CLAP
from tools.campaign.process import Limits, run_verb
from tools.campaign.readers import Reader, Results
from tools.campaign.steps import drop_privileges
from tools.campaign.verdicts import Change, judge, original, read

DEPTH = 1400  # nested folders, beyond Python's recursion limit; a path of 2,800 characters
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
NAMES = {
    "newline": b"a\nb", "tab": b"a\tb", "escape": b"\x1b[31mred\x07", "latin-1": b"caf\xe9", "long": b"x" * 245,
    "dash": b"--out", "brackets": b"[a]*?", "prefix": b"file:%41", "wide": "犬 🐕".encode(),
    "right-to-left": b"\xe2\x80\xaegnp",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """An odd folder entry.

    make: creates it in a folder, given a valid file to copy. expected: the name that must be read or reported, "" if
    none. argument: format of the command-line argument for the folder.
    """

    key: str
    how: str
    make: Callable[[Path, Path], object]
    expected: bytes = b""
    argument: str = "{}"


def odd_entries(suffix: str) -> list[Entry]:
    """Returns all odd entries. suffix: of the files to read."""
    x = f"x{suffix}"

    def at(make: Callable[[Path], object]) -> Callable[[Path, Path], object]:
        return lambda folder, _: make(folder / x)

    def copied(name: bytes, mode: int = 0o644) -> Callable[[Path, Path], object]:
        def make(folder: Path, intact: Path) -> None:
            path = folder / os.fsdecode(name)
            path.parent.mkdir(exist_ok=True)
            shutil.copy2(intact, path)
            path.chmod(mode)

        return make

    def locked(folder: Path, intact: Path) -> None:
        copied(f"locked/{x}".encode())(folder, intact)
        (folder / "locked").chmod(0)

    def loops(folder: Path, _: Path) -> None:
        for name in ("one", "two"):
            (folder / name).symlink_to(".", target_is_directory=True)

    def deep(folder: Path, intact: Path) -> None:
        for _ in range(DEPTH):
            folder = folder / "d"
            folder.mkdir()
        shutil.copy2(intact, folder / x)

    named = {key: name + suffix.encode() for key, name in NAMES.items()} | {"folder": f"a\n\x1bb/{x}".encode()}
    name = x.encode()
    return [
        *(Entry(key=key, how=f"a name of {key}", make=copied(name), expected=name) for key, name in named.items()),
        Entry(key="up", how="a path with ..", make=lambda *_: None, argument="../folder/{}"),
        Entry(
            key="dangling",
            how="a broken symbolic link",
            make=at(lambda path: path.symlink_to("nowhere")),
            expected=name,
        ),
        Entry(key="itself", how="a link to itself", make=at(lambda path: path.symlink_to(path.name)), expected=name),
        Entry(key="pipe", how="a named pipe", make=at(os.mkfifo), expected=name),
        Entry(key="device", how="a link to /dev/zero", make=at(lambda x: x.symlink_to("/dev/zero")), expected=name),
        Entry(key="socket", how="a socket", make=at(bind_socket), expected=name),
        Entry(key="empty", how="an empty file", make=at(Path.touch), expected=name),
        Entry(key="file", how="an unreadable file", make=copied(name, 0), expected=name),
        Entry(key="locked", how="an unreadable folder", make=locked, expected=b"locked/" + name),
        Entry(key="within", how="a folder with a file's name", make=at(Path.mkdir)),
        Entry(key="loops", how="two links to the folder itself", make=loops),
        Entry(key="pattern", how="the pattern ** over loops", make=loops, argument="{}/**"),
        Entry(key="deep", how=f"{DEPTH:,} nested folders", make=deep, expected=b"d/" * DEPTH + name),
    ]


def _relative_name(path: Path, folder: str) -> str:
    from c2c_jax.io.console import printable

    return printable(path.resolve().relative_to(Path(folder).resolve()))


def _photos(argument: str = "photos") -> Results:
    from c2c_jax.errors import ImageError
    from c2c_jax.io.console import stderr_console
    from c2c_jax.io.images import find_images, read_image

    pixels = {}
    for path in find_images([argument]):
        try:
            pixels[_relative_name(path, "photos")] = np.asarray(read_image(path))
        except ImageError as error:
            stderr_console().print(str(error))
    return pixels


def _vectors(argument: str = "photos") -> Results:
    """Encodes the images; results are numbered, as all images, and so all vectors, are equal."""
    if code := run_verb(["infer", argument, "--save-embedding", "vectors.npy"]):
        raise SystemExit(code)
    return {str(number): vector for number, vector in enumerate(np.load("vectors.npy"))}


def _noises(argument: str = "noises") -> Results:
    from c2c_jax.io.files import text_to_path

    argv = ["search", "--text", "a dog barks", "--library", argument, "--index", "index", "--clap", CLAP, "--json"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = run_verb(argv)
    if code:
        raise SystemExit(code)
    sounds = json.loads(out.getvalue())["queries"][0]["sounds"]
    return {_relative_name(text_to_path(match["file"]), "noises"): np.array([match["score"]]) for match in sounds}


FOLDERS: dict[str, Reader] = {
    name: Reader(
        name=name, files=(f"{folder}/*",), needs=(folder,), probe=probe, rule="checked",
        limits=Limits() if name == "photos" else Limits(cpu=30, idle=60),
    )
    for name, folder, probe in (
        ("photos", "photos", _photos), ("photos-infer", "photos", _vectors), ("noises", "noises", _noises)
    )
}  # fmt: skip


def cases(context: Context, names: Sequence[str], count: int, seed: int) -> list[Case]:
    """Returns a case for each reader and odd entry."""
    return [
        Case(
            key=f"folders-{name}-{entry.key}", kind="folders", group=name, how=entry.how,
            run=functools.partial(run_odd_entry, FOLDERS[name], entry),
        )
        for name in names
        for entry in odd_entries(".wav" if name == "noises" else ".png")
        if entry.key != "pattern" or name == "photos"  # a library is a folder, and repeated files have repeated vectors
    ]  # fmt: skip


def run_odd_entry(reader: Reader, entry: Entry, context: Context, place: Path) -> Outcome:
    """Runs a reader on its folder with an odd entry."""
    intact = original(reader, context)
    folder = reader.prepare(context.inputs, place / "folder")
    inside = folder / reader.needs[0]

    def probe() -> Results:
        drop_privileges()
        return reader.probe(entry.argument.format(inside.name))  # type: ignore[call-arg]

    probed = dataclasses.replace(reader, probe=probe)
    try:
        entry.make(inside, min(inside.iterdir()))
        ended = read(probed, folder, place / "log")
    finally:
        for path in inside.glob("locked"):
            path.chmod(0o755)
        subprocess.run(["rm", "-rf", str(inside / "d")], check=True)  # deeper than shutil.rmtree can go
    if entry.expected:
        from c2c_jax.io.console import printable

        first = next(iter(intact.result.values()))
        name = str(len(intact.result)) if reader.name == "photos-infer" else printable(os.fsdecode(entry.expected))
        intact = dataclasses.replace(intact, result=intact.result | {name: first})
    if CONTROLS.search(ended.err):
        return Outcome(verdict="escape", what=repr(ended.err[-500:]), cpu=ended.cpu)
    return judge(probed, intact, ended, folder, Change(b"", b"", is_strict=True))
