"""Folders of pictures and sounds with one odd entry: strange names, loops, depths, pipes, unreadable files.

Readable files must be read, whatever their names; for all others a line must say so, or the verb must refuse.
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
from tools.campaign.process import Limits, verb
from tools.campaign.readers import Reader, Results
from tools.campaign.steps import without_privileges
from tools.campaign.verdicts import Change, judge, original, read

DEPTH = 1400  # nested folders: more than Python's recursion limit, and a path of 2,800 characters
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
NAMES = {
    "newline": b"a\nb", "tab": b"a\tb", "escape": b"\x1b[31mred\x07", "latin-1": b"caf\xe9", "long": b"x" * 245,
    "dash": b"--out", "brackets": b"[a]*?", "prefix": b"file:%41", "wide": "犬 🐕".encode(),
    "right-to-left": b"\xe2\x80\xaegnp",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Odd:
    """make: puts the entry into a folder, given a whole file to copy. found: the name that must be read or reported, ""
    if none. argument: how the folder is named."""

    key: str
    how: str
    make: Callable[[Path, Path], object]
    found: bytes = b""
    argument: str = "{}"


def odd_entries(suffix: str) -> list[Odd]:
    """suffix: of the files that are read."""
    x = f"x{suffix}"

    def at(make: Callable[[Path], object]) -> Callable[[Path, Path], object]:
        return lambda folder, _: make(folder / x)

    def copied(name: bytes, mode: int = 0o644) -> Callable[[Path, Path], object]:
        def make(folder: Path, whole: Path) -> None:
            path = folder / os.fsdecode(name)
            path.parent.mkdir(exist_ok=True)
            shutil.copy2(whole, path)
            path.chmod(mode)

        return make

    def locked(folder: Path, whole: Path) -> None:
        copied(f"locked/{x}".encode())(folder, whole)
        (folder / "locked").chmod(0)

    def loops(folder: Path, _: Path) -> None:
        for name in ("one", "two"):
            (folder / name).symlink_to(".", target_is_directory=True)

    def deep(folder: Path, whole: Path) -> None:
        for _ in range(DEPTH):
            folder = folder / "d"
            folder.mkdir()
        shutil.copy2(whole, folder / x)

    named = {key: name + suffix.encode() for key, name in NAMES.items()} | {"folder": f"a\n\x1bb/{x}".encode()}
    there = x.encode()
    return [
        *(Odd(key=key, how=f"a name of {key}", make=copied(name), found=name) for key, name in named.items()),
        Odd(key="up", how="a path with ..", make=lambda *_: None, argument="../folder/{}"),
        Odd(key="dangling", how="a link to nothing", make=at(lambda path: path.symlink_to("nowhere")), found=there),
        Odd(key="itself", how="a link to itself", make=at(lambda path: path.symlink_to(path.name)), found=there),
        Odd(key="pipe", how="a named pipe", make=at(os.mkfifo), found=there),
        Odd(key="device", how="a link to /dev/zero", make=at(lambda path: path.symlink_to("/dev/zero")), found=there),
        Odd(key="socket", how="a socket", make=at(bind_socket), found=there),
        Odd(key="empty", how="an empty file", make=at(Path.touch), found=there),
        Odd(key="file", how="an unreadable file", make=copied(there, 0), found=there),
        Odd(key="locked", how="an unreadable folder", make=locked, found=b"locked/" + there),
        Odd(key="within", how="a folder with a file's name", make=at(Path.mkdir)),
        Odd(key="loops", how="two links to the folder itself", make=loops),
        Odd(key="pattern", how="the pattern ** over loops", make=loops, argument="{}/**"),
        Odd(key="deep", how=f"{DEPTH:,} nested folders", make=deep, found=b"d/" * DEPTH + there),
    ]


def _shown(path: Path, folder: str) -> str:
    from c2c_jax.io.console import printable

    return printable(path.resolve().relative_to(Path(folder).resolve()))


def _photos(argument: str = "photos") -> Results:
    from c2c_jax.errors import ImageError
    from c2c_jax.io.console import stderr_console
    from c2c_jax.io.images import find_images, read_image

    pixels = {}
    for path in find_images([argument], stderr_console().print):
        try:
            pixels[_shown(path, "photos")] = np.asarray(read_image(path))
        except ImageError as error:
            stderr_console().print(str(error))
    return pixels


def _vectors(argument: str = "photos") -> Results:
    """The vectors by number: all are the same, as the pictures are."""
    if code := verb(["infer", argument, "--save-embedding", "vectors.npy"]):
        raise SystemExit(code)
    return {str(number): vector for number, vector in enumerate(np.load("vectors.npy"))}


def _noises(argument: str = "noises") -> Results:
    from c2c_jax.io.files import text_to_path

    argv = ["search", "--text", "a dog barks", "--library", argument, "--index", "index", "--clap", CLAP, "--json"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = verb(argv)
    if code:
        raise SystemExit(code)
    sounds = json.loads(out.getvalue())["queries"][0]["sounds"]
    return {_shown(text_to_path(one["file"]), "noises"): np.array([one["score"]]) for one in sounds}


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
    """Every odd entry in the folder of each reader."""
    return [
        Case(
            key=f"folders-{name}-{odd.key}", kind="folders", group=name, how=odd.how,
            run=functools.partial(tried, FOLDERS[name], odd),
        )
        for name in names
        for odd in odd_entries(".wav" if name == "noises" else ".png")
        if odd.key != "pattern" or name == "photos"  # a library is a folder, and files found twice have two vectors
    ]  # fmt: skip


def tried(reader: Reader, odd: Odd, context: Context, place: Path) -> Outcome:
    """Runs the reader on its folder with an odd entry."""
    whole = original(reader, context)
    folder = reader.prepare(context.inputs, place / "folder")
    inside = folder / reader.needs[0]

    def probe() -> Results:
        without_privileges()
        return reader.probe(odd.argument.format(inside.name))  # type: ignore[call-arg]

    one = dataclasses.replace(reader, probe=probe)
    try:
        odd.make(inside, min(inside.iterdir()))
        ended = read(one, folder, place / "log")
    finally:
        for path in inside.glob("locked"):
            path.chmod(0o755)
        subprocess.run(["rm", "-rf", str(inside / "d")], check=True)  # deeper than shutil.rmtree can go
    if odd.found:
        from c2c_jax.io.console import printable

        first = next(iter(whole.result.values()))
        name = str(len(whole.result)) if reader.name == "photos-infer" else printable(os.fsdecode(odd.found))
        whole = dataclasses.replace(whole, result=whole.result | {name: first})
    if CONTROLS.search(ended.err):
        return Outcome(verdict="escape", what=repr(ended.err[-500:]), cpu=ended.cpu)
    return judge(one, whole, ended, folder, Change(b"", b"", is_strict=True))
