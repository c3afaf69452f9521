"""Splits a CPU into several JAX devices, and gives XLA's compiler options for each backend."""

import importlib.util
import os
from importlib.metadata import entry_points

import jax

DEVICES = (8, 4, 2, 1)  # powers of two, like batch sizes; each device has a copy of the weights


def split_cores_into_devices() -> None:
    """Makes JAX see up to 8 devices on a CPU, which share its cores evenly.

    On two cores, two devices with one thread each multiply matrices a sixth faster than one device with two threads.
    This is for the embedding pass only. In training, collectives block one thread per waiting device, so one
    thread per device would deadlock. Does nothing if JAX may find an accelerator, if the user has set the
    number of devices or threads, or if JAX is already initialised.
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
    except RuntimeError:  # JAX is already initialised
        return
    os.environ["NPROC"] = str(cores // devices)  # threads per device


def gpu_options() -> dict[str, str | bool]:
    """XLA's compiler options on GPUs: no Triton kernels for matrix products.

    For a text tower in exact float32, Triton kernels take 47 s to compile for each shape instead of 6 s (H100) and are
    not faster than cuBLAS. Other towers, training steps and precisions were not measured.
    """
    return {"xla_gpu_enable_triton_gemm": False} if jax.default_backend() == "gpu" else {}


def tower_options() -> dict[str, str | bool]:
    """XLA's compiler options for the towers: `gpu_options`, and on CPUs matrix products by Eigen, since YNNPACK's are a
    fifth slower at these sizes (`bench/embed.py`)."""
    is_cpu = jax.default_backend() == "cpu"
    return {"xla_cpu_experimental_ynn_fusion_type": ""} if is_cpu else gpu_options()
