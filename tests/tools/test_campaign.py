"""A part of the campaign, and artificial faults of every kind that it must find."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from c2c_jax.io.console import printable
from tools.campaign import folders, kills, streams, verdicts
from tools.campaign.cases import Case, Context, Outcome, Record, evenly_spaced, run_cases, table
from tools.campaign.process import Child, Exit, Limits, call
from tools.campaign.readers import Reader, outline
from tools.campaign.steps import fail_writes_beyond, kill_before, kill_in_write, read_steps, record_steps, watch
from tools.campaign.verbs import Undisturbed, Verb, differences, snapshot
from tools.campaign.verdicts import Change, judge, read

pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # children that do without JAX

ROOT = Path(__file__).parents[2]
VERBS = ("arrays", "export", "world-text", "import")
READERS = ("png", "jpg", "bmp", "wav", "flac", "ogg", "mp3", "txt", "csv", "jsonl", "pairs", "unfinished", "npy")
FOLDERS = ("photos",)
TIGHT = Limits(cpu=1, idle=1, memory=2**27)


@pytest.mark.parametrize(
    ("cases", "verbs", "expected"),
    [
        (3, VERBS[:2], {"streams": 3, "full disk": 3}),
        (20, VERBS, {"streams": 10, "full disk": 12, "read-only": 4}),
    ],
)
@pytest.mark.slow
def test_part_of_the_campaign(tmp_path, cases, verbs, expected):
    """Runs in a separate process, as children must be forked before JAX starts."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    of = [flag for name in (*verbs, *READERS, *FOLDERS) for flag in ("--of", name)]
    command = [sys.executable, "-m", "tools.campaign", "all", "--folder", str(tmp_path), "--jobs", "1"]
    json_file = tmp_path / "records.json"
    ended = subprocess.run(
        [*command, *of, "--cases", str(cases), "--json", str(json_file)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    records = json.loads(json_file.read_text())
    expected |= dict.fromkeys(("kills", "targeted", "mutations", "directed", "folders"), cases)
    assert Counter(record["kind"] for record in records) == expected
    assert {record["verdict"] for record in records} <= {"same", "right", "refused", "reported", "undetectable"}
    assert f"| all |  | {sum(expected.values())} |" in ended.stdout


def reader(probe, rule="checked", **more) -> Reader:
    return Reader(name="planted", files=("file",), probe=probe, rule=rule, limits=TIGHT, **more)


def verdict_of(tmp_path: Path, probe, rule="checked", strict=False, after=b"damaged!") -> str:
    """Returns the verdict on a reader that gives eight ones for the intact file."""
    (tmp_path / "folder").mkdir()
    reader_ = reader(probe, rule)
    result = {"values": np.ones(8)} | ({"outline": outline([{"loss": 0.5, "phase": "a"}])} if rule == "values" else {})
    whole = Exit(code=0, out="", err="usual\n", cpu=0, memory_growth=0, result=result)
    ended = read(reader_, tmp_path / "folder", tmp_path / "log")
    return judge(reader_, whole, ended, tmp_path / "folder", Change(b"the whole", after, strict)).verdict


def returning_zeros() -> dict:
    return {"values": np.zeros(8)}


def reporting() -> dict:
    print("the file is damaged: zeros are used", file=sys.stderr)
    return returning_zeros()


def refusing() -> dict:
    from c2c_jax.errors import ImageError

    raise ImageError("file is damaged: get it again")


def raising() -> dict:
    return {}["a"]


def marking() -> dict:
    Path(verdicts.MARK).touch()
    return refusing()


def spinning() -> dict:
    while True:
        pass


def waiting() -> dict:
    os.mkfifo("pipe")
    return {"values": open("pipe", "rb").read()}


def hoarding() -> dict:
    return {"values": np.ones(2**28).sum()}


def short() -> dict:
    return {"values": np.ones(7)}


def outlined(rows: list) -> dict:
    """Returns results like a reader of report pages; the intact file has one row with loss and phase."""
    return {"values": np.zeros(8), "outline": outline(rows)}


def not_finite() -> dict:
    return {"values": np.full(8, np.nan)}


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (returning_zeros, "wrong in silence"),
        (short, "wrong in silence"),
        (not_finite, "wrong in silence"),
        (reporting, "reported"),
        (refusing, "refused"),
        (raising, "traceback"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "traceback"),
        (marking, "mark"),
        (spinning, "hang"),
        (waiting, "hang"),
        (hoarding, "memory"),
        (lambda: {"values": np.ones(8)}, "right"),
    ],
)
def test_planted_faults_of_readers(tmp_path, probe, expected):
    assert verdict_of(tmp_path, probe) == expected


