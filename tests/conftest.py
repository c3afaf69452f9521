"""Four fake CPU devices, exact float32, strict shapes, and the tiny checkpoints every test shares."""

import atexit
import ctypes
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

# A suite in a shell's background is started with SIGINT ignored, and so would be its programs.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Before jax is imported anywhere: the number of devices is read once.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
# Each half of the suite has a core: torch's threads would wait for each other's.
os.environ["OMP_NUM_THREADS"] = "1"
# The two halves of the suite, and the programs that its tests start, compile the same towers: once a run is enough.
# The first process makes the folder and takes it away; those that it starts find it in their environment.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="c2c-test-cache-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import jax  # noqa: E402
import psutil  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_default_matmul_precision", "float32")
jax.config.update("jax_numpy_rank_promotion", "raise")

from bench.checkpoints import build_audioldm, build_clip  # noqa: E402
from tests.fixtures.captions import captions  # noqa: E402

RESIDENT_BYTES = 5 * 2**28  # of a process, above which freed memory and compiled programs are given back


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Keeps a worker below 2.5 GiB: glibc keeps what towers of published sizes have freed."""
    yield
    if psutil.Process().memory_info().rss > RESIDENT_BYTES:
        _trim()


@pytest.fixture(autouse=True, scope="module")
def bounded_programs() -> Iterator[None]:
    """JAX keeps every program that it has compiled."""
    yield
    if psutil.Process().memory_info().rss > RESIDENT_BYTES:
        jax.clear_caches()
        gc.collect()
        _trim()


def _trim() -> None:
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@pytest.fixture(scope="session")
def caption_list() -> list[str]:
    return captions(600)


@pytest.fixture(scope="session")
def short_captions(caption_list: list[str]) -> list[str]:
    """300 captions of few token counts: a tower compiles for each length, which is most of a test's time."""
    return sorted(caption_list, key=len)[:300]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory, caption_list: list[str]) -> Path:
    """A tiny random CLIPModel with tokenizer and processor, every tensor random."""
    folder = tmp_path_factory.mktemp("checkpoints") / "clip"
    build_clip(folder, caption_list)
    return folder


@pytest.fixture(scope="session")
def audioldm_folder(tmp_path_factory: pytest.TempPathFactory, caption_list: list[str]) -> Path:
    """A tiny random AudioLDM pipeline; its CLAP is `FOLDER:text_encoder`."""
    folder = tmp_path_factory.mktemp("checkpoints") / "audioldm"
    build_audioldm(folder, caption_list)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real captions, where there is one."""
    if "C2C_SHARED_DATA" not in os.environ:
        pytest.skip("C2C_SHARED_DATA is not set")
    return Path(os.environ["C2C_SHARED_DATA"])
