"""How many devices JAX sees on a CPU, and the compiler's options for each backend."""

import importlib.util
import os
from importlib.metadata import entry_points

import jax

DEVICES = (8, 4, 2, 1)  # powers of two, as batches are; each holds the weights


def devices_over_cores() -> None:
    """Makes JAX see several devices on a CPU, at most 8, that share its cores evenly.

    XLA multiplies matrices with one thread on each of two cores a sixth faster than with two threads on both. Only for
    the embedding pass, whose devices never wait for each other: in training, devices that wait take a thread each, and
    with so few threads would wait for ever. Does nothing where JAX may find an accelerator, where the user has set the
    number of devices or threads, or once JAX has looked for its devices.
    """
    is_set = {"NPROC", "JAX_NUM_CPU_DEVICES"} & set(os.environ)
    if is_set or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
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
    """The compiler's options on GPUs: no Triton kernels for matrix products.

    For exact float32 products of a text tower they compile for 47 s instead of 6 for each shape (H100), and are no
    faster than cuBLAS's. Other towers, steps and precisions were not measured.
    """
    return {"xla_gpu_enable_triton_gemm": False} if jax.default_backend() == "gpu" else {}


def tower_options() -> dict[str, str | bool]:
    """The compiler's options for the towers: `gpu_options`, and on a CPU Eigen's matrix products instead of YNNPACK's,
    which are a fifth slower at these sizes (`bench/embed.py`)."""
    is_cpu = jax.default_backend() == "cpu"
    return {"xla_cpu_experimental_ynn_fusion_type": ""} if is_cpu else gpu_options()
