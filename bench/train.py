"""Measures the training step against torch on the same vectors, and its memory at several batch sizes.

examples:
  python -m bench.train
  python -m bench.train --quick --json train.json

The work is `configs/mlp.py`'s, in larger batches: the 4-layer tanh MLP between spaces 512 wide, inverse Euclidean
distances of all pairs of a batch with cross-entropy along rows and columns, AdamW; rows are drawn from 65,536 float16
vectors in memory. Each implementation has its own process and they take turns, so that a slow moment of the machine
affects all of them; figures are medians. Torch is written as usual (nn.Sequential, cdist, cross_entropy), eager and
through torch.compile. The peak is that of XLA's product of two square matrices, measured in the same turns. On a GPU
(only one is used) both round float32 products to TF32 (ours as `--config.precision=tensorfloat32` does, with exact
logits), and memory is the device's.
"""

import functools
import multiprocessing
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bench.measure import bench_parser, peak_gib, report, timed

ROWS, DIM, DEPTH, CLAMP, MARGIN = 65_536, 512, 4, 0.2, 0.03
BATCHES = (1024, 4096)
MEMORY_BATCHES = (1024, 2048, 4096, 8192, 16_384, 32_768)
KEPT_MAX = 16_384  # rows; the trainer keeps no logits of larger batches
PAUSE = 0.1  # seconds between turns
SQUARE, DEVICE_SQUARE = 2048, 8192  # side of the matrices that measure the peak of a CPU and of a GPU
TURN_ROWS, DEVICE_TURN_ROWS = 10_240, 524_288  # minimum rows of a turn: some tenths of a second

Run = Callable[[int], float]  # runs a number of steps and returns the loss of the last one


def step_flops(batch: int) -> float:
    """Floating-point operations of a step's products: of each layer forward, for the gradients of its weights and
    (except for the first) of its inputs; of the logits forward and for the gradients of the predictions."""
    return 2 * batch * DIM * DIM * (3 * DEPTH - 1) + 2 * 2 * batch * batch * DIM


@functools.cache
def on_gpu() -> bool:
    import jax

    return jax.default_backend() == "gpu"


def vectors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(ROWS, DIM)).astype(np.float16), rng.normal(size=(ROWS, DIM)).astype(np.float16)


@functools.cache
def drawn(number: int, batch: int) -> np.ndarray:
    return np.random.default_rng((1, number)).permutation(ROWS)[:batch].astype(np.int32)


def rows_of(step: int, batch: int) -> np.ndarray:
    """The rows of a step, repeated after 32 steps so that drawing them takes no time."""
    return drawn(step % 32, batch)


def initial() -> Any:
    """The initial translator of all contestants."""
    from flax import nnx

    from c2c_jax.translator.kinds import TranslatorSpec, build_translator

    settings = {"width": DIM, "depth": DEPTH}
    spec = TranslatorSpec.of("mlp", settings, source_dim=DIM, target_dim=DIM, clamp=CLAMP, input_norm="none")
    return build_translator(spec, rngs=nnx.Rngs(0))


def ours(batch: int, remat: bool = False) -> Run:
    """The trainer's step, in one call per turn."""
    import jax
    import optax
    from flax import nnx
    from jax.sharding import NamedSharding, PartitionSpec

    from c2c_jax.training.objectives import build_objective
    from c2c_jax.training.step import TranslatorLoss, data_mesh, init_state, jit_steps, make_step

    mesh, done = data_mesh(), 0
    graphdef, params = nnx.split(initial(), nnx.Param)
    objective = build_objective("inverse_euclidean", {"margin_growth": MARGIN, "margin_max": MARGIN, "remat": remat})
    optimizer = optax.adamw(1e-3, weight_decay=0.01)
    loss = TranslatorLoss(graphdef=graphdef, objective=objective)
    step = make_step(loss, optimizer, optax.constant_schedule(1e-3), metrics_of=loss.metrics)
    run = jit_steps(step, lambda table, rows: (table[0][rows], table[1][rows]), mesh)
    table = jax.device_put(vectors(), NamedSharding(mesh, PartitionSpec()))
    state = init_state(params, objective, optimizer, mesh)
    max_steps = steps_a_turn(batch)

    def go(count: int) -> float:
        nonlocal state, done
        batches = np.stack([rows_of(done + place % count, batch) for place in range(max_steps)])
        state, metrics = run(state, table, batches, count)
        done += count
        return float(metrics["loss"][count - 1])

    return go


