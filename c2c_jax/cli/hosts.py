"""Connects the JAX processes of several hosts, and ends each with a one-line message if another one is lost.

When process 0 is lost, JAX aborts the other processes with a C++ trace, which no option prevents. So JAX connects to
process 0 through relays, which hide a broken connection for a few seconds. In that time a second, idle connection
between the processes reports the loss. Both use only the address and port that the user passed.
"""

import contextlib
import errno
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from c2c_jax.errors import ConfigError, TrainingError, one_line
from c2c_jax.io.signals import exit_now

HEARTBEAT_S = 20  # after which JAX considers a silent host lost, although its connection is open
SHUTDOWN_S = 300  # maximum time that a finished host waits for the others
JOIN_S = 300.0  # maximum time that hosts wait for each other at the start
REPORT_S = 5.0  # between progress lines while they wait
RELAY_S = 3.0  # time for which a relay hides a broken connection
_LOOPBACK = "127.0.0.1"
_HELLO = struct.Struct("!II")  # first message of a connection: process id and number of processes
_JAX = _HELLO.pack(0, 0)  # first message of a connection for JAX
_WELCOME, _REFUSED, _BYE = b"+", b"-", b"."

T = TypeVar("T")
_is_multihost = threading.Event()


def is_multihost() -> bool:
    """Whether this process has been part of a multi-host run."""
    return _is_multihost.is_set()


@contextlib.contextmanager
def join_hosts(
    program: str, coordinator: str | None, num_processes: int | None, process_id: int | None, multihost: bool
) -> Iterator[None]:
    """Context in which JAX sees the devices of all hosts. On exit it waits for all hosts to reach the same point.

    coordinator: HOST:PORT of process 0, which listens on that address alone if its machine has it. multihost: whether
    to join a cluster that JAX detects, through JAX's own connections. program: prefix of the line that is printed if a
    host is lost. Raises ConfigError for incompatible flags, unusable addresses and hosts that do not join,
    TrainingError if JAX loses a host or runs out of memory.
    """
    explicit = (coordinator, num_processes, process_id)
    with explain_jax_errors():
        if any(value is not None for value in explicit):
            if coordinator is None or num_processes is None or process_id is None:
                raise ConfigError("--coordinator, --num-processes and --process-id go together")
            with _join_by_address(program, _address(coordinator), num_processes, process_id):
                yield
        else:
            if multihost:
                _join_cluster()
            yield


