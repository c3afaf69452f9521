"""The readers under test: their input files, how they are called, and which damage they cannot detect."""

import dataclasses
import io
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from tools.campaign.inputs import CLAP, EMBEDDED, FROM_ARRAYS, LISTS, SHORT_AUDIO, Inputs, train, unlabelled_vectors
from tools.campaign.process import Limits, run_verb

Rule = Literal["checked", "shape", "values", "text"]
Results = dict[str, Any]
RATE = 16_000  # Hz


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
    """A reader under test.

    files: patterns of the files to damage. probe: reads them in the working directory and returns named results. needs:
    names of inputs. write: writes further files. limits: higher for readers that start JAX or torch. weight: relative
    number of random cases.

    rule: which wrong results are accepted without a message, because the format cannot reveal the damage. "checked":
    none, as the format has checksums. "shape": finite results of the same shapes, if the file is not shorter or keeps
    its last bytes. "values": other numbers and texts in the same rows and fields, that is, the same `outline`. "text":
    any text. slack: allowed difference in the length of the first axis; the MP3 frame with the encoder delay has no
    checksum.
    """

    name: str
    files: tuple[str, ...]
    probe: Callable[[], Results]
    rule: Rule
    needs: tuple[str, ...] = ()
    write: Callable[[Path], object] = lambda folder: None
    slack: int = 0
    limits: Limits = Limits()
    weight: int = 1

    def prepare(self, inputs: Inputs, folder: Path) -> Path:
        """Creates a folder with the reader's files."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        inputs.copy(self.needs, folder)
        self.write(folder)
        return folder

    def paths(self, folder: Path) -> list[Path]:
        """Returns the files to damage."""
        return [path for pattern in self.files for path in sorted(folder.glob(pattern)) if path.is_file()]


def _test_image() -> Any:
    from PIL import Image

    y, x = np.mgrid[:40, :48]
    grey = np.random.default_rng(0).integers(0, 60, (40, 48))
    return Image.fromarray(np.stack([x * 4 + grey, y * 4 + grey, (x + y) * 2 + grey], 2).clip(0, 255).astype(np.uint8))


def _image(name: str, rule: Rule, kind: str = "", **options: Any) -> Reader:
    file = f"file.{kind or name}"

    def write(folder: Path) -> None:
        content = io.BytesIO()
        _test_image().save(content, **options)
        (folder / file).write_bytes(content.getvalue())

    def probe() -> Results:
        from c2c_jax.io.images import read_image

        return {"pixels": np.asarray(read_image(file))}

    return Reader(name=name, files=(file,), write=write, probe=probe, rule=rule, weight=6)


def tone(seconds: float = 1.0) -> np.ndarray:
    """Synthesises a swept tone with some noise."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(1).normal(size=time.size)
    return (0.4 * np.sin(2 * np.pi * (300 + 500 * time) * time) + 0.02 * noise).astype(np.float32)


def _audio(name: str, rule: Rule, form: str, subtype: str) -> Reader:
    file = f"file.{name}"

    def write(folder: Path) -> None:
        import soundfile

        soundfile.write(folder / file, tone(), RATE, format=form, subtype=subtype)

    def probe() -> Results:
        from c2c_jax.io.audio import read_audio

        return {"samples": read_audio(Path(file), RATE)}

    slack = RATE // 10 if name == "mp3" else 0
    return Reader(name=name, files=(file,), write=write, probe=probe, rule=rule, slack=slack, weight=6)


