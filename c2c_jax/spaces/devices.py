"""What JAX is told about the devices: how many a CPU is, and what a GPU's compiler is to leave."""

import importlib.util
import os
from importlib.metadata import entry_points

import jax

DEVICES = (8, 4, 2, 1)  # powers of two, as batches are; each holds the weights


def devices_over_cores() -> None:
    """Makes JAX see several devices on a CPU, 8 at most that share its cores evenly, and batches as over accelerators.

    XLA multiplies matrices with one thread on each of two cores a sixth faster than with two threads on both. For the
    embedding pass alone, whose devices never wait for each other: devices that do, as in training, take a thread each
    while they wait, and with so few threads would wait for ever. Does nothing where JAX may find an accelerator, where
    the user has said how many devices or threads there are, or once JAX has looked for its devices.
    """
    told = {"NPROC", "JAX_NUM_CPU_DEVICES"} & set(os.environ)
    if told or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    has_plugin = bool(entry_points(group="jax_plugins")) or importlib.util.find_spec("libtpu") is not None
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms != "cpu" and (platforms or has_plugin):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = next(devices for devices in DEVICES if cores % devices == 0)
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:  # the devices are there already
        return
    os.environ["NPROC"] = str(cores // devices)  # threads of a device


def gpu_options() -> dict[str, str | bool]:
    """What the compiler is told where the devices are GPUs: not to try Triton's kernels for products of matrices.

    For exact float32 products they take most of a minute to compile for each shape of a text tower, 47 s where 6 do
    without them on an H100, and are no faster than cuBLAS's. Other towers, steps and precisions were not measured.
    """
    return {"xla_gpu_enable_triton_gemm": False} if jax.default_backend() == "gpu" else {}