def torch_run(batch: int, compiled: bool) -> Run:
    import torch

    from c2c_jax.spaces.weights.rules import unfill
    from c2c_jax.translator.bundle import weight_table

    device = torch.device("cuda" if on_gpu() else "cpu")
    if on_gpu():
        torch.set_float32_matmul_precision("high")
    layers: list[torch.nn.Module] = []
    weights = unfill(initial(), weight_table(initial()))
    for number in range(DEPTH):
        linear = torch.nn.Linear(DIM, DIM)
        for leaf in ("weight", "bias"):
            getattr(linear, leaf).data = torch.from_numpy(weights[f"layers.{number}.{leaf}"].copy())
        layers += [linear, torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers[:-1]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    table, own, done = [torch.from_numpy(side).to(device) for side in vectors()], torch.arange(batch, device=device), 0

    def loss_of(source: torch.Tensor, target: torch.Tensor, margin: float) -> torch.Tensor:
        predicted = model(source.float()).clamp(-CLAMP, CLAMP)
        distances = torch.cdist(predicted, torch.nn.functional.normalize(target.float()))
        logits = torch.relu(1 / distances - margin)
        sides = (torch.nn.functional.cross_entropy(side, own) for side in (logits, logits.T))
        return sum(sides) / 2

    loss_fn = torch.compile(loss_of) if compiled else loss_of

    def go(count: int) -> float:
        nonlocal done
        batches = torch.from_numpy(np.stack([rows_of(done + place, batch) for place in range(count)])).to(device)
        for rows in batches:
            loss = loss_fn(table[0][rows], table[1][rows], MARGIN if done else 0.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
        return loss.item()

    return go


def square() -> int:
    return DEVICE_SQUARE if on_gpu() else SQUARE


def matmul() -> Run:
    import jax
    import jax.numpy as jnp

    a = jax.random.normal(jax.random.key(0), (square(),) * 2)
    product = jax.jit(jnp.matmul)

    def go(count: int) -> float:
        for _ in range(count):
            product(a, a).block_until_ready()
        return 0.0

    return go


CONTESTANTS: dict[str, Callable[[int], Run]] = {
    "torch_eager": lambda batch: torch_run(batch, compiled=False),
    "torch_compile": lambda batch: torch_run(batch, compiled=True),
    "ours": ours,
    "peak": lambda batch: matmul(),
}


def steps_a_turn(batch: int) -> int:
    return max((DEVICE_TURN_ROWS if on_gpu() else TURN_ROWS) // batch, 2)


def worker(connection: Connection, who: str, batch: int) -> None:
    """Reports that it is ready, then times the numbers of steps that it receives, until it receives 0."""
    run = CONTESTANTS[who](batch)
    for _ in range(3):  # torch.compile compiles again where a number has changed
        run(2)
    connection.send(0.0)
    while count := connection.recv():
        connection.send(timed(lambda count=count: run(count)) / count)


def compare(batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of a step (for the peak: of a product) of each contestant."""
    context = multiprocessing.get_context("spawn")
    names = [who for who in CONTESTANTS if who != "torch_compile" or shutil.which("g++")]
    at_work = {}
    for who in names:
        parent, theirs = context.Pipe()
        process = context.Process(target=worker, args=(theirs, who, batch), daemon=True)
        process.start()
        theirs.close()
        parent.recv()
        at_work[who] = (process, parent)
    seconds: dict[str, list[float]] = {who: [] for who in names}
    for _ in range(rounds):
        for who, (_, connection) in at_work.items():
            time.sleep(PAUSE)
            connection.send(steps_a_turn(batch))
            seconds[who].append(connection.recv())
    for process, connection in at_work.values():
        connection.send(0)
        process.join()
    return {who: statistics.median(times) for who, times in seconds.items()}


def memory_worker(connection: Connection, batch: int, remat: bool, turns: int) -> None:
    import jax

    run, steps = ours(batch, remat), steps_a_turn(batch) if on_gpu() else 1
    run(steps)
    times = [timed(lambda: run(steps)) / steps for _ in range(turns)]
    peak = jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 2**30 if on_gpu() else peak_gib()
    connection.send((peak, batch / statistics.median(times)))


def memory(batch: int, remat: bool, turns: int) -> tuple[float, float]:
    """Peak GiB of a training process, resident or on its GPU, and its rows per second."""
    context = multiprocessing.get_context("spawn")
    parent, theirs = context.Pipe()
    process = context.Process(target=memory_worker, args=(theirs, batch, remat, turns))
    process.start()
    theirs.close()
    figures = parent.recv()
    process.join()
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = bench_parser("bench.train", __doc__)
    parser.add_argument("--quick", action="store_true", help="5 rounds instead of 20; fewer batch sizes for memory")
    flags = parser.parse_args(arguments)
    # The contestants share one GPU.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if on_gpu():
        import torch

        if not torch.cuda.is_available():
            parser.error("only JAX has a GPU: install torch built for CUDA, or set JAX_PLATFORMS=cpu")
    figures: dict[str, float] = {}
    for batch in BATCHES:
        seconds = compare(batch, rounds=5 if flags.quick else 20)
        peak = 2 * square() ** 3 / seconds.pop("peak")
        figures[f"matmul_gflop_per_s_b{batch}"] = peak / 1e9
        for who, time_of_step in seconds.items():
            figures[f"{who}_rows_per_s_b{batch}"] = batch / time_of_step
            if who == "ours":
                figures[f"share_of_matmul_peak_b{batch}"] = step_flops(batch) / time_of_step / peak
            else:
                figures[f"rows_vs_{who}_b{batch}"] = time_of_step / seconds["ours"]
    if not shutil.which("g++"):
        print("torch.compile is left out: it needs g++, which is not installed")
    rates: dict[tuple[int, str], float] = {}
    for batch in MEMORY_BATCHES if not flags.quick else (4096, 8192, 32_768):
        for form in ("kept", "recomputed"):
            if form == "kept" and batch > KEPT_MAX:
                continue
            peak, rates[batch, form] = memory(batch, form == "recomputed", turns=3 if batch > 8192 else 10)
            figures |= {f"{form}_peak_gib_b{batch}": peak, f"{form}_rows_per_s_b{batch}": rates[batch, form]}
    figures["peak_gib_b32768"] = figures["recomputed_peak_gib_b32768"]
    faster = [b for b, form in rates if form == "kept" and rates[b, "kept"] >= rates[b, "recomputed"]]
    figures["kept_is_faster_up_to"] = max(faster, default=0)
    report("training steps, and the memory of a training process", figures, flags.json)


if __name__ == "__main__":
    main()
