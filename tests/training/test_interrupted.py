"""Runs that are killed at arbitrary moments and started again."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.fixtures.programs import interrupt, last_step, run, signalling, start, train_command, two_hosts
from tests.fixtures.random_store import random_store

# Validated only at the end, so that the bundle is of the last step.
EVENTS = "--config.log_every=10", "--config.eval_every=100000", "--config.checkpoint_every=50"
LONG = *EVENTS, "--config.epochs=200"  # 1,000 steps


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "store"
    random_store(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(store, tmp_path_factory) -> dict[str, np.ndarray]:
    """The weights of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    run(train_command(store, workdir, *LONG))
    return weights(workdir)


def weights(workdir: Path) -> dict[str, np.ndarray]:
    """The weights of the last step's bundle."""
    assert json.loads((workdir / "bundle" / "config.json").read_text())["metrics"]["step"] == last_step(workdir)
    return safetensors.numpy.load_file(workdir / "bundle" / "model.safetensors")


@pytest.mark.slow
def test_killed_and_terminated_run_ends_with_the_same_bits(store, unbroken, tmp_path):
    command = train_command(store, tmp_path / "run", *LONG)
    process = start(signalling(command, 130, signal.SIGKILL))
    output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, output
    output = run(signalling(command, 400, signal.SIGTERM))
    # The checkpoint of step 100 may have been incomplete.
    assert "resuming at step 100 of 1,000" in output or "resuming at step 50 of 1,000" in output
    (stopped,) = [line for line in output.splitlines() if line.startswith("stopped at step ")]
    assert "start again to resume" in stopped
    output = run(command)
    assert f"resuming at step {stopped.split()[3]} of 1,000" in output  # where it was stopped, not the last 50th step
    for key, expected in unbroken.items():
        np.testing.assert_array_equal(weights(tmp_path / "run")[key], expected, err_msg=key)


@pytest.mark.slow
def test_resumed_on_another_number_of_devices(store, tmp_path):
    """To the accuracy of float32 sums. At its usual epsilon Adam makes full steps of the last bits of gradients that
    are almost zero; a higher one lets 1e-4 mean something."""
    more = *EVENTS, "--config.epochs=60", "--config.optimizer.eps=1e-3"
    alone, command = (train_command(store, tmp_path / name, *more) for name in ("alone", "run"))
    run(alone)
    for devices, step in ((4, 70), (2, 160)):
        run(signalling(command, step, signal.SIGTERM), devices)
    output = run(command)
    assert "on 1 cpu device(s)" in output and "resuming at step" in output
    expected = weights(tmp_path / "alone")
    for key, found in weights(tmp_path / "run").items():
        np.testing.assert_allclose(found, expected[key], atol=1e-4, rtol=0, err_msg=key)


@pytest.mark.slow
def test_no_room_for_a_checkpoint(store, tmp_path):
    """A limit on the size of files stands for a full disk: the bundle fits (6 kB), what the state is described by
    (7.4 kB) does not, in however many files its values come."""
    command = train_command(
        store, tmp_path / "run", *LONG, "--config.translator.settings.width=32", "--config.translator.settings.depth=2"
    )
    program = (
        "import resource, sys; from c2c_jax.cli.main import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (7_000, resource.RLIM_INFINITY)); "
        f"sys.exit(main({['train', *command[2:]]!r}))"
    )
    process = start([command[0], "-c", program])
    output = process.communicate()[0]
    assert process.returncode == 2
    assert "Traceback" not in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("c2c train: the checkpoint of step 50 could not be written") and "File too large" in last


@pytest.mark.parametrize(
    ("number", "host"),
    [
        (signal.SIGKILL, 0),
        *(pytest.param(number, 1, marks=pytest.mark.slow) for number in (signal.SIGKILL, signal.SIGTERM)),
    ],
)
def test_signals_to_one_of_two_hosts(store, tmp_path, number, host):
    """If one host is killed, the other soon ends and says why. On SIGTERM, both save and exit with code 0."""
    command = train_command(store, tmp_path / "run", *EVENTS, "--config.epochs=100000")
    processes = [start(host_command, devices=2) for host_command in two_hosts(command)]
    interrupt(processes[host], tmp_path / "run", 10, number)
    output = processes[1 - host].communicate()[0]
    if number == signal.SIGTERM:
        assert [process.returncode for process in processes] == [0, 0]
        assert "stopped at step" in output
    else:
        assert processes[1 - host].returncode == 2
        assert output.count("lost a host") == 1 and "Traceback" not in output and "***" not in output
