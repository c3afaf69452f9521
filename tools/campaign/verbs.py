"""The verbs under test: their inputs, command lines, and checks that existing data can be read after a kill."""

import dataclasses
import hashlib
import json
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tools.campaign.inputs import CLAP, EMBED, INDEXED, SEARCH, SHORT_AUDIO, Inputs, train
from tools.campaign.process import Child, Exit, Limits, run_verb
from tools.campaign.steps import read_steps, record_steps

LIMITS = Limits(cpu=120, idle=90)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb of c2c with its arguments.

    argv: without `c2c`. needs: names of inputs. processes: their number. check_data: raises an exception if existing
    data cannot be read. prints: whether every run prints the same.
    """

    name: str
    argv: tuple[str, ...]
    needs: tuple[str, ...] = ()
    processes: int = 1
    check_data: Callable[[], None] = lambda: None
    prints: bool = False

    def start(self, folder: Path, log: Path, before: Callable[[], None] = lambda: None) -> list[Child]:
        """Starts the verb's processes in a case's folder. before: called first in each child."""
        shared: list[tuple[str, ...]] = [()]
        if self.processes > 1:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            flags = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", str(self.processes), "--process-id")
            shared = [(*flags, str(number)) for number in range(self.processes)]

        def run(more: tuple[str, ...]) -> int:
            before()
            return run_verb([*self.argv, *more])

        return [
            Child(lambda more=more: run(more), log / str(number), folder, LIMITS)  # type: ignore[misc]
            for number, more in enumerate(shared)
        ]

    def run(self, folder: Path, log: Path, before: Callable[[], None] = lambda: None) -> list[Exit]:
        return [child.wait() for child in self.start(folder, log, before)]

    def unclean(self, end: Exit, codes: Sequence[int] = (0, 2)) -> str:
        """Describes a fault of an exit (traceback, unexpected code, or code 2 without a `c2c` error line); else ""."""
        if "Traceback" in end.err or "Exception ignored" in end.err or end.code not in codes:
            return f"ends with {end.code}: {end.err[-2000:]}"
        if end.code == 2 and not end.last.startswith(f"c2c {self.argv[0]}: "):
            return f"no c2c error line at the end: {end.last}"
        return ""


def _store_is_intact() -> None:
    from c2c_jax.data.store import Store

    store = Store.open(Path("store"))
    rows = {store.plan.rows, *(len(store.read(side)) for side in ("source", "target"))}
    if rows not in ({30}, {40}):
        raise RuntimeError(f"the store has {rows} rows")


def _index_is_intact() -> None:
    from c2c_jax.retrieval.library import open_library
    from c2c_jax.spaces.space import identify

    if (rows := len(open_library(Path("library"), identify(CLAP), Path("index")).rows)) < INDEXED:
        raise RuntimeError(f"the index has {rows} rows")


def _bundle_is_intact(name: str) -> Callable[[], None]:
    def check() -> None:
        from c2c_jax.translator.bundle import load_bundle

        load_bundle(Path(name))
        if name == "published" and not Path(name, "README.md").read_text().strip():
            raise RuntimeError("the model card is empty")

    return check


def _evaluation_is_intact() -> None:
    import numpy as np

    json.loads(Path("evaluation/metrics.json").read_text())
    with np.load("evaluation/vectors.npz", allow_pickle=False) as arrays:
        for name in arrays:
            arrays[name]


def _audio_is_intact() -> None:
    import soundfile

    soundfile.read("dog.wav")
    if Path("dog.sound.json").exists():
        json.loads(Path("dog.sound.json").read_text())


def _page_is_intact() -> None:
    if not Path("report.html").read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise RuntimeError("report.html is cut short")


_GROWN = "--config.data.captions=txt:captions.txt + txt:more.txt"
_EMBED = (*EMBED, "--config.data.captions=txt:captions.txt")
_EVALUATE = ("evaluate", "bundle", "--pairs", "pairs/manifest.csv", "--out", "evaluation", "--bootstrap", "5")
_CALIBRATE = ("calibrate", "bundle", "--images", "pairs/pictures", "--sounds", "pairs/sounds")

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(name="embed", argv=_EMBED, needs=("captions.txt",)),
        Verb(name="embed-two", argv=_EMBED, needs=("captions.txt",), processes=2),
        Verb(name="grow", argv=(*EMBED, _GROWN), needs=("captions.txt", "more.txt", "store"),
             check_data=_store_is_intact),
        Verb(name="arrays", argv=("embed", "--from-arrays", "source.npy", "target.npy", "--out", "store"),
             needs=("source.npy", "target.npy")),
        Verb(name="repair", argv=_EMBED, needs=("captions.txt", "store=damaged")),
        Verb(name="train", argv=train("--config.data.loader=resident"), needs=("arrays",)),
        Verb(name="train-streamed", argv=train("--config.data.loader=streamed"), needs=("arrays",)),
        Verb(name="train-two", argv=train(), needs=("arrays",), processes=2),
        Verb(name="search", argv=SEARCH, needs=("library",), prints=True),
        Verb(name="search-more", argv=SEARCH, needs=("library", "index"), check_data=_index_is_intact, prints=True),
        Verb(name="evaluate", argv=_EVALUATE, needs=("bundle", "pairs", "evaluation"), check_data=_evaluation_is_intact,
             prints=True),
        Verb(name="calibrate", argv=_CALIBRATE, needs=("bundle", "pairs"), check_data=_bundle_is_intact("bundle")),
        Verb(name="calibrate-out", argv=(*_CALIBRATE, "--out", "other"), needs=("bundle", "pairs")),
        Verb(name="export", argv=("export", "bundle", "--out", "published"), needs=("bundle", "published"),
             check_data=_bundle_is_intact("published")),
        Verb(name="infer", argv=("infer", "dog.png", "--out", "dog.wav", *SHORT_AUDIO), needs=("dog.png", "dog.wav"),
             check_data=_audio_is_intact),
        Verb(name="infer-vector", argv=("infer", "dog.png", "--save-embedding", "dog.npy"), needs=("dog.png",)),
        Verb(name="report", argv=("report", "bundle", "--sounds", "sounds", "--evaluation", "evaluation"),
             needs=("bundle", "sounds", "evaluation", "dog.png", "cat.png=dog.png", "report.html"),
             check_data=_page_is_intact),
        Verb(name="import", argv=("import-checkpoint", "author.pt", "--out", "imported"), needs=("author.pt",)),
        Verb(name="world", argv=("miniworld", "export", "--out", "pairs", "--count", "12")),
        Verb(name="world-text", argv=("miniworld", "captions", "--out", "world.txt", "--count", "3000")),
    )
}  # fmt: skip


def snapshot(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file of a case, and "/" for folders. Of a run's checkpoints, whose files have random
    names and contents, only the step folders are included."""
    hashes: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if "checkpoints/" in name and name.partition("checkpoints/")[2].count("/"):
            continue
        is_file = path.is_file() and not path.is_symlink()
        hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest() if is_file else "/"
    return hashes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """The results of an undisturbed run. files: see `snapshot`. loose: files that differ between runs, as they contain
    times. cpu: seconds of each process. steps: see `tools.campaign.steps`."""

    files: dict[str, str]
    loose: tuple[str, ...]
    cpu: tuple[float, ...]
    out: str
    steps: tuple[str, ...] = ()


