"""Small inputs that cases share; each is created once, mostly by c2c's own verbs."""

import functools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from tools.campaign.process import Limits, call, run_verb
from tools.campaign.steps import kill_before

ROOT = Path(__file__).parents[2]
WORLD_RECIPE, ARRAYS_RECIPE = f"{ROOT}/configs/miniworld.py", f"{ROOT}/configs/mlp_infonce.py"
EMBEDDED = ROOT / "c2c_jax/miniworld/checkpoints"
CLIP, CLAP = "miniworld/clip", "miniworld/clap"
BUILDING = Limits(cpu=600, idle=300, memory=2**33)
EMBED = ("embed", "--config", WORLD_RECIPE, "--config.embed.chunk_rows=8", "--out", "store")
FROM_ARRAYS = ("embed", "--from-arrays", "source.npy", "target.npy", "--out")
SEARCH = ("search", "--text", "a dog barks", "--library", "library", "--index", "index", "--clap", CLAP, "--json")
SHORT_AUDIO = ("--steps", "2", "--seconds", "1")
SCENES, INDEXED = 8, 6
PLACES = ("by day", "at night", "in rain", "in fog", "at sea", "in town", "at noon", "at dusk", "in snow", "at home")

Make = Callable[["Inputs", Path], object]


def train(*more: str) -> tuple[str, ...]:
    """Returns the command of a training run of about a second on the store of arrays: 4,500 rows, 400 held out."""
    return (
        "train", "--config", ARRAYS_RECIPE, "--workdir", "run", "--config.source=", "--config.target=",
        "--config.data.store=arrays", "--config.data.validation_size=400", "--config.batch_size=128",
        "--config.epochs=2", "--config.log_every=8", "--config.eval_every=32", "--config.checkpoint_every=16",
        "--config.translator.settings.width=32", "--config.translator.settings.depth=2", *more,
    )  # fmt: skip


class Inputs:
    """The inputs of cases, by name; each is created in `folder` at first use."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._locks: dict[int, filelock.FileLock] = {}

    @property
    def lock(self) -> filelock.BaseFileLock:
        """A lock for creating inputs; each process has its own, because a lock does not survive a fork."""
        return self._locks.setdefault(os.getpid(), filelock.FileLock(self.folder / ".c2c-lock"))

    def __getitem__(self, name: str) -> Path:
        path = self.folder / name
        with self.lock:
            if path.exists():
                return path
            making = self.folder / f".making-{name}"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            MAKERS[name](self, making)
            (making / name).rename(path)
            shutil.rmtree(making)
            return path

    def copy(self, names: Sequence[str], to: Path) -> None:
        """Copies inputs into a case's folder and keeps modification times, which the index of a library compares. The
        name `a=b` copies input b as a."""
        for entry in names:
            name, _, kind = entry.partition("=")
            source = self[kind or name]
            if source.is_dir():
                shutil.copytree(source, to / name)
            else:
                shutil.copy2(source, to / name)

    def call(self, function: Callable[[], object], cwd: Path) -> None:
        """Runs a function in a child. Raises RuntimeError if it fails."""
        ended = call(function, self.folder / ".log", cwd, BUILDING)
        if ended.code:
            raise RuntimeError(f"the inputs in {cwd} could not be created: exit code {ended.code}: {ended.err}")


def _lines(name: str, *texts: str) -> Make:
    return lambda inputs, place: (place / name).write_text("".join(f"{text} {at}\n" for text in texts for at in PLACES))


def _array(name: str, width: int) -> Make:
    def make(inputs: Inputs, place: Path) -> None:
        np.save(place / name, np.random.default_rng(width).normal(size=(4500, width)).astype(np.float32))

    return make


def _verb(*argv: str, needs: Sequence[str] = ()) -> Make:
    """Returns a maker that runs a verb on other inputs."""

    def make(inputs: Inputs, place: Path) -> None:
        inputs.copy(needs, place)
        inputs.call(lambda: run_verb(list(argv)), place)

    return make


def _copied(source: Path, name: str) -> Make:
    copy: Callable[..., Any] = shutil.copytree if source.is_dir() else shutil.copy2
    return lambda inputs, place: copy(source, place / name)


def _unfinished(inputs: Inputs, place: Path) -> None:
    """Makes a store of arrays whose process was killed before it wrote the manifest."""
    inputs.copy(("source.npy", "target.npy"), place)

    def killed(number: int) -> int:
        kill_before(place, number)
        return run_verb([*FROM_ARRAYS, "unfinished"])

    for number in range(100, 0, -1):
        shutil.rmtree(place / "unfinished", ignore_errors=True)
        call(functools.partial(killed, number), inputs.folder / ".log", place, BUILDING)
        if [*place.glob("unfinished/progress-*")] and not (place / "unfinished/manifest.json").exists():
            return


def _damaged_store(inputs: Inputs, place: Path) -> None:
    shutil.copytree(inputs["store"], place / "damaged")
    for chunk in ("source/c/1/0", "target/c/2/0"):
        path = place / "damaged" / chunk
        path.write_bytes(path.read_bytes()[:100])


def _library(inputs: Inputs, place: Path) -> None:
    shutil.copytree(inputs["pairs"] / "sounds", place / "library")


def _index(inputs: Inputs, place: Path) -> None:
    """Makes an index of the first INDEXED sounds of the library."""
    inputs.copy(("library",), place)
    for path in sorted((place / "library").iterdir())[INDEXED:]:
        path.unlink()
    inputs.call(lambda: run_verb(list(SEARCH)), place)


def _laion(name: str, prefix: str) -> Make:
    """Returns a maker of a tiny CLAP in laion_clap's format, with its tokenizer, in a folder named like the suffix."""

    def make(inputs: Inputs, place: Path) -> None:
        folder = place / Path(name).suffix[1:]
        (folder / "tokenizer").mkdir(parents=True)
        vocab_size = json.loads((EMBEDDED / "clap/config.json").read_text())["text_config"]["vocab_size"]
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy2(EMBEDDED / "clap" / file, folder / "tokenizer" / file)

        def write() -> None:
            from tests.fixtures.laion import build_clap, write_laion

            write_laion(Path(name), build_clap(vocab_size), prefix)

        inputs.call(write, folder)

    return make


