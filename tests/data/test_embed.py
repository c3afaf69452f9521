"""The embedding pass on tiny encoders: rows against direct encoding, and the same store after every interruption."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.embed import TORCH
from c2c_jax.config import Config, DataConfig, EmbedConfig
from c2c_jax.data.caption_files import Txt
from c2c_jax.data.embed import prepare_store
from c2c_jax.data.store import Store
from c2c_jax.data.writer import StoreWriter, store_lock
from c2c_jax.errors import CaptionError, ConfigError, StoreError
from c2c_jax.spaces.space import Space, load_space
from tests.data.test_store import flip
from tests.fixtures.programs import start, two_hosts

ROOT = Path(__file__).parents[2]
ROWS = 50
ODD = ["", "🚗💨 🎸", "Über кошка قطة 猫 ねこ", "long " * 76, "longer " * 90, "x", "a\u2028b", "very long " * 400]


@pytest.fixture
def config(tmp_path: Path, clip_folder: Path, audioldm_folder: Path, short_captions: list[str]) -> Config:
    (tmp_path / "captions.txt").write_text("\n".join(short_captions[:ROWS]), encoding="utf-8")
    return Config(
        source=str(clip_folder),
        target=f"{audioldm_folder}:text_encoder",
        data=DataConfig(captions=f"txt:{tmp_path / 'captions.txt'}"),
        embed=EmbedConfig(batch_tokens=64, chunk_rows=16),
    )


@pytest.fixture
def unbroken(config: Config, tmp_path: Path) -> dict[str, bytes]:
    prepare_store(config, tmp_path / "unbroken")
    return contents(tmp_path / "unbroken")


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def command(config: Config, out: Path) -> list[str]:
    """The same pass from the command line."""
    fields = {
        "source": config.source, "target": config.target, "data.captions": config.data.captions,
        "embed.batch_tokens": config.embed.batch_tokens, "embed.chunk_rows": config.embed.chunk_rows,
    }  # fmt: skip
    given = [f"--config.{field}={value}" for field, value in fields.items()]
    recipe = ["--config", "configs/mlp.py", "--out", str(out)]
    return [sys.executable, "-m", "c2c_jax.cli.main", "embed", *recipe, *given]


def written_chunks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Records (chunk, rows) of every write."""
    chunks, write = [], StoreWriter.write

    def noting(self, chunk, source, target):
        chunks.append((chunk, len(source)))
        write(self, chunk, source, target)

    monkeypatch.setattr(StoreWriter, "write", noting)
    return chunks


def test_rows_are_the_captions_vectors(config, tmp_path, short_captions, caplog):
    caplog.set_level(logging.INFO, "c2c_jax")
    store = prepare_store(config, tmp_path / "store")
    assert caplog.messages[-1].startswith(f"embedded {ROWS} captions in ")
    assert (store.plan.rows, store.plan.chunks) == (ROWS, 4)
    assert list(store.captions()) == short_captions[:ROWS]
    for side in ("source", "target"):
        expected = load_space(getattr(config, side)).encode_text(short_captions[:ROWS])
        np.testing.assert_allclose(store.read(side), expected, atol=1e-5, rtol=1e-3)  # float16 keeps 11 bits


@pytest.mark.parametrize(("side", "length"), [("source", 77), ("target", 77), ("target", 512)])
def test_packed_equals_padded(config, shared_data, side, length):
    """On real captions and odd texts, against transformers' torch class with all of them padded to one length: 77 is
    CLIP's and LAION's own CLAP's, 512 AudioLDM's."""
    lines = (shared_data / "Validation_GCC-1.1.0-Validation.tsv").read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t")[0] for line in lines[: 300 if length == 77 else 40]] + ODD
    space = load_space(getattr(config, side))
    space.max_tokens = length
    assert max(len(row) for row in space.tokenizer(texts)["input_ids"]) > length
    tokens = space.tokenizer(texts, truncation=True, max_length=length, padding="max_length", return_tensors="pt")
    assert tokens["input_ids"].shape == (len(texts), length)
    folder, _, subfolder = getattr(config, side).partition(":")
    tower = TORCH["clip" if side == "source" else "clap"].from_pretrained(folder, subfolder=subfolder).eval()
    with torch.no_grad():
        padded = tower(**tokens).text_embeds.numpy()
    np.testing.assert_allclose(space.encode_text(texts, batch_tokens=256), padded, atol=1e-5, rtol=0)


def test_bfloat16_towers_and_float32_store(config, tmp_path, short_captions):
    config.embed.dtype, config.embed.store_dtype = "bfloat16", "float32"
    store = prepare_store(config, tmp_path / "store")
    for side in ("source", "target"):
        exact = load_space(getattr(config, side)).encode_text(short_captions[:ROWS])
        rounded = store.read(side)
        assert rounded.dtype == np.float32
        cosine = (exact * rounded).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
        assert 0.999 < cosine.min() < cosine.max() < 1 - 1e-9
    config.embed.dtype = "float32"
    with pytest.raises(StoreError, match=r"was made with config.embed.dtype bfloat16"):
        prepare_store(config, tmp_path / "store")


def test_killed_pass_goes_on_and_ends_with_the_same_bytes(config, unbroken, tmp_path, monkeypatch):
    out = tmp_path / "killed"
    process = subprocess.Popen(command(config, out), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not any(path.read_text().count("\n") for path in out.glob("progress-*.jsonl")):
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    finished = set(StoreWriter(out).finished)
    chunks = written_chunks(monkeypatch)
    prepare_store(config, out)
    assert finished and {chunk for chunk, _ in chunks} == set(range(4)) - finished
    assert contents(out) == unbroken


def test_full_disk_is_told_in_one_line_and_the_pass_goes_on(config, unbroken, tmp_path):
    """The system refuses files beyond a size, as it refuses all where a disk is full: plan.json needs less than
    2,000 bytes, a chunk of 16 rows of 64 float16 numbers 2,048."""
    out = tmp_path / "full"
    limited = (
        "import os, resource as r, sys; r.setrlimit(r.RLIMIT_FSIZE, (2000, 2000)); os.execv(sys.argv[1], sys.argv[1:])"
    )
    run = subprocess.run(
        [sys.executable, "-c", limited, *command(config, out)], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 2, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(f"c2c embed: {out}: chunk 0 could not be written: File too large; free disk space")
    assert "Traceback" not in run.stderr
    prepare_store(config, out)
    assert contents(out) == unbroken


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(config, unbroken, tmp_path):
    hosts = [start(host, devices=4) for host in two_hosts(command(config, tmp_path / "two"))]
    outputs = [host.communicate()[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], "\n".join(outputs)
    assert contents(tmp_path / "two") == unbroken


def test_finished_store_is_reused_without_towers(config, tmp_path, monkeypatch):
    prepare_store(config, tmp_path / "store")
    monkeypatch.setattr(Space, "run_text", lambda *args, **kwargs: pytest.fail("encoded again"))
    assert prepare_store(config, tmp_path / "store").plan.rows == ROWS
    config.source = config.target = ""
    assert prepare_store(config, tmp_path / "store").plan.rows == ROWS


def test_new_source_embeds_only_the_new_rows(config, tmp_path, short_captions, monkeypatch):
    prepare_store(config, tmp_path / "store")
    old = {side: Store.open(tmp_path / "store").read(side) for side in ("source", "target")}
    (tmp_path / "more.txt").write_text("\n".join(short_captions[40:70]), encoding="utf-8")  # ten of them known
    config.data.captions += f" + txt:{tmp_path / 'more.txt'}"
    chunks = written_chunks(monkeypatch)
    store = prepare_store(config, tmp_path / "store")
    assert chunks == [(3, 14), (4, 6)]
    assert list(store.captions()) == short_captions[:70]
    assert [(record.rows, record.duplicates) for record in store.plan.sources] == [(50, 0), (20, 10)]
    for side in ("source", "target"):
        vectors = store.read(side)
        np.testing.assert_array_equal(vectors[:ROWS], old[side])
        expected = load_space(getattr(config, side)).encode_text(short_captions[ROWS:70])
        np.testing.assert_allclose(vectors[ROWS:], expected, atol=1e-5, rtol=1e-3)
    assert list(store.damage()) == []
    config.data.captions = config.data.captions.partition(" + ")[0]
    with pytest.raises(StoreError, match="was made with captions"):
        prepare_store(config, tmp_path / "store")


def test_growing_that_stopped_goes_on(config, tmp_path, short_captions, monkeypatch):
    prepare_store(config, tmp_path / "store")
    (tmp_path / "more.txt").write_text("\n".join(short_captions[ROWS:90]), encoding="utf-8")
    config.data.captions += f" + txt:{tmp_path / 'more.txt'}"
    write = StoreWriter.write

    def stopping(self, chunk, *vectors):
        if chunk >= 4:
            raise KeyboardInterrupt
        write(self, chunk, *vectors)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "write", stopping)
        with pytest.raises(KeyboardInterrupt):
            prepare_store(config, tmp_path / "store")
    assert len(Store.open(tmp_path / "store").read("source")) == ROWS
    chunks = written_chunks(monkeypatch)
    store = prepare_store(config, tmp_path / "store")
    assert chunks == [(4, 16), (5, 10)]
    assert store.plan.rows == 90 and list(store.damage()) == []


def test_edited_captions_and_swapped_spaces_are_refused(config, tmp_path):
    prepare_store(config, tmp_path / "store")
    captions = Path(config.data.captions.removeprefix("txt:"))
    original = captions.read_text()
    captions.write_text(original + "\none more")
    with pytest.raises(StoreError, match="whose content has changed"):
        prepare_store(config, tmp_path / "store")
    captions.write_text(original)
    config.target = config.source
    with pytest.raises(StoreError, match="was made with target space"):
        prepare_store(config, tmp_path / "store")


@pytest.mark.parametrize(
    ("field", "value"), [("dtype", "float16"), ("store_dtype", "bfloat16"), ("chunk_rows", 0), ("batch_tokens", -1)]
)
def test_impossible_settings(config, tmp_path, field, value):
    setattr(config.embed, field, value)
    with pytest.raises(ConfigError, match=field):
        prepare_store(config, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_two_passes_at_once(config, unbroken, tmp_path):
    """The second one is refused in one line and changes nothing; a finished store stays readable."""
    out = tmp_path / "store"
    with store_lock(out):
        with pytest.raises(StoreError, match="another process is writing the store .*: wait until it is done"):
            prepare_store(config, out)
        assert [path.name for path in out.iterdir()] == [".c2c-lock"]
    prepare_store(config, out)
    with store_lock(out):
        assert prepare_store(config, out).plan.rows == ROWS
    assert contents(out) == unbroken


def test_a_killed_start_of_growing_leaves_nothing(config, unbroken, tmp_path, monkeypatch):
    """Killed while new captions are written: a run with the old captions has the old store."""
    out = tmp_path / "store"
    prepare_store(config, out)
    captions = config.data.captions
    (tmp_path / "more.txt").write_text("".join(f"something new {i}\n" for i in range(40)), encoding="utf-8")
    config.data.captions += f" + txt:{tmp_path / 'more.txt'}"
    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "begin", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare_store(config, out)
    assert contents(out) == unbroken
    config.data.captions = captions
    prepare_store(config, out)
    assert contents(out) == unbroken


def test_a_store_whose_chunk_rows_are_too_many(config, tmp_path):
    config.embed.chunk_rows = 2**20 + 1
    with pytest.raises(ConfigError, match="config.embed.chunk_rows is .* must be at most 1,048,576"):
        prepare_store(config, tmp_path / "store")


DAMAGE = {
    "cut vectors": lambda out: os.truncate(out / "source" / "c" / "1" / "0", 100),
    "flipped vectors": lambda out: flip(out / "target" / "c" / "3" / "0"),
    "missing vectors": lambda out: (out / "target" / "c" / "0" / "0").unlink(),
    "cut captions": lambda out: os.truncate(out / "captions" / "2.txt", 100),
    "flipped captions": lambda out: flip(out / "captions" / "3.txt"),
    "missing captions": lambda out: (out / "captions" / "0.txt").unlink(),
    "zarr.json": lambda out: (out / "source" / "zarr.json").write_text("{"),
}


def test_damaged_chunks_are_made_again(config, unbroken, tmp_path, monkeypatch, caplog):
    """With verify, only damaged chunks are made again, with the same bytes; without, readers report the damage."""
    out = tmp_path / "store"
    prepare_store(config, out)
    chunks = written_chunks(monkeypatch)
    for damage in DAMAGE.values():
        damage(out)
    assert prepare_store(config, out).plan.rows == ROWS and contents(out) != unbroken
    assert not caplog.messages
    store = prepare_store(config, out, verify=True)
    assert contents(out) == unbroken and list(store.damage()) == []
    assert sorted(chunks) == [(0, 16), (1, 16), (3, 2)]
    line = "rebuilding 7 damaged or missing chunks: captions 0, captions 2, captions 3, source zarr.json, source 1, "
    assert caplog.messages == [f"{out}: {line}target 0, target 3"]
    prepare_store(config, out, verify=True)
    assert len(caplog.messages) == 1 and len(chunks) == 3


def test_damaged_chunks_of_other_sources_are_not_made_again(config, unbroken, tmp_path, monkeypatch):
    out = tmp_path / "store"
    prepare_store(config, out)
    DAMAGE["missing captions"](out)
    captions = Path(config.data.captions.removeprefix("txt:"))
    whole = captions.read_text()
    captions.write_text(whole.replace("a", "o"))
    with pytest.raises(StoreError, match="captions txt:.*, whose content has changed; delete it, or pass"):
        prepare_store(config, out, verify=True)
    captions.unlink()
    with pytest.raises(CaptionError, match="found no file"):
        prepare_store(config, out, verify=True)
    captions.write_text(whole)
    target, config.target = config.target, config.source
    with pytest.raises(StoreError, match="was made with target space .*; delete it, or pass"):
        prepare_store(config, out, verify=True)
    config.target = target
    with monkeypatch.context() as patch, pytest.raises(StoreError, match="captions of chunk 0 are lost"):
        patch.setattr(Txt, "read", lambda self, path: enumerate(["others now"] * ROWS))
        prepare_store(config, out, verify=True)
    prepare_store(config, out, verify=True)
    assert contents(out) == unbroken
