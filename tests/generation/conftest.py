"""Fixtures: a tiny AudioLDM of the original classes, and a copy of its folder to damage."""

import shutil
from pathlib import Path

import pytest

from bench.checkpoints import build_audioldm
from c2c_jax.generation.audioldm import AudioLDM

CAPTIONS = ["a dog barks at the rain", "low quality", "waves roll onto a beach", "a train passes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audioldm") / "tiny"
    build_audioldm(folder, CAPTIONS)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return AudioLDM.load(folder, device="cpu")


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))