# For each data set: its list of files, the content of the list, and the files.
LISTS = {
    "vggsound": ("vggsound.csv", "".join(f"clipnumber{n},{n},dog barking,test\n" for n in range(8)),
                 [f"{side}/clipnumber{n}_{n:06}.{kind}" for n in range(8) for side, kind in
                  (("frames", "jpg"), ("audio", "wav"))]),
    "esc50": ("meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take\n"
              + "".join(f"1-{n}-A-{n}.wav,1,{n},{'dog' if n % 2 else 'pouring_water'},True,{n},A\n" for n in range(8)),
              [f"audio/1-{n}-A-{n}.wav" for n in range(8)]),
    "ave": ("testSet.txt", "".join(f"Church bell&clipnumber{n}&good&{n}&10\n" for n in range(8)),
            [f"clipnumber{n}.{kind}" for n in range(8) for kind in ("jpg", "wav")]),
}  # fmt: skip


def _listed(name: str) -> Make:
    def make(inputs: Inputs, place: Path) -> None:
        listing, content, files = LISTS[name]
        for file in (listing, *files):
            path = place / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if file == listing else "x")

    return make


def unlabelled_vectors(run: Path) -> np.ndarray:
    """Returns the vectors of 64 images of the mini world, which are cached in `run`."""
    from c2c_jax.config import ImagesConfig
    from c2c_jax.data.images import image_vectors

    vectors_PS = image_vectors(ImagesConfig(files="miniworld:64"), CLIP, run)
    assert vectors_PS is not None
    return vectors_PS


def _unlabelled(inputs: Inputs, place: Path) -> None:
    """Makes a folder with a run's vectors of unlabelled images."""
    (place / "pictured").mkdir()
    inputs.call(lambda: unlabelled_vectors(place / "pictured"), place)