_TEXTS = tuple(f"a {thing} number {number}" for number in range(10) for thing in ("dog", "cat", "bell", "train"))
_CAPTIONS = {
    "txt": ("txt:file.txt", "".join(f"{text}\n" for text in _TEXTS)),
    "tsv": ("tsv:file.tsv", "".join(f"{text}\thttp://example.org/{n}\n" for n, text in enumerate(_TEXTS))),
    "csv": ("csv:file.csv:caption", "id,caption\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(_TEXTS))),
    "jsonl": ("jsonl:file.jsonl:caption", "".join(f'{{"caption": "{text}", "id": 1}}\n' for text in _TEXTS)),
}


def _captions(name: str) -> Reader:
    spec, content = _CAPTIONS[name]

    def probe() -> Results:
        from c2c_jax.data.captions import CaptionStream, open_sources

        stream = CaptionStream(open_sources(spec), drop_duplicates=False)
        rows = list(stream)
        print(stream.report(), file=sys.stderr)
        return {"rows": rows}

    def write(folder: Path) -> None:
        (folder / f"file.{name}").write_text(content)

    return Reader(name=name, files=(f"file.{name}",), write=write, probe=probe, rule="text", weight=4)


def _pairs(path: str) -> Callable[[], Results]:
    def probe() -> Results:
        from c2c_jax.evaluation.pairs import read_pairs

        pairs = read_pairs(Path(path))
        for row in pairs.skipped:
            print(row, file=sys.stderr)
        return {"rows": [str(item) for item in pairs.items], "taken for": pairs.description}

    return probe


def _store() -> Results:
    from c2c_jax.data.store import Store

    store = Store.open(Path("store"))
    return {side: store.read(side) for side in ("source", "target")} | {"captions": list(store.captions())}


def _index() -> Results:
    """Reads the index. Lost sounds still count, because a search encodes them again."""
    from c2c_jax.retrieval.library import open_library
    from c2c_jax.spaces.space import identify

    library = open_library(Path("library"), identify(CLAP), Path("index"))
    known = {name: library.vectors_NE[row] for name, row in library.rows.items()}
    return {"count": len(known) + len(library.pending)} | known


def _bundle() -> Results:
    from c2c_jax.translator.bundle import load_bundle
    from c2c_jax.translator.inference import translate

    bundle = load_bundle(Path("bundle"))
    vectors = np.random.default_rng(2).normal(size=(2, bundle.source.dim)).astype(np.float32)
    return {"vectors": translate(bundle, vectors), "spaces": f"{bundle.source} {bundle.target}"}


def _space(name: str) -> Callable[[], Results]:
    """Encodes a text, and an image or a sound, depending on the space."""

    def probe() -> Results:
        from c2c_jax.spaces.space import load_space

        space = load_space(name)
        text = {"text": space.encode_text(["a dog barks"])}
        if space.audio_preprocessor is None:
            return text | {"image": space.encode_images([_test_image()])}
        return text | {
            "audio": space.encode_audio([np.resize(tone(), round(space.require_audio_preprocessor().sample_rate))])
        }

    return probe


def _of_verb(*argv: str, results: Callable[[], Results]) -> Callable[[], Results]:
    def probe() -> Results:
        if code := run_verb(list(argv)):
            raise SystemExit(code)
        return results()

    return probe


def _generated_audio() -> Results:
    import soundfile

    return {"samples": soundfile.read("made.wav", dtype="float32")[0]}


def _page(parts: Callable[[], Any] = lambda: None) -> Callable[[], Results]:
    """Reads the report page. parts: reads the data shown on the page."""

    def results() -> Results:
        page = Path("report.html").read_text(encoding="utf-8")
        without_plots = re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
        tags = re.findall(r"<(\w+)", without_plots.partition("<main>")[2])
        return {"page": page, "outline": {"tags": tags, "parts": outline(msgspec.to_builtins(parts(), str_keys=True))}}

    return results


def outline(value: Any) -> Any:
    """Replaces values by their types and keeps fields and rows. null counts as a number."""
    if isinstance(value, dict):
        return {key: outline(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [outline(inner) for inner in value]
    is_number = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    return "number" if is_number else type(value).__name__


def _run_parts() -> Any:
    from c2c_jax.evaluation.report.page import read_run

    run = read_run(Path("run"))
    return [run.config, run.history, run.bundle.metrics, run.bundle.spec]


def _record_parts() -> Any:
    from c2c_jax.generation.records import read_records

    return [[record.raw for record in records] for records in read_records(Path("sounds"))[:2]]


def _metrics_parts() -> Any:
    from c2c_jax.evaluation.report.page import read_evaluation
    from c2c_jax.translator.bundle import load_bundle

    evaluation = read_evaluation(Path("evaluation"), load_bundle(Path("bundle")))
    return [evaluation.settings, evaluation.rows, evaluation.left_out, evaluation.missing]


def _weights(folder: str) -> Callable[[], Results]:
    def results() -> Results:
        import safetensors.numpy

        return dict(safetensors.numpy.load_file(Path(folder) / "model.safetensors"))

    return results


def _embedded(name: str) -> tuple[str, ...]:
    """Returns the files of a checkpoint that are read."""
    paths = (path.relative_to(EMBEDDED) for path in sorted((EMBEDDED / name).rglob("*")) if path.is_file())
    return tuple(str(path) for path in paths if path.name not in ("README.md", "scores.json"))


_JAX = Limits(cpu=30, idle=60)
_EMBED_ARRAYS = _of_verb(*FROM_ARRAYS, "store", results=_store)
_SAMPLE = ("infer", "dog.png", "--audioldm", "audioldm", "--out", "made.wav", *SHORT_AUDIO)
_OF_EVALUATION = ("report", "bundle", "--evaluation", "evaluation")

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        _image("png", "checked", format="PNG"),
        _image("jpg", "shape", format="JPEG"),
        _image("gif", "shape", format="GIF"),
        _image("webp", "shape", format="WEBP"),
        _image("tiff", "shape", format="TIFF"),
        _image("tiff-deflate", "checked", "tif", format="TIFF", compression="tiff_adobe_deflate"),
        _image("bmp", "shape", format="BMP"),
        _image("jp2", "shape", format="JPEG2000"),
        _image("avif", "shape", format="AVIF"),
        _audio("wav", "shape", "WAV", "PCM_16"),
        _audio("flac", "checked", "FLAC", "PCM_16"),
        _audio("ogg", "checked", "OGG", "VORBIS"),
        _audio("opus", "checked", "OGG", "OPUS"),
        _audio("mp3", "shape", "MP3", "MPEG_LAYER_III"),
        _audio("aiff", "shape", "AIFF", "PCM_16"),
        _audio("caf", "shape", "CAF", "PCM_16"),
        _audio("au", "shape", "AU", "PCM_16"),
        _audio("w64", "shape", "W64", "PCM_16"),
        *map(_captions, _CAPTIONS),
        Reader(name="pairs", files=("pairs/manifest.csv",), needs=("pairs",), probe=_pairs("pairs/manifest.csv"),
               rule="text", weight=4),
        *(Reader(name=name, files=(f"{name}/{listing}",), needs=(name,), probe=_pairs(name), rule="text")
          for name, (listing, *_) in LISTS.items()),
        Reader(name="store", files=("store/manifest.json", "store/*/zarr.json", "store/*/c/*/0", "store/captions/*"),
               needs=("store",), probe=_store, rule="checked", weight=8),
        Reader(name="unfinished", files=("store/plan.json", "store/progress-*", "store/*/zarr.json", "store/*/c/*/0"),
               needs=("store=unfinished", "source.npy", "target.npy"), probe=_EMBED_ARRAYS, rule="checked", weight=4),
        Reader(name="index",
               files=("index/*/manifest.json", "index/*/*/zarr.json", "index/*/*/c/*/0", "index/*/captions/*"),
               needs=("library", "index"), probe=_index, rule="checked", weight=6),
        Reader(name="resumed", files=("run/run_state.json", "run/metrics.jsonl", "run/checkpoints/**/*"),
               needs=("run", "arrays"), probe=_of_verb(*train(), results=_weights("run/bundle")), rule="checked",
               limits=_JAX, weight=2),
        Reader(name="run", files=("run/config.json", "run/metrics.jsonl", "run/bundle/config.json"),
               needs=("run",), probe=_of_verb("report", "run", results=_page(_run_parts)), rule="values", limits=_JAX,
               weight=2),
        Reader(name="bundle", files=("bundle/config.json", "bundle/model.safetensors"), needs=("bundle",),
               probe=_bundle, rule="shape", limits=_JAX, weight=3),
        Reader(name="clip", files=_embedded("clip"), needs=("clip",), probe=_space("clip"), rule="shape", limits=_JAX,
               weight=3),
        Reader(name="shards", files=("shards/*.index.json", "shards/*.safetensors"), needs=("shards",),
               probe=_space("shards"), rule="shape", limits=_JAX),
        Reader(name="bin", files=("bin/pytorch_model.bin",), needs=("bin",), probe=_space("bin"), rule="checked",
               limits=_JAX),
        Reader(name="clap", files=_embedded("clap"), needs=("clap",), probe=_space("clap"), rule="shape", limits=_JAX,
               weight=3),
        Reader(name="laion", files=("pt/*.pt",), needs=("pt",), probe=_space("pt/630k-audioset-best.pt"),
               rule="checked", limits=_JAX),
        Reader(name="ckpt", files=("ckpt/*.ckpt",), needs=("ckpt",), probe=_space("ckpt/audioldm-s-full.ckpt"),
               rule="checked", limits=_JAX),
        Reader(name="pictures", files=("pictured/pictures.npz",), needs=("pictured",), rule="checked", limits=_JAX,
               probe=lambda: {"vectors": unlabelled_vectors(Path("pictured"))}),
        Reader(name="audioldm", files=_embedded("audioldm"), needs=("audioldm", "dog.png"),
               probe=_of_verb(*_SAMPLE, results=_generated_audio), rule="shape", limits=Limits(cpu=60, idle=60),
               weight=2),
        Reader(name="records", files=("sounds/*.sound.json",), needs=("bundle", "sounds", "dog.png", "cat.png=dog.png"),
               probe=_of_verb("report", "bundle", "--sounds", "sounds", results=_page(_record_parts)), rule="values",
               limits=_JAX, weight=2),
        Reader(name="metrics", files=("evaluation/metrics.json",), needs=("bundle", "evaluation"),
               probe=_of_verb(*_OF_EVALUATION, results=_page(_metrics_parts)), rule="values", limits=_JAX, weight=2),
        Reader(name="npz", files=("evaluation/vectors.npz",), needs=("bundle", "evaluation"),
               probe=_of_verb(*_OF_EVALUATION, results=_page()), rule="checked", limits=_JAX),
        Reader(name="npy", files=("source.npy", "target.npy"), needs=("source.npy", "target.npy"), probe=_EMBED_ARRAYS,
               rule="shape", weight=3),
        Reader(name="author", files=("author.pt",), needs=("author.pt",),
               probe=_of_verb("import-checkpoint", "author.pt", "--out", "imported", results=_weights("imported")),
               rule="shape", limits=_JAX, weight=2),
    )
}  # fmt: skip