@contextlib.contextmanager
def explain_jax_errors() -> Iterator[None]:
    """Converts JAX's lost-host and out-of-memory exceptions into TrainingError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # bases of JAX's own error, whose import would be slow
        if "jax" not in sys.modules:
            raise
        import jax

        is_connected = jax.distributed.is_initialized()
        if not (isinstance(error, jax.errors.JaxRuntimeError) or (is_connected and "Gloo" in str(error))):
            raise
        cause = one_line(error)[:200]
        if "RESOURCE_EXHAUSTED" in cause:
            raise TrainingError(
                f"the devices' memory is too small ({cause}); pass a smaller --config.batch_size, "
                "--config.objective.settings.remat=True or --config.data.loader=streamed"
            ) from error
        if not is_connected:
            raise
        raise TrainingError(_lost(cause)) from error


def _lost(which: str) -> str:
    return f"lost a host ({which}); start the same command again on all hosts; finished work is kept"


def _join_cluster() -> None:
    try:
        _initialize_jax()
    except (ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"--multihost: JAX detects no cluster ({one_line(error)[:200]}); outside of Slurm, Kubernetes, Open MPI "
            "and TPU pods pass --coordinator, --num-processes and --process-id"
        ) from error


def _initialize_jax(address: str | None = None, count: int | None = None, process: int | None = None) -> None:
    import jax

    _is_multihost.set()
    jax.config.update("jax_enable_preemption_service", False)  # it would handle SIGTERM, which we do
    jax.distributed.initialize(
        address,
        count,
        process,
        coordinator_bind_address=address,
        heartbeat_timeout_seconds=HEARTBEAT_S,
        shutdown_timeout_seconds=SHUTDOWN_S,
    )


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        host.encode("idna")  # as sockets do
        is_address = bool(host) and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 2**16
    except UnicodeError:
        is_address = False
    if not is_address:
        raise ConfigError(f"--coordinator is {coordinator!r}: expected HOST:PORT, such as 10.0.0.1:1234")
    return host, int(port)


@contextlib.contextmanager
def _join_by_address(program: str, address: tuple[str, int], count: int, process: int) -> Iterator[None]:
    if not 0 <= process < count:
        raise ConfigError(f"--process-id must be from 0 to --num-processes - 1 ({count - 1}), found {process}")
    peers = _Peers(program, count)
    if process == 0:
        with socket.create_server((_LOOPBACK, 0)) as probe:
            port = probe.getsockname()[1]
        _start(_serve, _listen(address), peers, port)
        _wait(
            lambda: len(peers.connections) == count - 1,
            lambda: f"only {len(peers.connections) + 1} of {count} hosts have joined",
        )
    else:
        _connect(address, peers, process)
        relay = socket.create_server((_LOOPBACK, 0))
        port = relay.getsockname()[1]
        _start(_accept, relay, lambda connection: _relay(connection, address, _JAX))
    _initialize_jax(f"{_LOOPBACK}:{port}", count, process)
    yield
    import jax

    jax.distributed.shutdown()  # waits for all processes; skipped after an exception
    peers.leave()


class _Peers:
    """Idle connections to other processes, which break when a process is lost. connections: by process id."""

    def __init__(self, program: str, count: int):
        self.program, self.count = program, count
        self.connections: dict[int, socket.socket] = {}
        self.has_left = False

    def add(self, process: int, connection: socket.socket) -> bool:
        """Starts to watch a process. Returns False if a process with that id has joined already."""
        is_new = self.connections.setdefault(process, connection) is connection
        if is_new:
            _start(self._watch, process, connection)
        return is_new

    def leave(self) -> None:
        self.has_left = True
        for connection in self.connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(_BYE)

    def _watch(self, process: int, connection: socket.socket) -> None:
        try:
            last = connection.recv(1)
        except OSError:
            last = b""
        if last != _BYE and not self.has_left:
            exit_now(f"{self.program}: {_lost(f'process {process} has ended')}", 2)


def _listen(address: tuple[str, int]) -> socket.socket:
    host, port = address
    try:
        (family, _, _, _, place), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        try:
            return socket.create_server(place[:2], family=family, backlog=128)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
        print(f"{host} is not an address of this machine: listening on all addresses", file=sys.stderr)
        return socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise ConfigError(f"--coordinator {host}:{port}: process 0 cannot listen there ({error.strerror})") from None


def _serve(server: socket.socket, peers: _Peers, port: int) -> None:
    """Process 0: answers the connections of other processes. port: of its JAX."""

    def answer(connection: socket.socket) -> None:
        hello = _receive(connection, _HELLO.size)
        process, count = _HELLO.unpack(hello)
        if hello == _JAX:
            _relay(connection, (_LOOPBACK, port))
        elif count == peers.count and 0 < process < count and peers.add(process, connection):
            connection.sendall(_WELCOME)
        else:
            connection.sendall(_REFUSED)
            connection.close()

    _accept(server, answer)


def _connect(address: tuple[str, int], peers: _Peers, process: int) -> None:
    """Other processes: join process 0, as soon as it listens."""
    host, port = address

    def greet() -> tuple[bytes, socket.socket] | None:
        try:
            connection = _dial(address)
            connection.sendall(_HELLO.pack(process, peers.count))
            return _receive(connection, 1), connection
        except OSError:
            return None

    answer, connection = _wait(greet, lambda: f"process 0 does not answer at {host}:{port}")
    if answer != _WELCOME:
        connection.close()
        raise ConfigError(
            f"process 0 at {host}:{port} rejected --process-id {process} of --num-processes {peers.count}: give each "
            "process a different id and all the same --num-processes"
        )
    peers.add(0, connection)


def _wait(attempt: Callable[[], T | None], missing: Callable[[], str]) -> T:
    """Repeats `attempt` until its result is true, and returns the result. Prints what is missing every REPORT_S. Raises
    ConfigError after JOIN_S."""
    start = reported = time.monotonic()
    while not (result := attempt()):
        now = time.monotonic()
        if now - start > JOIN_S:
            raise ConfigError(f"{missing()} after {JOIN_S:.0f} s; start the same command on every host")
        if now - reported > REPORT_S:
            reported = now
            print(f"waiting: {missing()}", file=sys.stderr, flush=True)
        time.sleep(0.1)
    return result


def _accept(server: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    def run(connection: socket.socket) -> None:
        try:
            answer(_prepared(connection))
        except OSError:  # the connection broke, or is not one of ours
            connection.close()

    while True:
        _start(run, server.accept()[0])


def _dial(address: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(address, timeout=10)
    connection.settimeout(None)
    return _prepared(connection)


def _prepared(connection: socket.socket) -> socket.socket:
    """Makes a connection send without delay, and detect a host without power or network within 12 s, before JAX
    does."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 4), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _relay(connection: socket.socket, address: tuple[str, int], first: bytes = b"") -> None:
    """Passes bytes both ways between a connection and a new one to `address`. first: bytes to send to it first."""
    while True:
        try:
            other = _dial(address)
            break
        except OSError:  # JAX of process 0 does not listen yet
            time.sleep(0.05)
    other.sendall(first)
    _start(_pass_on, other, connection)
    _pass_on(connection, other)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
    time.sleep(RELAY_S)  # if a process is lost, `_Peers` ends this one in the meantime
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = connection.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise ConnectionResetError
    return data


def _start(run: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=run, args=arguments, daemon=True).start()
