"""Embeds a recipe's captions with both text towers into a store on disk; shows and verifies stores.

examples:
  c2c embed --recipe mlp:gcc --data tsv:Train_GCC-training.tsv --out stores/gcc
  c2c embed --recipe mlp:gcc --data 'tsv:Train_GCC-training.tsv + jsonl:more.jsonl:caption' --out stores/gcc
      (embeds only new captions)
  c2c embed --from-arrays images.npy sounds.npy --out stores/mine
  c2c embed --info stores/gcc
  c2c embed --verify stores/gcc

To train on the store, pass --config.data.store=stores/gcc to c2c train. Run the same command again to resume an
interrupted pass, or to repair damaged and missing chunks of a finished store. On several hosts, run it on each, with
--multihost, or with --coordinator, --num-processes and --process-id.
"""

import argparse
from pathlib import Path

from c2c_jax.cli import arguments, recipe
from c2c_jax.cli.train import add_host_arguments, join_hosts_of
from c2c_jax.errors import ConfigError, StoreError
from c2c_jax.io.console import print_fields
from c2c_jax.io.files import user_path
from c2c_jax.io.output_paths import require_output_folder
from c2c_jax.io.progress import phase


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `c2c embed`."""
    recipe.add_arguments(parser)
    add_host_arguments(parser)
    parser.add_argument("--out", type=user_path, help="folder of the store to write")
    tasks = parser.add_mutually_exclusive_group()
    tasks.add_argument(
        "--from-arrays", nargs=2, type=user_path, metavar=("SOURCE.npy", "TARGET.npy"),
        help="make a store from paired vectors [N, E]; --spaces names their spaces (default: the file names)",
    )  # fmt: skip
    tasks.add_argument("--repair", help=argparse.SUPPRESS)  # of version 0.1
    tasks.add_argument("--info", type=user_path, metavar="STORE", help="print the contents of a store")
    tasks.add_argument("--verify", type=user_path, metavar="STORE", help="list damaged and missing chunks of a store")
    parser.add_argument(
        "--spaces", nargs=2, metavar=("SOURCE", "TARGET"), help="checkpoints that made the vectors of --from-arrays"
    )


def run(args: argparse.Namespace) -> None:
    """Runs `c2c embed`. Raises ConfigError for invalid flags, StoreError for a store or array that is missing or
    damaged, and CaptionError, CheckpointError or ImageError for another input that is missing or unreadable."""
    if args.repair:
        raise ConfigError("--repair no longer exists: run the command that made the store again, which repairs it")
    if store := args.info or args.verify:
        arguments.require_store(store)
        return _show(store) if args.info else _verify(store)
    if not args.out:
        raise ConfigError("--out FOLDER is missing: the folder of the store to write")
    if args.from_arrays:
        require_output_folder(args.out, "--out")
        for path in args.from_arrays:
            arguments.require_path(path, "an array", StoreError)
        arguments.require_checkpoints(*(args.spaces or ()))
        _store_arrays(args)
    else:
        config = recipe.requested_config(args)
        require_output_folder(args.out, "--out")
        recipe.require_sources(config)
        from c2c_jax.spaces.devices import split_cores_into_devices

        split_cores_into_devices()
        with join_hosts_of(args):
            from c2c_jax.data.embed import prepare_store

            prepare_store(config, args.out, verify=True)
    print_fields(args.out)


def _show(path: Path) -> None:
    from c2c_jax.data.store import SIDES, Store

    plan = Store.open(path).plan
    for side in SIDES:
        space = getattr(plan, side)
        print_fields(f"{side:<10}{space.name}, {space.dim} wide, {space.fingerprint[:12]}")
    size = plan.rows * (plan.source.dim + plan.target.dim) * (2 if plan.dtype == "float16" else 4)
    print(f"vectors   {plan.rows:,} pairs, {plan.dtype}, {size / 2**20:,.1f} MiB, computed in {plan.compute}")
    print(f"chunks    {plan.chunks:,} of {plan.chunk_rows:,} rows")
    for record in plan.sources:
        skipped = "".join(f", {count:,} skipped: {reason}" for reason, count in record.left_out.items())
        weight = "" if record.weight is None else f"weight {record.weight:g}, "
        duplicates = f", {record.duplicates:,} duplicates dropped" if plan.drop_duplicates else ""
        print_fields(f"captions  {record.spec}: {weight}{record.rows:,} rows{duplicates}{skipped}")


def _verify(path: Path) -> None:
    from c2c_jax.data.store import Store

    store, count = Store.open(path), 0
    with phase("checking the store"):
        for count, (part, chunk, how) in enumerate(store.damage(), start=1):  # noqa: B007
            if chunk is None:
                print_fields(f"{path / part / 'zarr.json'} is {how}")
            else:
                rows = store.plan.rows_of(chunk)
                print_fields(f"{path / part}: chunk {chunk} (rows {rows.start:,} to {rows.stop - 1:,}) is {how}")
    if count:
        raise StoreError(f"{path}: {count} damaged or missing chunks; {store.plan.repair_advice(path)}")
    print_fields(f"{path}: all {store.plan.chunks:,} chunks of {store.plan.rows:,} rows are intact")


def _store_arrays(args: argparse.Namespace) -> None:
    from c2c_jax.data.arrays import read_array, space_of_array, store_of_arrays
    from c2c_jax.spaces.space import identify

    arrays = read_array(args.from_arrays[0]), read_array(args.from_arrays[1])
    if args.spaces:
        source, target = (identify(name) for name in args.spaces)
    else:
        source, target = (
            space_of_array(path.name, array) for path, array in zip(args.from_arrays, arrays, strict=True)
        )
    store_of_arrays(args.out, arrays[0], arrays[1], (source, target))
