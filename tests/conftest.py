"""Four simulated CPU devices, exact float32, strict shapes, and the tiny checkpoints that all tests share."""

import atexit
import ctypes
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

# A suite in the background of a shell starts with SIGINT ignored, which its programs would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Set before jax is imported, which reads the number of devices once.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
# Each worker has one core; more threads of torch would wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
# Workers and the programs that tests start share compiled programs. The first process makes the folder and removes it;
# the others inherit its path.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="c2c-test-cache-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax  # noqa: E402
import psutil  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_default_matmul_precision", "float32")
jax.config.update("jax_numpy_rank_promotion", "raise")

from tests.fixtures.captions import captions  # noqa: E402

RESIDENT_BYTES = 5 * 2**28  # of a process, above which freed memory and compiled programs are released


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Keeps a worker below 2.5 GiB: glibc does not return freed memory to the system."""
    yield
    if psutil.Process().memory_info().rss > RESIDENT_BYTES:
        _trim()


@pytest.fixture(autouse=True, scope="module")
def bounded_programs() -> Iterator[None]:
    """Clears JAX's compiled programs, which it keeps for ever."""
    yield
    if psutil.Process().memory_info().rss > RESIDENT_BYTES:
        jax.clear_caches()
        gc.collect()
        _trim()


def _trim() -> None:
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@pytest.fixture
def registries() -> Iterator[None]:
    """Removes what a test registers: objectives, translator kinds, caption sources, checkpoint formats."""
    from c2c_jax.data.sources import SOURCES
    from c2c_jax.spaces.weights.formats import FORMATS
    from c2c_jax.training.objectives import OBJECTIVES
    from c2c_jax.translator.kinds import KINDS

    before = [(registry, dict(registry)) for registry in (OBJECTIVES, KINDS, SOURCES, FORMATS)]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)


@pytest.fixture(scope="session")
def caption_list() -> list[str]:
    return captions(600)


@pytest.fixture(scope="session")
def short_captions(caption_list: list[str]) -> list[str]:
    """300 captions of few different lengths: a tower is compiled for each length, which takes most of a test's time."""
    return sorted(caption_list, key=len)[:300]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory, caption_list: list[str]) -> Path:
    """A tiny CLIPModel with tokenizer and processor; every tensor is random."""
    from bench.checkpoints import build_clip  # imports torch

    folder = tmp_path_factory.mktemp("checkpoints") / "clip"
    build_clip(folder, caption_list)
    return folder


@pytest.fixture(scope="session")
def audioldm_folder(tmp_path_factory: pytest.TempPathFactory, caption_list: list[str]) -> Path:
    """A tiny random AudioLDM pipeline; its CLAP is `FOLDER:text_encoder`."""
    from bench.checkpoints import build_audioldm  # imports torch

    folder = tmp_path_factory.mktemp("checkpoints") / "audioldm"
    build_audioldm(folder, caption_list)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real captions; skips the test if there is none."""
    if "C2C_SHARED_DATA" not in os.environ:
        pytest.skip("C2C_SHARED_DATA is not set")
    return Path(os.environ["C2C_SHARED_DATA"])
