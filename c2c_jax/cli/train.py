"""Trains a translator on captions, after embedding them if necessary.

examples:
  c2c train --list                                            (the recipes of the package)
  c2c train --recipe miniworld                                (on the mini world, into runs/miniworld)
  c2c train --recipe mlp:gcc --workdir runs/gcc               (the paper's checkpoints and captions)
  c2c train --recipe recommended:gcc --data tsv:captions.tsv --images photos/ --workdir runs/mine
  c2c train --recipe recommended --data txt:captions.txt --workdir runs/mine \\
      --source FOLDER_OF_CLIP --target FOLDER_OF_AUDIOLDM:text_encoder
  c2c train --config my_recipe.py --config.batch_size=4096    (a recipe of your own)
  python train.py --config configs/mlp.py                     (in a clone: the same as --recipe mlp)

Every field in c2c_jax/config.py can be set with --config.FIELD=VALUE. Run the same command again to resume an
interrupted run. On SIGTERM, a run saves a checkpoint and exits with code 0. On several hosts, run the same command on
each, with --coordinator, --num-processes and --process-id (on Slurm, Kubernetes and TPU pods, --multihost alone). The
work directory and the store must then be on a shared file system.
"""

import argparse
import contextlib
import signal
from pathlib import Path

from c2c_jax.cli import recipe
from c2c_jax.cli.hosts import join_hosts
from c2c_jax.io.console import print_fields, stderr_console
from c2c_jax.io.files import user_path
from c2c_jax.io.output_paths import require_output_folder

EXIT_CODES = {int(signal.SIGTERM): 0}  # schedulers send it before they take a machine away; the run resumes later


def add_host_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the multi-host flags to a parser."""
    parser.add_argument("--multihost", action="store_true", help="join the hosts of a cluster that JAX detects")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, the same on every host")
    parser.add_argument("--num-processes", type=int, metavar="N", help="number of processes, one per host")
    parser.add_argument("--process-id", type=int, metavar="I", help="index of this process, from 0")


def join_hosts_of(args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Context in which JAX sees the hosts that the flags name; see `join_hosts`."""
    return join_hosts(f"c2c {args.verb}", args.coordinator, args.num_processes, args.process_id, args.multihost)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `c2c train`."""
    recipe.add_arguments(parser)
    parser.add_argument(
        "--images", metavar="PATH",
        help="64 or more unlabelled images: a folder, a quoted pattern, or an .npy file of raw CLIP vectors; short for "
        "--config.images.files=PATH",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print the recipes of the package")
    add_host_arguments(parser)
    parser.add_argument(
        "--workdir", type=user_path,
        help="folder of the run: store, checkpoints, metrics.jsonl, bundle (default: runs/RECIPE)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Runs `c2c train`. Raises ConfigError for invalid settings, TrainingError for a run that fails, StoreError for a
    damaged store, and CaptionError, CheckpointError or ImageError for an input that is missing or unreadable."""
    if args.list:
        return recipe.print_recipes()
    config = recipe.requested_config(args)
    workdir = args.workdir or default_workdir(args.recipe or args.config)
    require_output_folder(workdir, "--workdir")
    recipe.require_sources(config)
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


def default_workdir(name: str) -> Path:
    """`mlp` and `configs/mlp.py` → `runs/mlp`, `mlp:gcc` and `configs/mlp.py:gcc` → `runs/mlp-gcc`."""
    path, *preset = recipe.split_preset(name)
    return Path("runs") / "-".join([Path(path).stem, *filter(None, preset)])
