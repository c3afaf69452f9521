"""c2c_jax translates CLIP vectors to CLAP vectors, so that an image becomes a sound.

    translator = c2c_jax.load("miniworld/translator")
    clap_vectors = translator.translate(clip_vectors)

Importing this package imports neither JAX nor torch: each function and class is imported at its first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from c2c_jax.version import __version__

if TYPE_CHECKING:
    from c2c_jax.api.audio import Audio
    from c2c_jax.api.evaluate import Evaluation, evaluate
    from c2c_jax.api.fit import fit
    from c2c_jax.api.generate import Pipeline, pipeline
    from c2c_jax.api.library import Match, SoundLibrary
    from c2c_jax.api.translator import Translator, load
    from c2c_jax.errors import C2CError
    from c2c_jax.spaces.space import Space, load_space

__all__ = [
    "Audio",
    "C2CError",
    "Evaluation",
    "Match",
    "Pipeline",
    "SoundLibrary",
    "Space",
    "Translator",
    "__version__",
    "evaluate",
    "fit",
    "load",
    "load_space",
    "pipeline",
]

_MODULES = {
    "Audio": "api.audio",
    "C2CError": "errors",
    "Evaluation": "api.evaluate",
    "Match": "api.library",
    "Pipeline": "api.generate",
    "SoundLibrary": "api.library",
    "Space": "spaces.space",
    "Translator": "api.translator",
    "evaluate": "api.evaluate",
    "fit": "api.fit",
    "load": "api.translator",
    "load_space": "spaces.space",
    "pipeline": "api.generate",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'c2c_jax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"c2c_jax.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
