"""Fixture that captures the messages of training."""

import logging

import pytest


@pytest.fixture(autouse=True)
def messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "c2c_jax")