def _files(folder: str, *names: str) -> Make:
    """Returns a maker of a folder with copies of an image, or of a sound of the library."""

    def make(inputs: Inputs, place: Path) -> None:
        (place / folder).mkdir()
        for name in names:
            audio = min(inputs["library"].iterdir())
            shutil.copy2(inputs["dog.png"] if name.endswith(".png") else audio, place / folder / name)

    return make


def _author(inputs: Inputs, place: Path) -> None:
    """Makes a checkpoint in the format of the paper's author."""

    def write() -> None:
        import torch

        generator = torch.Generator().manual_seed(0)
        shapes = {f"{layer}.{kind}": (512,) * axes for layer in ("linear", "linear2")
                  for kind, axes in (("weight", 2), ("bias", 1))}  # fmt: skip
        torch.save({name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}, "author.pt")

    inputs.call(write, place)


def _shards(inputs: Inputs, place: Path) -> None:
    """Makes a copy of the mini world's CLIP with its weights in two files and an index."""
    import safetensors.numpy

    folder = place / "shards"
    shutil.copytree(EMBEDDED / "clip", folder)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        safetensors.numpy.save_file({key: tensors[key] for key in part}, folder / file, {"format": "pt"})
    weight_map = {key: file for file, part in halves.items() for key in part}
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "model.safetensors").unlink()


def _bin(inputs: Inputs, place: Path) -> None:
    """Makes a copy of the mini world's CLIP with its weights pickled by torch."""
    shutil.copytree(EMBEDDED / "clip", place / "bin")

    def write() -> None:
        import safetensors.torch
        import torch

        torch.save(safetensors.torch.load_file("bin/model.safetensors"), "bin/pytorch_model.bin")

    inputs.call(write, place)
    (place / "bin" / "model.safetensors").unlink()


MAKERS: dict[str, Make] = {
    "captions.txt": _lines("captions.txt", "a dog barks", "a cat meows", "a bell rings"),
    "more.txt": _lines("more.txt", "a car honks"),
    "source.npy": _array("source.npy", 24),
    "target.npy": _array("target.npy", 16),
    "dog.png": _copied(ROOT / "examples/dog.png", "dog.png"),
    "arrays": _verb(*FROM_ARRAYS, "arrays", needs=("source.npy", "target.npy")),
    "store": _verb(*EMBED, "--config.data.captions=txt:captions.txt", needs=("captions.txt",)),
    "unfinished": _unfinished,
    "damaged": _damaged_store,
    "run": _verb(*train(), needs=("arrays",)),
    "pairs": _verb("miniworld", "export", "--out", "pairs", "--count", str(SCENES)),
    "library": _library,
    "index": _index,
    "bundle": _copied(EMBEDDED / "translator", "bundle"),
    "plain": _verb("calibrate", "bundle", "--remove", "--out", "plain", needs=("bundle",)),
    **{name: _copied(EMBEDDED / name, name) for name in ("clip", "clap", "audioldm")},
    "shards": _shards,
    "bin": _bin,
    "sounds": _verb(
        "infer", "dog.png", "cat.png", "--out", "sounds", *SHORT_AUDIO, needs=("dog.png", "cat.png=dog.png")
    ),
    "published": _verb("export", "plain", "--out", "published", needs=("plain",)),
    "evaluation": _verb(
        "evaluate", "bundle", "--pairs", "pairs/manifest.csv", "--out", "evaluation", "--bootstrap", "5", "--seed", "7",
        needs=("bundle", "pairs"),
    ),
    "dog.wav": _verb("infer", "dog.png", "--out", "dog.wav", *SHORT_AUDIO, "--seed", "3", needs=("dog.png",)),
    "report.html": _verb("report", "bundle", needs=("bundle",)),
    "author.pt": _author,
    "pt": _laion("630k-audioset-best.pt", "module."),
    "ckpt": _laion("audioldm-s-full.ckpt", "cond_stage_model.model."),
    **{name: _listed(name) for name in LISTS},
    "pictured": _unlabelled,
    "photos": _files("photos", "a.png", "b.png"),
    "noises": _files("noises", "a.wav", "b.wav"),
    "names": _files("names", "Hündin 犬.wav", "a\nb\x1b[31m.wav"),
}  # fmt: skip
