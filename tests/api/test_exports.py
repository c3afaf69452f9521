"""What `import c2c_jax` gives, and what it does not import."""

import subprocess
import sys

import pytest

import c2c_jax
from c2c_jax.api.messages import flags_to_arguments
from c2c_jax.errors import ConfigError


def test_all_names_exist_and_are_listed():
    assert set(c2c_jax.__all__) - {"__version__"} == set(c2c_jax._MODULES)
    for name in c2c_jax.__all__:
        assert getattr(c2c_jax, name) is not None and name in dir(c2c_jax)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = c2c_jax.nothing


def test_import_loads_no_library():
    heavy = "{'jax', 'flax', 'torch', 'transformers', 'diffusers', 'numpy', 'PIL', 'rich'}"
    code = f"import sys, c2c_jax; dir(c2c_jax); print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_load_does_not_import_torch():
    code = "import sys, c2c_jax; c2c_jax.load('miniworld/translator'); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "False", found.stderr


def test_the_root_logger_is_the_programs():
    code = "import logging, c2c_jax; c2c_jax.fit; c2c_jax.evaluate; print(logging.getLogger().handlers)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("pass a smaller --config.data.validation_size", "pass a smaller validation"),
        ("pass another --workdir", "pass another workdir"),
        ("--output-mean is 'x'", "output_mean is 'x'"),
        ("try --config.optimizer.clip_norm=1.0 or --mix", "try optimizer.clip_norm=1.0 or mix"),
        ("run c2c calibrate RUN --images photos/", "run c2c calibrate RUN --images photos/"),
        ("for --output-mean audio: run c2c calibrate --sounds", "for output_mean audio: run c2c calibrate --sounds"),
        ("--push me/x: run `hf auth login --force`", "push me/x: run `hf auth login --force`"),
        ("there is no a\nb", "there is no a\\nb"),
        ("an en dash – and -- two hyphens", "an en dash – and -- two hyphens"),
    ],
)
def test_messages_name_arguments(message, expected):
    @flags_to_arguments
    def fail():
        raise ConfigError(message)

    with pytest.raises(ConfigError) as raised:
        fail()
    assert str(raised.value) == expected
