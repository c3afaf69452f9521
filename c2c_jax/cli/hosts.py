"""Connects the JAX processes of several hosts, and ends each with a one-line message if another one is lost.

When process 0 is lost, JAX aborts the others with a C++ trace, which none of its options prevents. So they reach the
JAX of process 0 through relays that hide for a while that a connection broke, and a second connection, on which no data
is sent, detects the loss of a process at once. Both use only the address and port that the user passed.
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

HEARTBEAT_S = 20  # after which JAX gives up a host that does not answer while its connection is open
SHUTDOWN_S = 300  # for which a host that has finished waits for the others
JOIN_S = 300.0  # for which hosts wait for each other at the start
REPORT_S = 5.0  # between lines while they wait
RELAY_S = 3.0  # for which a relay hides that a connection broke
_LOOPBACK = "127.0.0.1"
_HELLO = struct.Struct("!II")  # begins a connection: process id and number of processes
_JAX = _HELLO.pack(0, 0)  # begins a connection of JAX's
_WELCOME, _REFUSED, _BYE = b"+", b"-", b"."

T = TypeVar("T")
_was_joined = threading.Event()


def was_joined() -> bool:
    """Whether this process has been one of several."""
    return _was_joined.is_set()


@contextlib.contextmanager
def joined(
    program: str, coordinator: str | None, num_processes: int | None, process_id: int | None, multihost: bool
) -> Iterator[None]:
    """Context in which JAX sees the devices of all hosts. On exit it waits until all hosts have reached it.

    coordinator: HOST:PORT of process 0, which listens only on that host's address if it belongs to its machine.
    multihost: for clusters that JAX detects, using JAX's own connection. program: prefix of the line printed when a
    host is lost. Raises ConfigError for incompatible flags, unusable addresses and hosts that do not join,
    TrainingError where JAX loses a host or runs out of memory.
    """
    explicit = (coordinator, num_processes, process_id)
    with explaining_jax():
        if any(value is not None for value in explicit):
            if coordinator is None or num_processes is None or process_id is None:
                raise ConfigError("--coordinator, --num-processes and --process-id go together")
            with _joined(program, _address(coordinator), num_processes, process_id):
                yield
        else:
            if multihost:
                _join_cluster()
            yield


@contextlib.contextmanager
def explaining_jax() -> Iterator[None]:
    """Turns what JAX raises for a lost host or too little memory into a TrainingError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # bases of JAX's own error, which is not imported for this alone
        if "jax" not in sys.modules:
            raise
        import jax

        is_joined = jax.distributed.is_initialized()
        if not (isinstance(error, jax.errors.JaxRuntimeError) or (is_joined and "Gloo" in str(error))):
            raise
        cause = one_line(error)[:200]
        if "RESOURCE_EXHAUSTED" in cause:
            raise TrainingError(
                f"the devices' memory is too small ({cause}); pass a smaller --config.batch_size, "
                "--config.objective.settings.remat=True or --config.data.loader=streamed"
            ) from error
        if not is_joined:
            raise
        raise TrainingError(_lost(cause)) from error


def _lost(which: str) -> str:
    return f"lost a host ({which}); start the same command again on all hosts: finished work is kept"


def _join_cluster() -> None:
    try:
        _initialize_jax()
    except (ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"--multihost: JAX finds no cluster here ({one_line(error)[:200]}); outside of Slurm, Kubernetes, Open MPI "
            "and TPU pods pass --coordinator, --num-processes and --process-id"
        ) from error


def _initialize_jax(address: str | None = None, count: int | None = None, process: int | None = None) -> None:
    import jax

    _was_joined.set()
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM, which is ours
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
def _joined(program: str, address: tuple[str, int], count: int, process: int) -> Iterator[None]:
    if not 0 <= process < count:
        raise ConfigError(f"--process-id must be from 0 to --num-processes - 1 ({count - 1}), found {process}")
    peers = _Peers(program, count)
    if process == 0:
        with socket.create_server((_LOOPBACK, 0)) as probe:
            port = probe.getsockname()[1]
        _start(_serve, _listen(address), peers, port)
        _wait(
            lambda: len(peers.connections) == count - 1,
            lambda: f"{len(peers.connections) + 1} of {count} hosts have joined",
        )
    else:
        _connect(address, peers, process)
        relay = socket.create_server((_LOOPBACK, 0))
        port = relay.getsockname()[1]
        _start(_accept, relay, lambda connection: _relay(connection, address, _JAX))
    _initialize_jax(f"{_LOOPBACK}:{port}", count, process)
    yield
    import jax

    jax.distributed.shutdown()  # waits for all; after an exception the process ends without
    peers.leave()


class _Peers:
    """The connections that show that other processes are there. connections: by process id."""

    def __init__(self, program: str, count: int):
        self.program, self.count = program, count
        self.connections: dict[int, socket.socket] = {}
        self.has_left = False

    def add(self, process: int, connection: socket.socket) -> bool:
        """Watches a process from now on; False where one of that number is there already."""
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
    """Process 0: answers on the named port. port: of its JAX."""

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
    """Another process: shows process 0 that it is there, once that one is."""
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
    """The first true result of `attempt`; until then prints what is missing every REPORT_S. Raises ConfigError after
    JOIN_S."""
    start = reported = time.monotonic()
    while not (found := attempt()):
        now = time.monotonic()
        if now - start > JOIN_S:
            raise ConfigError(f"after {JOIN_S:.0f} s {missing()}; start the same command on every host")
        if now - reported > REPORT_S:
            reported = now
            print(f"waiting: {missing()}", file=sys.stderr, flush=True)
        time.sleep(0.1)
    return found


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
    """Sends without delay, and notices a host without power or network in 12 s, before JAX does."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 4), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _relay(one: socket.socket, address: tuple[str, int], first: bytes = b"") -> None:
    """Passes bytes both ways between a connection and a new one to `address`, to which `first` is sent."""
    while True:
        try:
            other = _dial(address)
            break
        except OSError:  # JAX of process 0 does not listen yet
            time.sleep(0.05)
    other.sendall(first)
    _start(_pass_on, other, one)
    _pass_on(one, other)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
    time.sleep(RELAY_S)  # where a process is gone, `_Peers` ends this one before JAX notices
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = connection.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise ConnectionResetError
    return data


def _start(run: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=run, args=arguments, daemon=True).start()
