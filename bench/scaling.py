"""Measures the work per device of a training step on 1, 2, 4 and 8 devices, by XLA's analysis of the program.

examples:
  python -m bench.scaling
  python -m bench.scaling --batch 8192 --json scaling.json

The step of `configs/mlp.py` at one global batch is compiled for the first n devices, which on a CPU are simulated, and
not run. Prints FLOPs, bytes of the results of collectives and peak memory, all per device, for the loss that keeps all
logits and for the one that recomputes them, in four chunks whose loop XLA counts once. FLOPs per device should fall as
1/n.
"""

import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bench.measure import bench_parser, report
from bench.train import DIM, initial
from c2c_jax.training.objectives import build_objective
from c2c_jax.training.step import TranslatorLoss, init_state, jit_step, make_step

DEVICES = (1, 2, 4, 8)
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "pred": 1, "f64": 8, "s64": 8}


def collective_bytes(hlo: str) -> int:
    """Bytes of the results of all collectives in a compiled program's text."""
    results = re.findall(rf"= (.*?) (?:{'|'.join(COLLECTIVES)})(?:-done)?\(", hlo)
    arrays = (array for result in results for array in re.findall(r"(\w+)\[([\d,]*)\]", result))
    return sum(BYTES[dtype] * math.prod(map(int, filter(None, shape.split(",")))) for dtype, shape in arrays)


def analyse(devices: int, batch: int, settings: dict[str, Any], kind: str) -> dict[str, float]:
    """FLOPs, collective bytes and peak bytes per device of a step compiled for `devices` devices."""
    mesh = Mesh(np.asarray(jax.devices()[:devices]), ("data",), axis_types=(AxisType.Auto,))
    graphdef, params = nnx.split(initial(), nnx.Param)
    objective, optimizer = build_objective(kind, settings), optax.adamw(1e-3)
    step = make_step(TranslatorLoss(graphdef=graphdef, objective=objective), optimizer, optax.constant_schedule(1e-3))
    state = init_state(params, objective, optimizer, mesh)
    rows = jax.ShapeDtypeStruct((batch, DIM), jnp.float16, sharding=NamedSharding(mesh, PartitionSpec("data")))
    compiled = jit_step(step, mesh).lower(state, rows, rows).compile()
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return {
        "flops": compiled.cost_analysis()["flops"],
        "collective_bytes": collective_bytes(compiled.as_text()),
        "peak_bytes": held - memory.alias_size_in_bytes,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = bench_parser("bench.scaling", __doc__)
    parser.add_argument("--batch", type=int, default=4096, help="rows of the global batch (default: 4096)")
    parser.add_argument("--objective", default="inverse_euclidean", help="or infonce, ...")
    parser.add_argument("--quick", action="store_true", help="the loss that keeps all logits alone")
    flags = parser.parse_args(arguments)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        fake = f"--xla_force_host_platform_device_count={DEVICES[-1]}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {fake}".strip()

    figures: dict[str, float] = {}
    forms = {"kept": {"loss_chunks": 1}, "recomputed": {"loss_chunks": 4, "remat": True}}
    for form, settings in list(forms.items())[: 1 if flags.quick else 2]:
        for devices in (n for n in DEVICES if n <= jax.device_count()):
            figures_of_step = analyse(devices, flags.batch, settings, flags.objective)
            figures |= {f"{form}_{name}_n{devices}": value for name, value in figures_of_step.items()}
            figures[f"{form}_flops_of_linear_n{devices}"] = (
                devices * figures_of_step["flops"] / figures[f"{form}_flops_n1"]
            )
    report(f"a step of {flags.batch:,} rows, {flags.objective}, per device", figures, flags.json)


if __name__ == "__main__":
    main()
