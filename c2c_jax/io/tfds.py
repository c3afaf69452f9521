"""Prepares TFDS data sets on disk."""

import contextlib
import io
import shutil
from pathlib import Path

import tensorflow_datasets as tfds

from c2c_jax.errors import CaptionError
from c2c_jax.io.atomic import exclusive_lock


def prepare(builder: tfds.core.DatasetBuilder, config: tfds.download.DownloadConfig) -> None:
    """Makes a set on disk by its TFDS builder, and removes what others that were killed have left of it. Raises
    CaptionError where another process makes it."""
    folder = Path(builder.data_path).parent
    try:
        with exclusive_lock(folder):
            for left in folder.glob("incomplete.*"):
                shutil.rmtree(left, ignore_errors=True)
            # TFDS prints two lines about downloads there are none of; its progress bars go to stderr.
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare(download_config=config)
    except BlockingIOError:
        raise CaptionError(f"another process is preparing the set in {folder}: wait until it is done") from None
