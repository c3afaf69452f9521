"""Trains a translator on captions, after embedding them if necessary.

examples:
  python train.py --config configs/mlp.py                          (on the mini world, into runs/mlp)
  python train.py --config configs/mlp.py:gcc --workdir runs/gcc   (the paper's checkpoints and captions)
  python train.py --config configs/mlp_infonce.py --workdir runs/mine --config.data.captions=tsv:captions.tsv \\
      --config.source=FOLDER_OF_CLIP --config.target=FOLDER_OF_AUDIOLDM:text_encoder

Every field in c2c_jax/config.py can be set with --config.FIELD=VALUE. Run the same command again to resume an
interrupted run. On SIGTERM, a run saves a checkpoint and exits with code 0. On several hosts, run the same command on
each, with --coordinator, --num-processes and --process-id (on Slurm, Kubernetes and TPU pods, --multihost alone). The
work directory and the store must then be on a shared file system.
"""

import argparse
import contextlib
import signal
from pathlib import Path

from c2c_jax.cli.hosts import join_hosts
from c2c_jax.cli.recipe import read_config, require_sources
from c2c_jax.io.console import print_fields, stderr_console
from c2c_jax.io.files import user_path
from c2c_jax.io.output_paths import require_output_folder

EXIT_CODES = {int(signal.SIGTERM): 0}  # schedulers send it before they take a machine away; the run resumes later


def add_config_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds --config and the multi-host flags to a parser. required: whether --config is required."""
    parser.add_argument(
        "--config", required=required, metavar="FILE",
        help="recipe, such as configs/mlp.py, or configs/mlp.py:gcc for the paper's data",
    )  # fmt: skip
    parser.add_argument("--multihost", action="store_true", help="join the hosts of a cluster that JAX detects")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, the same on every host")
    parser.add_argument("--num-processes", type=int, metavar="N", help="number of processes, one per host")
    parser.add_argument("--process-id", type=int, metavar="I", help="index of this process, from 0")


def join_hosts_of(args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Context in which JAX sees the hosts that the flags name; see `join_hosts`."""
    return join_hosts(f"c2c {args.verb}", args.coordinator, args.num_processes, args.process_id, args.multihost)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `c2c train`."""
    add_config_arguments(parser)
    parser.add_argument(
        "--workdir", type=user_path,
        help="folder of the run: store, checkpoints, metrics.jsonl, bundle (default: runs/RECIPE)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Runs `c2c train`. Raises ConfigError for invalid settings, TrainingError for a run that fails, StoreError for a
    damaged store, and CaptionError, CheckpointError or ImageError for an input that is missing or unreadable."""
    workdir = args.workdir or default_workdir(args.config)
    config = read_config(args.config, args.overrides)
    require_output_folder(workdir, "--workdir")
    require_sources(config)
    with join_hosts_of(args):
        import jax

        from c2c_jax.data.embed import prepare_store
        from c2c_jax.data.images import image_vectors
        from c2c_jax.training.check import check
        from c2c_jax.training.curves import score_table
        from c2c_jax.training.run_state import exclusive_run
        from c2c_jax.training.train import train

        check(config)
        with exclusive_run(workdir):
            store = prepare_store(config, user_path(config.data.store) if config.data.store else workdir / "store")
            image_PS = image_vectors(config.images, config.source, workdir, store.plan.source.dim)
            result = train(config, store, workdir, image_PS)
            if result and jax.process_index() == 0:
                last = [entry for entry in result.history if entry["phase"] == "validation"][-1]
                stderr_console().print(score_table(result.bundle.metrics, last))
            if result:
                print_fields(workdir / "bundle")


def default_workdir(recipe: str) -> Path:
    """`configs/mlp.py` → `runs/mlp`, `configs/mlp.py:gcc` → `runs/mlp-gcc`."""
    path, _, preset = recipe.partition(":")
    return Path("runs") / "-".join([Path(path).stem, *([preset] if preset else [])])