@pytest.mark.parametrize(
    ("probe", "rule", "after", "strict", "expected"),
    [
        (returning_zeros, "shape", b"the xxole", False, "undetectable"),
        (returning_zeros, "shape", b"the xxole", True, "wrong in silence"),
        (short, "shape", b"the xxole", False, "wrong in silence"),
        (not_finite, "shape", b"the xxole", False, "wrong in silence"),
        (returning_zeros, "shape", b"the wh", False, "wrong in silence"),
        (returning_zeros, "text", b"", False, "undetectable"),
        (lambda: outlined([{"loss": 1.0, "phase": "b"}]), "values", b"", False, "undetectable"),
        (lambda: outlined([{"loss": 1.0, "phase": "b"}]), "values", b"", True, "wrong in silence"),
        (lambda: outlined([{"loss": 1.0}]), "values", b"", False, "wrong in silence"),
        (lambda: outlined([{"loss": "1", "phase": "b"}]), "values", b"", False, "wrong in silence"),
        (lambda: outlined([]), "values", b"", False, "wrong in silence"),
    ],
)
def test_undetectable_damage(tmp_path, probe, rule, after, strict, expected):
    assert verdict_of(tmp_path, probe, rule, strict, after) == expected


def writing(folder: Path) -> None:
    """Writes a file non-atomically, in three steps."""
    (folder / "new").write_bytes(b"x" * 10_000)
    (folder / "old").unlink()
    os.replace(folder / "new", folder / "old")


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/old").write_bytes(b"whole")
    return tmp_path / "folder"


def test_every_step_is_recorded_and_can_be_killed(folder, tmp_path):
    call(lambda: record_steps(folder, tmp_path / "steps") or writing(folder), tmp_path / "log", folder)
    assert read_steps(tmp_path / "steps") == ["open new", "remove old", "rename new"]
    for number, left in enumerate(
        ({"old": b"x" * 10_000}, {"new": b"x" * 10_000, "old": b"x" * 10_000}, {"new": b"x" * 10_000})
    ):
        ended = call(lambda n=number: kill_before(folder, n) or writing(folder), tmp_path / "log", folder)
        assert ended.code == -9
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == left
    assert call(lambda: kill_before(folder, 3), tmp_path / "log", folder).code == 0


def test_writes_can_be_interrupted(folder, tmp_path):
    assert call(lambda: kill_in_write(400) or writing(folder), tmp_path / "log", folder).code == -25  # SIGXFSZ
    assert len((folder / "new").read_bytes()) == 400
    ended = call(lambda: fail_writes_beyond(5000) or writing(folder), tmp_path / "log", folder)
    assert ended.code == 1 and "File too large" in ended.err


def test_exchanges_and_fsync_are_steps(folder, tmp_path):
    from c2c_jax.io.atomic import atomic_write

    def replace() -> None:
        lines: list[str] = []
        watch(folder, lines.append)
        with atomic_write(folder / "place") as temporary:
            temporary.mkdir()
            (temporary / "file").write_text("new")
        (tmp_path / "steps").write_text("\n".join(lines))

    (folder / "place").mkdir()
    call(replace, tmp_path / "log", folder)
    assert {"exchange", "fsync", "mkdir place", "open file"} <= set((tmp_path / "steps").read_text().splitlines())


def planted_verb(*lines: str) -> Verb:
    """Returns a verb that runs Python lines in the folder."""

    class Planted(Verb):
        def start(self, folder, log, before=lambda: None):
            return [Child(lambda: before() or exec("\n".join(lines), {}), log / "0", folder, TIGHT)]

    return Planted(name="planted", argv=("planted",))


def run_kill(verb: Verb, tmp_path: Path, kill: kills.Kill, files: dict[str, str], monkeypatch) -> Outcome:
    known = Undisturbed(files=files, loose=(), cpu=(0.2,), out="", steps=("a", "b", "c"))
    monkeypatch.setattr(kills, "undisturbed", lambda *_: known)
    return kills._killed(verb, [kill], Context(folder=tmp_path), tmp_path / "case")


X = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # SHA-256 of "x"
SPIN = "import time; end = time.process_time() + 1.2\nwhile time.process_time() < end: pass"


@pytest.mark.parametrize(
    ("lines", "kill", "verdict"),
    [
        (("open('a', 'w').write('x')",), kills.Kill(step=0), "same"),
        (("import os", "open('b' if os.path.exists('a') else 'a', 'w').write('x')", "open('c', 'w')"),
         kills.Kill(step=1), "left over"),
        (("import os", "os.path.exists('a') or open('a', 'w').write('y')", "open('c', 'w'); os.remove('c')"),
         kills.Kill(step=2), "not the same"),
        (("import os", "os.path.exists('a') and 1 / 0", "open('a', 'w').close()", "os.mkdir('c')"),
         kills.Kill(step=1), "lost"),
        (("import signal; signal.signal(2, signal.SIG_IGN)", SPIN, "open('a', 'w').write('x')"),
         kills.Kill(number=2, fraction=0.5), "signal"),
        (("import signal; signal.signal(2, signal.default_int_handler)", SPIN, "open('a', 'w').write('x')"),
         kills.Kill(number=2, fraction=0.5), "traceback"),
    ],
)  # fmt: skip
def test_planted_faults_of_verbs(tmp_path, monkeypatch, lines, kill, verdict):
    outcome = run_kill(planted_verb(*lines), tmp_path, kill, {"a": X}, monkeypatch)
    assert outcome.verdict == verdict, outcome.what


