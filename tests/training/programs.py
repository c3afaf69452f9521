"""The trainer as programs of their own, for tests that kill it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def train_command(store: Path, workdir: Path, *more: str) -> list[str]:
    """Training on a random store: 400 rows in batches of 80."""
    return [
        sys.executable, "train.py", "--config", "configs/mlp_infonce.py", "--workdir", str(workdir),
        "--config.source=", "--config.target=", f"--config.data.store={store}", "--config.data.holdout=100",
        "--config.batch_size=80", *more,
    ]  # fmt: skip


def two_hosts(command: list[str]) -> list[list[str]]:
    """The command for each of two processes joined over loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return [[*command, "--coordinator", address, "--num-processes", "2", "--process-id", str(i)] for i in range(2)]


def start(command: list[str], devices: int = 1) -> subprocess.Popen:
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(command: list[str], devices: int = 1) -> str:
    """Its output; it must end well."""
    process = start(command, devices)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


def last_step(workdir: Path) -> int:
    """Of the last whole line of metrics; 0 before the first."""
    metrics = workdir / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    steps = [json.loads(line)["step"] for line in lines if line.endswith("\n")]
    return steps[-1] if steps else 0


def signalling(command: list[str], step: int, number: signal.Signals) -> list[str]:
    """A command of `train_command` that sends itself a signal as soon as it has logged `step`, however slow it is."""
    program = f"""
import os
from c2c_jax.cli.main import program
from c2c_jax.training.log import RunLog

write = RunLog._write

def written(self, *arguments, **options):
    write(self, *arguments, **options)
    if self.step == {step}:
        os.kill(os.getpid(), {int(number)})

RunLog._write = written
program({["train", *command[2:]]!r})
"""
    return [command[0], "-c", program]


def interrupt(process: subprocess.Popen, workdir: Path, step: int, number: signal.Signals) -> str:
    """Sends a signal once the run has logged `step`; gives its output."""
    while last_step(workdir) < step:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(number)
    return process.communicate()[0]
