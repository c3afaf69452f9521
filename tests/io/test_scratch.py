"""Arrays in temporary files, against arrays in memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from c2c_jax.io import scratch


def test_only_large_arrays_lie_in_a_file(monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY", 8 * 4 * 4)
    assert not isinstance(scratch.empty_vectors(7, 4), np.memmap)
    large = scratch.empty_vectors(8, 4)
    assert isinstance(large, np.memmap) and large.shape == (8, 4) and large.dtype == np.float32


IN_BLOCKS = """
import numpy as np
from c2c_jax.io import scratch

def resident():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return sum(int(lines[name].split()[0]) for name in ("RssFile", "RssShmem")) / 1024  # MiB

scratch.IN_MEMORY, rows, step = 2**27, 65_536, 4096
first, most = resident(), 0.0
vectors = scratch.empty_vectors(rows, 1024)
for passed in range(3):
    for start in range(0, rows, step):
        expected = np.arange(start, start + step, dtype=np.float32)[:, None] + np.arange(1024, dtype=np.float32) / 1024
        if passed == 0:
            vectors[start : start + step] = expected
        else:
            assert np.array_equal(vectors[start : start + step], expected)
        most = max(most, resident() - first)
print(most)
"""


def test_blocks_of_a_file_do_not_stay_in_memory():
    """256 MiB in blocks of 16, read twice: all bytes are correct, and little more than a block is resident."""
    status = Path("/proc/self/status")
    if not status.is_file() or "RssShmem" not in status.read_text():
        pytest.skip("the system does not tell which of a process's pages are of files")
    done = subprocess.run([sys.executable, "-c", IN_BLOCKS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 12 < float(done.stdout) < 64


def test_arrays_computed_from_a_file_are_in_memory(monkeypatch):
    monkeypatch.setattr(scratch, "IN_MEMORY", 1)
    vectors = scratch.empty_vectors(6, 4)
    vectors[:] = np.arange(24).reshape(6, 4)
    doubled, picked = 2 * vectors, vectors[[4, 1]]
    del vectors
    doubled[0] = 7
    np.testing.assert_array_equal(doubled[:2], [[7] * 4, [8, 10, 12, 14]])
    np.testing.assert_array_equal(picked, [[16, 17, 18, 19], [4, 5, 6, 7]])
