"""Trains a translator on captions; embeds them first if that has not been done.

examples:
  python train.py --config configs/mlp.py                          (on the mini world, in runs/mlp)
  python train.py --config configs/mlp.py:gcc --workdir runs/gcc   (the paper's checkpoints and captions)
  python train.py --config configs/mlp_infonce.py --workdir runs/mine --config.data.captions=tsv:captions.tsv \\
      --config.source=FOLDER_OF_CLIP --config.target=FOLDER_OF_AUDIOLDM:text_encoder

Every field of c2c_jax/config.py is a flag --config.FIELD=VALUE. A run that was stopped goes on when started again; on
SIGTERM it saves a checkpoint first and ends with exit code 0. Several hosts: start the same command on each, with
--coordinator, --num-processes and --process-id (on Slurm, Kubernetes and TPU pods, --multihost alone). The work
directory and the store must then be on a shared file system.
"""

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from c2c_jax.errors import ConfigError, TrainingError, one_line
from c2c_jax.io.atomic import exclusive_lock

HEARTBEAT_S, SHUTDOWN_S = 20, 10  # after which a host that is gone is given up


def add_config_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--config",
        required=required,
        metavar="FILE",
        help="a recipe, such as configs/mlp.py, or configs/mlp.py:gcc for the paper's data",
    )
    parser.add_argument("--multihost", action="store_true", help="join the other hosts of a cluster that JAX knows")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, the same on every host")
    parser.add_argument("--num-processes", type=int, metavar="N", help="number of hosts")
    parser.add_argument("--process-id", type=int, metavar="I", help="this host's number, from 0")


def join_hosts(args: argparse.Namespace) -> None:
    """Starts jax.distributed where the flags ask for it. Raises ConfigError for flags that do not go together."""
    explicit = (args.coordinator, args.num_processes, args.process_id)
    if any(value is not None for value in explicit):
        if any(value is None for value in explicit):
            raise ConfigError("--coordinator, --num-processes and --process-id go together")
    elif not args.multihost:
        return
    import jax

    jax.distributed.initialize(*explicit, heartbeat_timeout_seconds=HEARTBEAT_S, shutdown_timeout_seconds=SHUTDOWN_S)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--workdir", type=Path,
        help="folder of the run: store, checkpoints, metrics.jsonl, bundle (default: runs/ and the recipe's name)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    join_hosts(args)
    from c2c_jax.cli.recipe import read_config
    from c2c_jax.data.embed import prepare_store
    from c2c_jax.training.check import check
    from c2c_jax.training.loop import train
    from c2c_jax.training.pictures import picture_vectors

    config = read_config(args.config, args.overrides)
    check(config)
    workdir = args.workdir or default_workdir(args.config)
    with sole_run(workdir), ending_on_sigterm(), telling_of_jax():
        store = prepare_store(config, Path(config.data.store or workdir / "store"))
        if train(config, store, workdir, picture_vectors(config.pictures, config.source, workdir)):
            print(workdir / "bundle")


def default_workdir(recipe: str) -> Path:
    """`configs/mlp.py` → `runs/mlp`, `configs/mlp.py:gcc` → `runs/mlp-gcc`."""
    path, _, world = recipe.partition(":")
    return Path("runs") / "-".join([Path(path).stem, *([world] if world else [])])


@contextlib.contextmanager
def sole_run(workdir: Path) -> Iterator[None]:
    """Raises TrainingError where another run is at work in `workdir`. Process 0 stands for all hosts."""
    import jax

    if jax.process_index():
        yield
        return
    try:
        with exclusive_lock(workdir):
            yield
    except BlockingIOError:
        raise TrainingError(f"another run is at work in {workdir}; wait for it, or pass another --workdir") from None


@contextlib.contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """While captions are embedded SIGTERM ends the program: finished chunks stay. Training sees to it itself."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def telling_of_jax() -> Iterator[None]:
    """Turns what JAX raises for a lost host or too little memory into a TrainingError."""
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            advice = (
                "pass a smaller --config.batch_size, --config.objective.recompute=True or --config.data.feed=streamed"
            )
            raise TrainingError(f"the devices' memory is too small ({one_line(error)[:200]}); {advice}") from error
        if jax.process_count() == 1:
            raise
        raise TrainingError(
            f"another host is gone ({one_line(error)[:200]}); start the same command on all hosts again: "
            "the run goes on from its last checkpoint"
        ) from error
