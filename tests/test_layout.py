"""What the package's parts load, and which kinds they share."""

import subprocess
import sys

from c2c_jax.torch import translator as torch_translator
from c2c_jax.translator.kinds import TORCH_KINDS

HEAVY = "torch", "transformers", "diffusers", "matplotlib", "c2c_jax.miniworld", "c2c_jax.evaluation"


def test_training_loads_neither_towers_nor_reports():
    code = f"import sys, c2c_jax.training.train; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "\n"


def test_the_torch_module_has_the_built_in_kinds():
    assert set(TORCH_KINDS) == set(torch_translator.KINDS)
