"""Arguments of other types, in a process whose annotations are not checked: the tests' own are."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json

import numpy as np

import c2c_jax

vectors = np.random.default_rng(0).normal(size=(2, 100, 64))
quick = {"steps": np.int64(2), "batch_size": 64, "progress": False, "seed": np.int64(1)}
spaces = ("miniworld/clip", "miniworld/clap")
translator = c2c_jax.fit(*vectors, "mlp", spaces=spaces, validation=np.int64(30), **quick)
assert translator.metrics["held_out"] == 30
pipe = c2c_jax.pipeline(translator, progress=False)
assert pipe("examples/dog.png", steps=2, seconds=0.6, seed=np.int64(3)).seed == 3
clap = c2c_jax.load_space("miniworld/clap")
calls = {
    "validation": lambda: c2c_jax.fit(*vectors, validation="0.1", **quick),
    "recipe": lambda: c2c_jax.fit(*vectors, None, **quick),
    "batch size": lambda: c2c_jax.pipeline(translator, batch_size=1.5),
    "seed": lambda: pipe("examples/dog.png", seed=1.5),
    "steps": lambda: pipe("examples/dog.png", steps=2.5),
    "seconds": lambda: pipe("examples/dog.png", seconds="2"),
    "bootstrap": lambda: c2c_jax.evaluate(translator, bootstrap=None),
    "stereo": lambda: clap.encode_audio([np.zeros((2, 16_000))]),
    "integers": lambda: clap.encode_audio([np.zeros(16_000, np.int16)]),
    "file": lambda: clap.encode_audio(["a.wav"]),
}
errors = {}
for name, call in calls.items():
    try:
        call()
    except c2c_jax.C2CError as error:
        errors[name] = f"{type(error).__name__}: {error}"
print(json.dumps(errors))
"""
EXPECTED = {
    "validation": "ConfigError: validation must be a whole number, found '0.1'",
    "recipe": "ConfigError: recipe must be the name of a recipe or a Config, found a NoneType",
    "batch size": "ConfigError: batch_size must be a whole number, found 1.5",
    "seed": "ConfigError: seed must be a whole number, found 1.5",
    "steps": "GenerationError: a setting has a wrong type: Expected `int | null`, got `float` - at `$.steps`",
    "seconds": "GenerationError: a setting has a wrong type: Expected `float`, got `str` - at `$.seconds`",
    "bootstrap": "ConfigError: bootstrap must be a whole number, found None",
} | dict.fromkeys(
    ("stereo", "integers", "file"),
    "AudioError: a sound must be an array [samples] of floats in -1..1: average its channels first",
)


def test_wrong_types_are_errors_of_one_line():
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == EXPECTED