def printing(*lines: str):
    return planted_verb("import sys", *lines)


@pytest.mark.parametrize(
    ("stream", "lines", "verdict"),
    [
        ("closed", ("sys.stdout and print('x')",), "same"),
        ("closed", ("sys.stdout.write('x')",), "traceback"),
        ("unread", ("print('x', flush=True)",), "traceback"),
        ("unread", ("try: print('x', flush=True)", "except BrokenPipeError: import os; os._exit(141)"), "refused"),
        ("full", ("print('x')",), "traceback"),
        ("full", ("print('c2c planted: no room', file=sys.stderr); sys.exit(2)",), "refused"),
        ("full", ("sys.exit(2)",), "traceback"),
        ("full", ("pass",), "wrong in silence"),
        ("ascii", ("print('x')",), "same"),
        ("ascii", ("print('ü')",), "traceback"),
        ("ascii", ("print('y')",), "not the same"),
        ("terminal", ("assert sys.stdout.isatty() and sys.stdout.encoding == 'ascii'", "print('x' * 10**5)"), "same"),
        ("terminal", ("print('ü')",), "traceback"),
    ],
)
def test_planted_faults_of_streams(tmp_path, folder, stream, lines, verdict):
    verb = dataclasses.replace(printing(*lines), prints=True)
    (ended,) = verb.run(folder, tmp_path / "log", streams.STREAMS[stream][1])
    known = Undisturbed(files=snapshot(folder), loose=(), cpu=(), out="x\n")
    outcome = streams.judge_stream(verb, stream, known, ended, folder)
    assert outcome.verdict == verdict, outcome.what


def looking(is_silent: bool):
    """Returns a reader of image folders that reads readable files, and reports others unless `is_silent`."""

    def probe(argument: str = "photos") -> dict:
        pixels = {}
        for path in Path(argument).iterdir():
            try:
                if not path.is_file() or "\x1b" in path.name:
                    raise OSError("it is not read")
                pixels[printable(path.name)] = np.array([len(path.read_bytes())])
            except OSError:
                is_silent or print(f"skipped: {path.name}", file=sys.stderr)
        return pixels

    return probe


@pytest.mark.parametrize(
    ("key", "is_silent", "verdict"),
    [
        ("pipe", True, "wrong in silence"),
        ("pipe", False, "reported"),
        ("file", True, "wrong in silence"),  # root drops its privileges
        ("up", True, "right"),
        ("wide", True, "right"),
        ("escape", True, "wrong in silence"),
        ("escape", False, "escape"),
    ],
)
def test_planted_faults_of_readers_of_folders(tmp_path, key, is_silent, verdict):
    reader_ = dataclasses.replace(reader(looking(is_silent)), name="photos", needs=("photos",))
    entry = next(entry for entry in folders.odd_entries(".png") if entry.key == key)
    (tmp_path / "inputs/photos").mkdir(parents=True)
    (tmp_path / "inputs/photos/a.png").write_text("a")
    assert folders.run_odd_entry(reader_, entry, Context(folder=tmp_path), tmp_path / "case").verdict == verdict


def test_differences(folder):
    expected = Undisturbed(files={"old": X, "gone": X, "log": X}, loose=("log",), cpu=(), out="")
    (folder / "log").write_text("of another run")
    (folder / ".c2c-lock").touch()
    assert differences(expected, folder) == ["left over: .c2c-lock", "lost: gone", "not the same: old"]


def test_finished_cases_are_not_run_again(tmp_path):
    ran = tmp_path / "ran"

    def run(context: Context, place: Path) -> Outcome:
        with open(ran, "a") as file:
            file.write("x")
        return Outcome(verdict="same" if place.name == "one" else "lost", what="a file")

    cases = [Case(key=key, kind="kills", group="g", how="h", run=run) for key in ("one", "two")]
    context = Context(folder=tmp_path, command="python -m tools.campaign kills")
    records: list[Record] = []
    first = run_cases(cases[:1], context, 1, lambda record, done, total: records.append(record))
    both = run_cases(cases, context, 1, lambda record, done, total: records.append(record))
    again = run_cases(cases, context, 1, lambda record, done, total: records.append(record))
    assert ran.read_text() == "xx" and len(records) == 2
    assert both == again and first == both[:1]
    assert [record.is_failure for record in both] == [False, True]
    assert both[1].repeat == "python -m tools.campaign kills --only two"
    assert table(both).splitlines()[-1] == "| all |  | 2 | 1 | 1 |"
    assert not (tmp_path / "cases/one").exists() and (tmp_path / "cases/two").exists()


def test_evenly():
    assert evenly_spaced(range(10), 4) == [0, 2, 5, 7] and evenly_spaced("ab", 4) == ["a", "b"]


def test_a_child_ends_within_its_limits(tmp_path):
    since = time.process_time()
    assert call(spinning, tmp_path / "log", tmp_path, TIGHT).why == "hang"
    assert time.process_time() - since < 5  # the parent uses little CPU time
