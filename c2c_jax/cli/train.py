"""Trains a translator on captions; embeds them first if that has not been done.

examples:
  python train.py --config configs/mlp.py --workdir runs/mlp
  python train.py --config configs/mlp_infonce.py --workdir runs/mine --config.data.captions=tsv:captions.tsv \\
      --config.source=FOLDER_OF_CLIP --config.target=FOLDER_OF_AUDIOLDM:text_encoder

Every field of c2c_jax/config.py is a flag --config.FIELD=VALUE. A run that was stopped goes on when started again.
Several hosts: start the same command on each, with --coordinator, --num-processes and --process-id (on Slurm,
Kubernetes and TPU pods, --multihost alone). The work directory and the store must then be on a shared file system.
"""

import argparse
from pathlib import Path

from c2c_jax.errors import ConfigError


def add_config_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument("--config", required=required, metavar="FILE", help="a recipe, such as configs/mlp.py")
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

    jax.distributed.initialize(*explicit)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--workdir", required=True, type=Path, help="folder of the run: store, checkpoints, metrics.jsonl, bundle"
    )


def run(args: argparse.Namespace) -> None:
    join_hosts(args)
    from c2c_jax.cli.recipe import read_config
    from c2c_jax.data.embed import prepare_store
    from c2c_jax.training.loop import check, train

    config = read_config(args.config, args.overrides)
    check(config)
    store = prepare_store(config, Path(config.data.store or args.workdir / "store"))
    train(config, store, args.workdir)
    print(args.workdir / "bundle")
