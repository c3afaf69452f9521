"""`python train.py --config configs/mlp.py --workdir runs/mlp`: see c2c_jax/cli/train.py."""

import sys

from c2c_jax.cli.main import program

if __name__ == "__main__":
    program(["train", *sys.argv[1:]])
