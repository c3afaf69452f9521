"""Two processes joined over loopback: if one is lost for any reason, the other ends with one line."""

import os
import signal
import socket
import subprocess
import sys
from argparse import Namespace

import pytest

from c2c_jax.cli.hosts import _connect, _listen, _Peers, _serve, _start
from c2c_jax.cli.main import main
from c2c_jax.cli.train import join_hosts_of
from c2c_jax.errors import ConfigError
from c2c_jax.io.signals import SIGNALS
from tests.fixtures.programs import ROOT

# Prints "up" once both are joined, then waits: for nothing, for the other in a collective, or in compiled code.
PROGRAM = """
import sys, time
from c2c_jax.cli import main, miniworld
from c2c_jax.cli.hosts import join_hosts
process, address, place = int(sys.argv[1]), sys.argv[2], sys.argv[3]

def run(args):
    with join_hosts("c2c miniworld", address, 2, process, False):
        from jax.experimental import multihost_utils
        multihost_utils.sync_global_devices("up")
        print("up", flush=True)
        if place == "collective" or place == "end":
            sys.stdin.read()  # nothing comes
        if place == "collective":
            multihost_utils.sync_global_devices("never")
        while place == "python":
            time.sleep(0.1)

miniworld.run = run
main.program(["miniworld", "show"])
"""


def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def start(process: int, where: str, place: str, waits: bool) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(process), where, place],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE if waits else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("victim", "number", "place"),
    [
        (0, signal.SIGKILL, "python"),
        (1, signal.SIGKILL, "collective"),
        (0, signal.SIGTERM, "collective"),
        (1, signal.SIGINT, "end"),
    ],
)
def test_one_of_two_processes_is_lost(victim, number, place):
    where = address()
    both = [start(process, where, place, waits=process == victim) for process in range(2)]
    for process in both:
        while "up" not in (line := process.stdout.readline()):  # Gloo prints a line of its own
            assert line, process.stderr.read()
    both[victim].send_signal(number)
    other = both[1 - victim]
    error = other.stderr.read()
    assert other.wait() == 2 and error.startswith("c2c miniworld: lost a host"), error
    assert len(error.splitlines()) == 1 and "start the same command again on all hosts" in error
    own = both[victim].stderr.read()
    if number == signal.SIGKILL:
        assert both[victim].wait() == -number
    else:
        assert both[victim].wait() == 128 + number and own == f"c2c miniworld: {SIGNALS[number]}\n"
    for process in both:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


def test_both_processes_finish():
    where = address()
    both = [start(process, where, "done", waits=False) for process in range(2)]
    assert [process.communicate()[1] for process in both] == ["", ""] and [process.wait() for process in both] == [0, 0]


def test_process_0_listens_only_on_its_address():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with _listen(("127.0.0.1", port)) as server:
        assert server.getsockname() == ("127.0.0.1", port)
        with pytest.raises(ConfigError, match="cannot listen there"):
            _listen(("127.0.0.1", port))
    with _listen(("localhost", port)) as server:
        assert server.getsockname()[0] in ("127.0.0.1", "::1")


def test_an_address_of_another_machine_is_reported(capsys):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with _listen(("192.0.2.1", port)) as server:  # of no machine: RFC 5737
        assert server.getsockname() == ("0.0.0.0", port)
    assert "192.0.2.1 is not an address of this machine: listening on all addresses" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("here", 2, 0), "expected HOST:PORT"),
        (("here:0", 2, 0), "expected HOST:PORT"),
        (("here:99999", 2, 0), "expected HOST:PORT"),
        ((":5", 2, 0), "expected HOST:PORT"),
        (("127.0.0.1:5", 2, 2), "--process-id must be from 0 to"),
        (("127.0.0.1:5", 0, 0), "--process-id must be from 0 to"),
        (("127.0.0.1:5", 2, -1), "--process-id must be from 0 to"),
        (("127.0.0.1:5", None, 0), "go together"),
        (("no-such-host.invalid:5", 2, 0), "cannot listen there"),
    ],
)
def test_invalid_flags(flags, expected):
    coordinator, count, process = flags
    args = Namespace(verb="train", coordinator=coordinator, num_processes=count, process_id=process, multihost=False)
    with pytest.raises(ConfigError, match=expected), join_hosts_of(args):
        pass


def test_missing_hosts(monkeypatch, capsys):
    monkeypatch.setattr("c2c_jax.cli.hosts.JOIN_S", 0.0)
    for process, expected in ((0, "1 of 2 hosts have joined"), (1, "process 0 does not answer at 127.0.0.1")):
        args = Namespace(verb="x", coordinator=address(), num_processes=2, process_id=process, multihost=False)
        with pytest.raises(ConfigError, match=f"{expected}.*start the same command on every host"), join_hosts_of(args):
            pass


def test_unexpected_processes_are_rejected():
    host, _, port = address().rpartition(":")
    place, there = (host, int(port)), _Peers("x", 3)
    _start(_serve, _listen(place), there, 1)
    with socket.create_connection(place) as third:
        third.sendall(b"GET / HTTP/1.0\r\n\r\n")
    for process, count in ((1, 4), (3, 3), (0, 3)):
        with pytest.raises(ConfigError, match=f"rejected --process-id {process} of --num-processes {count}"):
            _connect(place, _Peers("x", count), process)
    one, other = _Peers("x", 3), _Peers("x", 3)
    _connect(place, one, 1)
    with pytest.raises(ConfigError, match="rejected --process-id 1"):
        _connect(place, _Peers("x", 3), 1)
    assert list(there.connections) == [1]
    _connect(place, other, 2)
    for peers in (there, one, other):
        peers.leave()
        for connection in peers.connections.values():
            connection.close()


def test_no_cluster(capsys, tmp_path):
    recipe = str(ROOT / "configs" / "mlp.py")
    code = main(["train", "--config", recipe, "--workdir", str(tmp_path / "run"), "--multihost"])
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and line.startswith("c2c train: --multihost") and "pass --coordinator" in line
