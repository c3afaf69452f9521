"""`python infer.py img.png [--translator BUNDLE --audioldm NAME]`: see c2c_jax/cli/infer.py."""

import sys

from c2c_jax.cli.main import program

if __name__ == "__main__":
    program(["infer", *sys.argv[1:]])