def prepare(verb: Verb, inputs: Inputs, folder: Path) -> Path:
    """Creates a case's folder with the verb's inputs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    inputs.copy(verb.needs, folder)
    return folder


def undisturbed(verb: Verb, inputs: Inputs, place: Path) -> Undisturbed:
    """Runs a verb twice, undisturbed, and caches the results in a file."""
    cache = place / f"{verb.name}.json"
    with inputs.lock:
        if cache.is_file():
            return msgspec.json.decode(cache.read_bytes(), type=Undisturbed)
        folders, ends, steps = [], [], []
        for number in range(2):
            folder = prepare(verb, inputs, place / f"{verb.name}.{number}" / "folder")
            log = folder.parent / "log"
            ends.append(verb.run(folder, log, lambda folder=folder, log=log: record_steps(folder, log / "steps")))  # type: ignore[misc]
            if any(ended.code for ended in ends[-1]):
                raise RuntimeError(f"{verb.name} ends with {[e.code for e in ends[-1]]} undisturbed: {ends[-1][0].err}")
            folders.append(snapshot(folder))
            steps.append(read_steps(log / "steps"))
        loose = tuple(name for name in folders[0] if folders[1].get(name) != folders[0][name])
        cpu = tuple(min(a.cpu, b.cpu) for a, b in zip(*ends, strict=True))
        result = Undisturbed(files=folders[0], loose=loose, cpu=cpu, out=ends[0][0].out, steps=tuple(steps[0]))
        cache.write_bytes(msgspec.json.encode(result))
        return result


def differences(expected: Undisturbed, folder: Path) -> list[str]:
    """Lists extra, missing and different files in a case's folder."""
    hashes = snapshot(folder)
    lines = [f"left over: {name}" for name in hashes if name not in expected.files]
    lines += [f"lost: {name}" for name in expected.files if name not in hashes]
    other = [n for n in hashes if n in expected.files and n not in expected.loose and hashes[n] != expected.files[n]]
    return lines + [f"not the same: {name}" for name in other]
