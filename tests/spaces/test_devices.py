"""Number of devices that JAX sees on a CPU. Each test runs a new process, since JAX initialises devices once."""

import os
import subprocess
import sys

import pytest

SHOW = (
    "from c2c_jax.spaces.devices import split_cores_into_devices; "
    "{}split_cores_into_devices(); import jax; print(jax.device_count())"
)


def devices(cores: int, before: str = "", **environment: str) -> int:
    variables = {"XLA_FLAGS", "NPROC", "JAX_NUM_CPU_DEVICES"}
    inherited = {name: value for name, value in os.environ.items() if name not in variables}
    code = f"import os; os.sched_getaffinity = lambda _: range({cores}); " + SHOW.format(before)
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (6, 2), (7, 1), (64, 8)])
def test_devices_share_the_cores_evenly(cores, expected):
    assert devices(cores) == expected


@pytest.mark.slow
def test_user_settings_take_precedence():
    assert devices(4, NPROC="2") == 1
    assert devices(4, JAX_NUM_CPU_DEVICES="2") == 2
    assert devices(4, XLA_FLAGS="--xla_force_host_platform_device_count=5") == 5
    assert devices(4, before="import jax; jax.devices(); ") == 1
