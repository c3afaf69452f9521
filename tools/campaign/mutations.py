"""Files that are damaged at random, and by aim: each reader must read them right, refuse them, or say what it did."""

import functools
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.campaign import directed
from tools.campaign.cases import Case, Context, Outcome, evenly
from tools.campaign.directed import Aimed
from tools.campaign.process import Ended
from tools.campaign.readers import READERS, Reader
from tools.campaign.verdicts import Change, judge, original, read

OPERATIONS = ("cut", "flip", "insert", "delete", "duplicate", "zero", "swap", "splice", "empty")
ODDS = (4, 8, 3, 3, 3, 3, 2, 2, 1)
TRIES = 12  # of a shrinking


def mutated(data: bytes, other: bytes, chance: random.Random) -> tuple[str, bytes]:
    """What was done, and the damaged content. other: a file that `splice` takes its second half of."""
    operation = chance.choices(OPERATIONS, ODDS)[0]
    size = len(data)
    start = chance.randrange(max(size, 1))
    if size > 256 and chance.random() < 0.4:  # headers are where it hurts
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
        return f"bytes {start} to {stop} doubled", data[:stop] + data[start:]
    if operation == "zero":
        return f"bytes {start} to {stop} zeroed", data[:start] + bytes(stop - start) + data[stop:]
    if operation == "swap":
        half = (stop - start) // 2
        middle = data[start + half : start + 2 * half] + data[start : start + half]
        return f"two blocks of {half} bytes at {start} exchanged", data[:start] + middle + data[start + 2 * half :]
    return f"from {start} on another file's bytes", data[:start] + other[start:]


def random_cases(seed: int, count: int, names: Sequence[str] = tuple(READERS)) -> list[Case]:
    """Random damage; the readers take turns by their weights."""
    turns = [READERS[name] for name in names for _ in range(READERS[name].weight)]
    random.Random(f"order {seed}").shuffle(turns)
    cases = []
    for number in range(count):
        reader = turns[number % len(turns)]
        cases.append(
            Case(
                key=f"mutations-{seed}-{number}-{reader.name}", kind="mutations", group=reader.name,
                how=f"mutation {number}", flags=f"mutations --seed {seed} --cases {number + 1}",
                run=functools.partial(_mutate, reader, seed, number),
            )
        )  # fmt: skip
    return cases


def directed_cases(context: Context, count: int, names: Sequence[str] = tuple(READERS)) -> list[Case]:
    """Damage by aim, evenly of `directed.aimed`: as many of JSON's fields as of all else, or more."""
    whole: list[tuple[Reader, Aimed]] = []
    fields: list[tuple[Reader, Aimed]] = []
    for name in names:
        reader = READERS[name]
        original(reader, context)  # the field names are those of its whole files
        for one in directed.aimed(reader, context.folder / "originals" / name / "folder"):
            (fields if one.is_field else whole).append((reader, one))
    whole = evenly(whole, count - min(count // 2, len(fields)))
    cases = []
    for reader, one in whole + evenly(fields, count - len(whole)):
        cases.append(
            Case(
                key=f"directed-{reader.name}-{one.key}", kind="directed", group=reader.name, how=one.how,
                flags=f"directed --cases {count}",
                run=functools.partial(_aim, reader, one),
            )
        )  # fmt: skip
    return cases


def _aim(reader: Reader, one: Aimed, context: Context, place: Path) -> Outcome:
    whole = original(reader, context)
    folder = reader.prepare(context.inputs, place / "folder")
    path = folder / one.file
    before = path.read_bytes()
    one.apply(path)
    after = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    ended = read(reader, folder, place / "log")
    return judge(reader, whole, ended, folder, Change(before, after, one.is_strict))


def _mutate(reader: Reader, seed: int, number: int, context: Context, place: Path) -> Outcome:
    chance = random.Random(f"mutations {seed} {number}")
    whole = original(reader, context)
    folder = reader.prepare(context.inputs, place / "folder")
    paths = reader.paths(folder)
    path, other = chance.choice(paths), chance.choice(paths)
    name = path.relative_to(folder)
    before = path.read_bytes()
    how, after = mutated(before, other.read_bytes(), chance) if before else ("unchanged: empty", before)

    def attempt(content: bytes) -> tuple[Ended, Outcome]:
        fresh = reader.prepare(context.inputs, folder)
        (fresh / name).write_bytes(content)
        ended = read(reader, fresh, place / "log")
        return ended, judge(reader, whole, ended, fresh, Change(before, content))

    _, outcome = attempt(after)
    what = f"{name}: {how}\n{outcome.what}".strip()
    if outcome.verdict not in ("traceback", "wrong in silence", "memory", "hang", "mark"):
        return Outcome(verdict=outcome.verdict, what=what, cpu=outcome.cpu)
    least = shrunk(before, after, lambda content: attempt(content)[1].verdict == outcome.verdict)
    attempt(least)  # which leaves the smallest one in the folder
    return Outcome(verdict=outcome.verdict, what=what, cpu=outcome.cpu, smallest=f"{name}: {in_words(before, least)}")


def shrunk(before: bytes, after: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """Less of a change with which `fails` still holds, by halving it."""
    tries = TRIES
    while tries:
        for candidate in _halves(before, after):
            tries -= 1
            if fails(candidate):
                after = candidate
                break
            if not tries:
                return after
        else:
            return after
    return after


def _halves(before: bytes, after: bytes) -> list[bytes]:
    """Half of a change and the other half: of the bytes that differ, or of those that were taken out or put in."""
    if len(before) == len(after):
        places = [place for place, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        parts = [places[: len(places) // 2], places[len(places) // 2 :]] if len(places) > 1 else []
        return [_with(before, after, part) for part in parts]
    start, stop, middle = _edit(before, after)
    gone, found = stop - start, []
    if gone > 1:
        found = [
            before[:start] + middle + before[start + gone // 2 :],
            before[: stop - gone // 2] + middle + before[stop:],
        ]
    if len(middle) > 1:
        found += [
            before[:start] + half + before[stop:] for half in (middle[: len(middle) // 2], middle[len(middle) // 2 :])
        ]
    return [one for one in found if one not in (before, after)]


def _with(before: bytes, after: bytes, places: Sequence[int]) -> bytes:
    content = bytearray(before)
    for place in places:
        content[place] = after[place]
    return bytes(content)


def _edit(before: bytes, after: bytes) -> tuple[int, int, bytes]:
    """A change as bytes start to stop of `before` and what stands in their place."""
    most = min(len(before), len(after))
    start = next((n for n in range(most) if before[n] != after[n]), most)
    end = next((n for n in range(most - start) if before[-1 - n] != after[-1 - n]), most - start)
    return start, len(before) - end, after[start : len(after) - end]


def in_words(before: bytes, after: bytes) -> str:
    """A change, so that it can be made by hand."""
    if len(before) == len(after):
        places = [place for place, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        shown = ", ".join(f"{place}: {before[place]:02x}→{after[place]:02x}" for place in places[:8])
        return f"{len(places)} bytes differ ({shown}{', …' if len(places) > 8 else ''})"
    start, stop, middle = _edit(before, after)
    put = f"{len(middle)} bytes ({middle[:16].hex()}{'…' if len(middle) > 16 else ''})" if middle else "nothing"
    return f"bytes {start} to {stop} of {len(before)} replaced by {put}"
