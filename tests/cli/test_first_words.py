"""Missing inputs are reported before anything slow is imported; imports work on every system."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.programs import ROOT

HEAVY = "jax", "torch", "transformers", "tensorflow_datasets", "orbax", "flax", "diffusers", "scipy"

# Runs verbs in turn; prints the exit code and the line of each, and the slow modules imported by then.
REFUSE = f"""
import contextlib, io, json, sys
from c2c_jax.cli.main import main
for arguments in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(arguments)
    print(json.dumps([code, said.getvalue(), [name for name in {HEAVY!r} if name in sys.modules]]))
"""


@pytest.fixture
def here(tmp_path: Path, clip_folder: Path) -> Path:
    """An image, a folder with one sound, a file instead of a folder, and a bundle whose CLIP has moved."""
    for name in ("picture.png", "file", "lib/a.wav", "captions.txt", "bundle/config.json", "moved/config.json",
        "bundle/model.safetensors", "moved/model.safetensors",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name, source in (("bundle", str(clip_folder)), ("moved", str(tmp_path / "no-clip"))):
        sides = {"source": {"name": source}, "target": {"name": "miniworld/clap"}}
        (tmp_path / name / "config.json").write_text(json.dumps(sides))
    return tmp_path


def test_missing_inputs_are_reported_before_slow_imports(here):
    recipe, train = str(ROOT / "configs" / "mlp.py"), ["train", "--config", str(ROOT / "configs" / "mlp.py")]
    lib, image, bundle = str(here / "lib"), str(here / "picture.png"), str(here / "bundle")
    cases = [
        (["train", "--config", "no/recipe.py"], "no/recipe.py"),
        (["train", "--recipe", "no"], "unknown recipe 'no'"),
        (["embed", "--recipe", "mlp", "--data", "txt:no.txt", "--out", "x"], "no.txt"),
        ([*train, "--config.data.captions=txt:no.txt"], "no.txt"),
        ([*train, "--config.data.captions=miniworld:9 + 2.5*csv:no.csv:caption"], "no.csv"),
        ([*train, "--config.source=/no/clip"], "/no/clip"),
        ([*train, "--config.source=~nosuchuser/clip"], "~nosuchuser/clip"),
        ([*train, "--config.target=miniworld/no"], "miniworld/no"),
        ([*train, "--config.target=OWNER/no"], "OWNER/no"),
        ([*train, "--config.images.files=no/pictures"], "no/pictures"),
        ([*train, "--config.source=", "--config.data.store=no/store"], "no/store"),
        ([*train, "--config.seed=-1"], "config.seed is -1; it must be 0 or more"),
        ([*train, "--workdir", str(here / "file")], "is a file: pass a folder"),
        ([*train, "--workdir", str(here / "file" / "run")], "is a file, not a folder"),
        ([*train, "--coordinator=here", "--num-processes=2", "--process-id=0"], "expected HOST:PORT"),
        ([*train, f"--coordinator=here:{'9' * 5000}", "--num-processes=2", "--process-id=0"], "expected HOST:PORT"),
        ([*train, "--coordinator=a..b:1234", "--num-processes=2", "--process-id=0"], "expected HOST:PORT"),
        ([*train, f"--coordinator={'a' * 64}:1234", "--num-processes=2", "--process-id=0"], "expected HOST:PORT"),
        (["embed", "--config", "no.py", "--out", str(here / "store")], "no.py"),
        (["embed", "--config", recipe, "--out", str(here / "file")], "is a file: pass a folder"),
        (["embed", "--config", recipe, "--out", "x", "--config.data.captions=tsv:no.tsv"], "no.tsv"),
        (["embed", "--from-arrays", "no.npy", "also-no.npy", "--out", str(here / "store")], "no.npy"),
        (["embed", "--info", "no/store"], "no/store"),
        (["embed", "--verify", "no/store"], "no/store"),
        (["infer", "no.png"], "no.png"),
        (["infer", image, "--translator", "no/run"], "no/run"),
        (["infer", image, "--translator", bundle, "--audioldm", "no/audio/ldm"], "no/audio/ldm"),
        (["infer", image, "--translator", bundle, "--clip", "./no-clip"], "./no-clip"),
        (["infer", image, "--translator", str(here / "moved"), "--save-embedding", "x.npy"], "no-clip"),
        (["infer", image, "--blend", "no.jpg"], "no.jpg"),
        (
            ["infer", image, "--translator", bundle, "--audioldm", "miniworld/audioldm", "--ranker", "/no.pt"],
            "/no.pt",
        ),
        (["infer", "a\0b.png"], "NUL"),
        (["search", image, "--library", "no/lib"], "no/lib"),
        (["search", "no.png", "--library", lib], "no.png"),
        (["search", image, "--library", lib, "--translator", "no/run"], "no/run"),
        (["search", "--text", "rain", "--library", lib, "--clap", "/no/clap"], "/no/clap"),
        (["evaluate", "no/run"], "no/run"),
        (["evaluate", bundle, "--out", "x", "--pairs", "no.csv"], "no.csv"),
        (["evaluate", bundle, "--out", "x", "--captions", "txt:no.txt"], "no.txt"),
        (["evaluate", bundle, "--out", "x", "--sounds", "no/sounds"], "no/sounds"),
        (["evaluate", bundle, "--out", "x", "--clap", "/no/clap"], "/no/clap"),
        (["calibrate", "no/run", "--images", image], "no/run"),
        (["calibrate", bundle, "--images", "no/pictures"], "no/pictures"),
        (["calibrate", bundle, "--sounds", "no/sounds"], "no/sounds"),
        (["export", "no/run", "--out", str(here / "out")], "no/run"),
        (["report", "no/run"], "no/run"),
        (["report", bundle, "--sounds", "no/sounds"], "no/sounds"),
        (["import-checkpoint", "no.pt", "--out", str(here / "out")], "no.pt"),
        (["miniworld", "show", "--count", "0"], "--count"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", REFUSE], input=json.dumps([arguments for arguments, _ in cases]), text=True, cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for (arguments, expected), line in zip(cases, done.stdout.splitlines(), strict=True):
        code, stderr, imported = json.loads(line)
        stderr = [line for line in stderr.splitlines() if "mini world's translator" not in line]
        assert (code, len(stderr), imported) == (2, 1, []), (arguments, stderr)
        assert expected in stderr[0] and stderr[0].startswith(f"c2c {arguments[0]}: "), stderr
    assert sorted(path.name for path in here.iterdir()) == [
        "bundle",
        "captions.txt",
        "file",
        "lib",
        "moved",
        "picture.png",
    ]


@pytest.mark.slow
def test_modules_import_without_unix_modules():
    """As on Windows, which also lacks SIGHUP. Extras that are not installed are skipped."""
    code = """
import importlib, pkgutil, os, signal, sys
import array_record, diffusers, filelock, flax.nnx, grain, jax, matplotlib.pyplot, optax, orbax.checkpoint, psutil, rich
from diffusers import AudioLDMPipeline, AutoencoderKL, UNet2DConditionModel
from transformers import PreTrainedModel, SpeechT5HifiGan
import scipy.signal, soundfile, soxr, tensorflow_datasets, tensorstore, torch, transformers
for name in ("fcntl", "resource", "termios", "pwd", "grp", "tty", "pty", "syslog", "posix_ipc"):
    sys.modules[name] = None
import c2c_jax
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "pthread_kill"):
    delattr(signal, name)
for name in ("getuid", "geteuid", "fork", "sched_getaffinity", "uname"):
    delattr(os, name)
wrong = []
for module in pkgutil.walk_packages(c2c_jax.__path__, "c2c_jax."):
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        if (error.name or "").startswith("c2c_jax") or error.name in ("fcntl", "resource", "termios", "pwd", "grp"):
            wrong.append(f"{module.name}: {error}")
    except Exception as error:
        wrong.append(f"{module.name}: {error!r}")
print(wrong)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr
