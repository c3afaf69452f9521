"""The wheel and the sdist: their files, their reproducibility, and what works in a plain installation."""

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from c2c_jax import __version__
from tests.fixtures.core_install import build, install, run_in
from tests.fixtures.programs import ROOT

NEED_TORCH = {
    "c2c_jax.generation.audioldm", "c2c_jax.generation.checkpoint", "c2c_jax.generation.griffin_lim",
    "c2c_jax.generation.rendering", "c2c_jax.publishing.onnx", "c2c_jax.torch",
}  # fmt: skip
NEED_TFDS = {"c2c_jax.data.tfds_sets", "c2c_jax.io.tfds", "c2c_jax.miniworld.dataset"}
EXTRAS = "torch", "diffusers", "accelerate", "tensorflow_datasets", "tensorflow", "datasets", "gradio", "onnx"

# Prints the modules of c2c_jax that cannot be imported, each with the package that it misses.
IMPORT_ALL = """
import importlib, json, pkgutil
import c2c_jax
missing = {}
for module in pkgutil.walk_packages(c2c_jax.__path__, "c2c_jax."):
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        missing[module.name] = error.name
print(json.dumps(missing))
"""

# Runs commands; prints the exit code, the lines of stdout and those of stderr of each.
RUN = """
import contextlib, io, json
from c2c_jax.cli.main import main
for arguments in {commands!r}:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    print(json.dumps([code, out.getvalue().splitlines(), err.getvalue().splitlines()]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    (path,) = build(tmp_path_factory.mktemp("dist"), "--wheel")
    return path


@pytest.fixture(scope="module")
def core(tmp_path_factory, wheel) -> Path:
    """A folder with the installed wheel and the packages that it requires without extras."""
    folder = tmp_path_factory.mktemp("core") / "site"
    install(wheel, folder)
    return folder


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "c2c_jax").rglob("*") if path.is_file()}
    assert names == {name for name in package if "__pycache__" not in name}
    assert names >= {
        "c2c_jax/py.typed", "c2c_jax/recipes/recommended.py", "c2c_jax/publishing/card.md.j2",
        "c2c_jax/evaluation/report/page.css", "c2c_jax/miniworld/checkpoints/translator/model.safetensors",
    }  # fmt: skip
    assert wheel.name == f"c2c_jax-{__version__}-py3-none-any.whl"


@pytest.mark.slow
def test_distributions_reproduce(tmp_path):
    """Two builds with one SOURCE_DATE_EPOCH give the same bytes; the sdist has all files under version control."""
    environment = {"SOURCE_DATE_EPOCH": "1700000000"}
    (wheel, sdist), again = (build(tmp_path / name, environment=environment) for name in ("first", "second"))
    assert [path.read_bytes() for path in (wheel, sdist)] == [path.read_bytes() for path in again]
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        assert {member.mtime for member in archive} == {1_700_000_000}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:  # an unpacked sdist has no repository
        assert {name for name in listed.stdout.splitlines() if not name.startswith(".ci/")} <= names
    twine = [sys.executable, "-m", "twine", "check", "--strict", sdist, wheel]
    assert subprocess.run(twine, capture_output=True).returncode == 0


def test_a_plain_installation_imports_everything_but_the_extras(core, tmp_path):
    assert not [name for name in EXTRAS if (core / name).exists()]
    missing = json.loads(run_in(core, IMPORT_ALL, tmp_path))
    assert missing == dict.fromkeys(NEED_TORCH, "torch") | dict.fromkeys(NEED_TFDS, "tensorflow_datasets")


def test_a_plain_installation_translates_and_searches(core, tmp_path):
    """What needs an extra says so on one line; everything else works outside of the repository."""
    image = str(ROOT / "examples" / "dog.png")
    pairs = str(tmp_path / "pairs")
    search = ["search", "--library", f"{pairs}/sounds", "--index", str(tmp_path / "index"), "--clap", "miniworld/clap"]
    commands = [
        ["miniworld", "export", "--split", "test", "--count", "3", "--out", pairs],
        ["infer", image, "--save-embedding", "dog.npy"],
        [*search, "--text", "a dog barks"],
        [*search, image],
        ["export", "miniworld/translator", "--out", "exported"],
        ["infer", image],
        ["export", "miniworld/translator", "--out", "graphs", "--onnx"],
    ]
    lines = run_in(core, RUN.format(commands=commands), tmp_path).splitlines()
    results = {" ".join(command): json.loads(line) for command, line in zip(commands, lines, strict=True)}
    for command in commands[:5]:
        assert results[" ".join(command)][0] == 0, results
    for command in commands[2:4]:
        assert len(results[" ".join(command)][1]) == 3
    assert not any("PyTorch" in line for _, _, stderr in results.values() for line in stderr)
    refused = (
        "c2c infer: generating sounds needs torch and diffusers, which are not installed: pip install 'c2c_jax[torch]'"
    )
    assert results[" ".join(commands[5])] == [2, [], [refused]]
    code, _, (line,) = results[" ".join(commands[6])]
    assert code == 2 and line.endswith("not installed: pip install 'c2c_jax[onnx]'")
    assert not (tmp_path / "graphs").exists()
