"""`c2c embed`: inspecting and repairing a store, and stores of given vectors."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from c2c_jax.cli.main import main
from c2c_jax.cli.recipe import require_sources
from c2c_jax.config import Config, DataConfig
from c2c_jax.data.store import Store
from c2c_jax.errors import StoreError
from tests.cli.test_main import ROOT, refused
from tests.data.test_store import flip

ROWS = 40


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, clip_folder, audioldm_folder, short_captions) -> Path:
    """A store that `c2c embed` made from a tsv with one bad row and two duplicates, and copies of its inputs."""
    folder = tmp_path_factory.mktemp("made")
    rows = [f"{caption}\thttp://x" for caption in [*short_captions[:ROWS], *short_captions[:2]]]
    (folder / "captions.tsv").write_text("\n".join([*rows, "no tab"]), encoding="utf-8")
    shutil.copytree(clip_folder, folder / "clip")
    shutil.copytree(audioldm_folder, folder / "audioldm")
    assert main(["embed", *command(folder), "--out", str(folder / "store")]) == 0
    return folder


def command(folder: Path) -> list[str]:
    spaces = [f"--config.source={folder / 'clip'}", f"--config.target={folder / 'audioldm'}:text_encoder"]
    data = [f"--config.data.captions=tsv:{folder / 'captions.tsv'}", "--config.embed.chunk_rows=16"]
    return ["--config", str(ROOT / "configs" / "mlp.py"), *spaces, *data]


@pytest.fixture
def store(embedded, tmp_path) -> Path:
    return Path(shutil.copytree(embedded / "store", tmp_path / "store"))


def test_info(embedded, capsys):
    assert main(["embed", "--info", str(embedded / "store")]) == 0
    output = capsys.readouterr().out
    for part in (
        f"{embedded / 'clip'}, 64 wide",
        "40 pairs, float16",
        "computed in float32",
        "3 of 16 rows",
        f"tsv:{embedded / 'captions.tsv'}: 40 rows, 2 duplicates dropped, 1 skipped: no tab",
    ):
        assert part in output


def test_verify_lists_every_damaged_chunk(store, capsys):
    assert main(["embed", "--verify", str(store)]) == 0
    assert "all 3 chunks of 40 rows are intact" in capsys.readouterr().out
    flip(store / "source" / "c" / "2" / "0")
    (store / "target" / "c" / "0" / "0").unlink()
    (store / "captions" / "1.txt").write_bytes(b"\xff")
    assert main(["embed", "--verify", str(store)]) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"{store / 'captions'}: chunk 1 (rows 16 to 31) is damaged",
        f"{store / 'source'}: chunk 2 (rows 32 to 39) is damaged",
        f"{store / 'target'}: chunk 0 (rows 0 to 15) is missing",
    ]
    advice = f"to repair it, run c2c embed again with the same --config and --out {store}"
    assert captured.err.strip() == f"c2c embed: {store}: 3 damaged or missing chunks; {advice}"


def test_same_command_repairs_damaged_chunks(embedded, store, capsys):
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    flip(store / "source" / "c" / "2" / "0")
    (store / "captions" / "2.txt").unlink()
    written_at = (store / "target" / "c" / "1" / "0").stat().st_mtime_ns
    for _ in range(2):  # the second time there is nothing to do
        assert main(["embed", *command(embedded), "--out", str(store)]) == 0
        assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    assert (store / "target" / "c" / "1" / "0").stat().st_mtime_ns == written_at
    assert capsys.readouterr().err.count("rebuilding 2 damaged or missing chunks: captions 2, source 2") == 1


def test_store_of_arrays_trains(tmp_path, capsys):
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(300, 24)).astype(np.float32), rng.normal(size=(300, 16)).astype(np.float64)
    np.save(tmp_path / "a.npy", source)
    np.save(tmp_path / "b.npy", target)
    arguments = ["embed", "--from-arrays", str(tmp_path / "a.npy"), str(tmp_path / "b.npy")]
    out = tmp_path / "store"
    for _ in range(2):  # the second time it is there
        assert main([*arguments, "--out", str(out)]) == 0
    np.testing.assert_array_equal(Store.open(out).read("source"), source.astype(np.float16))
    np.testing.assert_array_equal(zarr.open_array(out / "target", mode="r")[:], target.astype(np.float16))
    assert main(["embed", "--info", str(out)]) == 0
    assert "a.npy, 24 wide" in capsys.readouterr().out
    fields = ["--config.source=", "--config.target=", f"--config.data.store={out}", "--config.data.validation_size=100"]
    recipe = ["--config", str(ROOT / "configs" / "mlp_infonce.py"), "--workdir", str(tmp_path / "run")]
    assert main(["train", *recipe, *fields, "--config.batch_size=100", "--config.epochs=1"]) == 0
    bundle = json.loads((tmp_path / "run" / "bundle" / "config.json").read_text())
    assert bundle["source"]["name"] == "a.npy"
    before = (out / "source" / "c" / "0" / "0").read_bytes()
    flip(out / "source" / "c" / "0" / "0")
    advice = f"to repair it, run c2c embed again with the same --from-arrays and --out {out}"
    assert advice in refused(capsys, ["embed", "--verify", str(out)])
    assert main([*arguments, "--out", str(out)]) == 0
    assert (out / "source" / "c" / "0" / "0").read_bytes() == before and list(Store.open(out).damage()) == []


def test_arrays_of_named_spaces(tmp_path, clip_folder, audioldm_folder, capsys):
    for name, width in (("a", 64), ("b", 64), ("wide", 65)):
        np.save(tmp_path / f"{name}.npy", np.ones((5, width), np.float32))
    spaces = ["--spaces", str(clip_folder), f"{audioldm_folder}:text_encoder", "--out", str(tmp_path / "s")]
    arrays = [str(tmp_path / "a.npy"), str(tmp_path / "b.npy")]
    assert main(["embed", "--from-arrays", *arrays, *spaces]) == 0
    assert Store.open(tmp_path / "s").plan.source.name == str(clip_folder)
    wide = ["embed", "--from-arrays", str(tmp_path / "wide.npy"), arrays[1], *spaces]
    assert f"source vectors are 65 wide; those of {clip_folder} are 64" in refused(capsys, wide)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((4, 3), np.float32), "4 source and 5 target vectors"),
        (np.ones(5, np.float32), "expected numbers [N, E]"),
        (np.full((5, 3), np.nan, np.float32), "vector of row 0 is not finite"),
        (np.array(["a"]), "expected numbers [N, E]"),
        (b"not an array", "pass an .npy file"),
        (None, "found no file"),
    ],
)
def test_invalid_arrays(tmp_path, array, message, capsys):
    np.save(tmp_path / "good.npy", np.ones((5, 2), np.float32))
    if isinstance(array, bytes):
        (tmp_path / "bad.npy").write_bytes(array)
    elif array is not None:
        np.save(tmp_path / "bad.npy", array)
    arguments = ["--from-arrays", str(tmp_path / "bad.npy"), str(tmp_path / "good.npy"), "--out", str(tmp_path / "s")]
    assert message in refused(capsys, ["embed", *arguments])


def test_misuse(tmp_path, capsys):
    assert "--out FOLDER is missing" in refused(capsys, ["embed", "--config", "configs/mlp.py"])
    assert "pass --recipe NAME" in refused(capsys, ["embed", "--out", str(tmp_path)])
    for task in ("--info", "--verify"):
        assert "is not an embedding store" in refused(capsys, ["embed", task, str(tmp_path)])


def test_unknown_flags_are_reported_first(tmp_path, capsys):
    for verb in (["embed"], ["train", "--config", "no.py"]):
        message = refused(capsys, [*verb, "--nosuchflag", "3", "--config.seed=2"])
        assert "unknown argument --nosuchflag" in message


@pytest.mark.parametrize("name", ["manifest.json", "plan.json"])
def test_pipe_instead_of_a_manifest(tmp_path, capsys, name):
    os.mkfifo(tmp_path / name)
    assert f"{tmp_path / name} is a named pipe, not a file" in refused(capsys, ["embed", "--info", str(tmp_path)])


def test_paths_on_stdout_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for side in "ab":
        np.save(f"{side}.npy", np.eye(4, dtype=np.float32))
    out = "a\nb\x1b[2J"
    assert main(["embed", "--from-arrays", "a.npy", "b.npy", "--out", out]) == 0
    assert main(["embed", "--verify", out]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a\\nb\\x1b[2J" and lines[1].startswith("a\\nb\\x1b[2J: all 1 chunks") and len(lines) == 2


def test_tilde_of_a_configs_store(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").touch()
    config = Config(source="", target="", data=DataConfig(store="~/mine"))
    require_sources(config)
    (tmp_path / "mine" / "manifest.json").unlink()
    with pytest.raises(StoreError, match=f"{tmp_path}/mine is not an embedding store"):
        require_sources(config)
