"""Prepares TFDS data sets on disk."""

import contextlib
import io
import shutil
from pathlib import Path

import tensorflow_datasets as tfds

from c2c_jax.errors import CaptionError
from c2c_jax.io.atomic import exclusive_lock


def prepare(builder: tfds.core.DatasetBuilder, config: tfds.download.DownloadConfig) -> None:
    """Prepares a data set on disk with its TFDS builder, after removing what killed processes left of it. Raises
    CaptionError if another process is preparing it."""
    folder = Path(builder.data_path).parent
    try:
        with exclusive_lock(folder):
            for unfinished in folder.glob("incomplete.*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            # TFDS prints two lines about downloads though there are none; its progress bars go to stderr.
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare(download_config=config)
    except BlockingIOError:
        raise CaptionError(f"another process is preparing the set in {folder}: wait until it is done") from None
