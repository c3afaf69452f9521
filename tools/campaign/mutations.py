"""Tests readers with files damaged at random or deliberately: they must read them correctly, fail with an error, or
report the damage."""

import functools
import random
from collections.abc import Sequence
from pathlib import Path

from tools.campaign import directed
from tools.campaign.cases import Case, Context, Outcome, evenly_spaced
from tools.campaign.directed import DirectedChange
from tools.campaign.readers import READERS, Reader
from tools.campaign.verdicts import Change, judge, original, read

OPERATIONS = {"cut": 4, "flip": 8, "insert": 3, "delete": 3, "duplicate": 3, "zero": 3, "swap": 2, "splice": 2,
              "empty": 1}  # relative frequencies  # fmt: skip


def mutated(data: bytes, other: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Damages a file at random; returns a description and the new content. other: another file, for `splice`."""
    operation = chance.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
    size = len(data)
    start = chance.randrange(max(size, 1))
    if size > 256 and chance.random() < 0.4:  # headers are most sensitive
        start = chance.randrange(256)
    length = min(int(2 ** chance.uniform(0, 12)), size)
    stop = min(start + length, size)
    if operation == "cut":
        return f"cut to {start} of {size} bytes", data[:start]
    if operation == "empty":
        return "emptied", b""
    if operation == "flip":
        changed = bytearray(data)
        for place in (min(start + chance.randrange(64), size - 1) for _ in range(chance.choice((1, 1, 2, 8)))):
            changed[place] ^= 1 << chance.randrange(8)
        return f"bits flipped from {start} on", bytes(changed)
    if operation == "insert":
        return f"{length} bytes inserted at {start}", data[:start] + chance.randbytes(length) + data[start:]
    if operation == "delete":
        return f"bytes {start} to {stop} deleted", data[:start] + data[stop:]
    if operation == "duplicate":
        return f"bytes {start} to {stop} duplicated", data[:stop] + data[start:]
    if operation == "zero":
        return f"bytes {start} to {stop} zeroed", data[:start] + bytes(stop - start) + data[stop:]
    if operation == "swap":
        half = (stop - start) // 2
        middle = data[start + half : start + 2 * half] + data[start : start + half]
        return f"two blocks of {half} bytes at {start} exchanged", data[:start] + middle + data[start + 2 * half :]
    return f"another file's bytes from {start} on", data[:start] + other[start:]


def random_cases(context: Context, names: Sequence[str], count: int, seed: int) -> list[Case]:
    """Returns cases of random damage; readers take turns in proportion to their weights."""
    turns = [READERS[name] for name in names for _ in range(READERS[name].weight)]
    random.Random(f"order {seed}").shuffle(turns)
    return [
        Case(
            key=f"mutations-{seed}-{number}-{reader.name}", kind="mutations", group=reader.name,
            how=f"mutation {number}", run=functools.partial(_run_mutation, reader, seed, number),
        )
        for number in range(count)
        for reader in [turns[number % len(turns)]]
    ]  # fmt: skip


def directed_cases(context: Context, names: Sequence[str], count: int, seed: int) -> list[Case]:
    """Returns cases evenly spaced among `directed.directed_changes`; at most half change fields of JSON, if there are
    enough others."""
    intact: list[tuple[Reader, DirectedChange]] = []
    fields: list[tuple[Reader, DirectedChange]] = []
    for name in names:
        reader = READERS[name]
        original(reader, context)  # creates the intact files
        for change in directed.directed_changes(reader, context.folder / "originals" / name / "folder"):
            (fields if change.is_field else intact).append((reader, change))
    intact = evenly_spaced(intact, count - min(count // 2, len(fields)))
    return [
        Case(
            key=f"directed-{reader.name}-{change.key}", kind="directed", group=reader.name, how=change.how,
            run=functools.partial(_apply_directed, reader, change),
        )
        for reader, change in intact + evenly_spaced(fields, count - len(intact))
    ]  # fmt: skip


def _apply_directed(reader: Reader, change: DirectedChange, context: Context, place: Path) -> Outcome:
    intact = original(reader, context)
    folder = reader.prepare(context.inputs, place / "folder")
    path = folder / change.file
    before = path.read_bytes()
    change.apply(path)
    after = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    ended = read(reader, folder, place / "log")
    return judge(reader, intact, ended, folder, Change(before, after, change.is_strict))


def _run_mutation(reader: Reader, seed: int, number: int, context: Context, place: Path) -> Outcome:
    chance = random.Random(f"mutations {seed} {number}")
    intact = original(reader, context)
    folder = reader.prepare(context.inputs, place / "folder")
    paths = reader.paths(folder)
    path, other = chance.choice(paths), chance.choice(paths)
    before = path.read_bytes()
    how, after = mutated(before, other.read_bytes(), chance) if before else ("unchanged: empty", before)
    path.write_bytes(after)
    ended = read(reader, folder, place / "log")
    outcome = judge(reader, intact, ended, folder, Change(before, after))
    what = f"{path.relative_to(folder)}: {how}\n{outcome.what}".strip()
    return Outcome(verdict=outcome.verdict, what=what, cpu=outcome.cpu)
