"""Connects the JAX processes of several hosts, and ends each with a one-line message if another one is lost.

When a peer is lost, JAX's own connection aborts the process with a C++ trace, and this cannot be turned off. So that
connection runs through relays that hide the loss, while a second connection, on which no data is sent, detects it at
once. Both use only the port and address that the user passed.
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

from c2c_jax.errors import ConfigError, TrainingError, one_line
from c2c_jax.io.signals import end_now

HEARTBEAT_S = 20  # after which JAX gives a host up that answers nothing, its connection open
SHUTDOWN_S = 300  # for which a host that has finished waits for the others
JOIN_S = 300.0  # for which hosts wait for each other at the start
SAY_S = 5.0  # between lines while they wait
LATE_S = 3.0  # for which a relay hides that a connection broke
_LOOPBACK = "127.0.0.1"
_ALIVE, _JAX = b"A", b"J"  # the first byte of a connection says which of the two it is
_HELLO = struct.Struct("!II")  # process id and number of processes
_WELCOME, _REFUSED, _BYE = b"+", b"-", b"."

_was_joined = threading.Event()


def was_joined() -> bool:
    """Whether this process has been one of several."""
    return _was_joined.is_set()


@contextlib.contextmanager
def joined(
    program: str, coordinator: str | None, num_processes: int | None, process_id: int | None, multihost: bool
) -> Iterator[None]:
    """Context in which JAX sees the devices of all hosts. On exit it waits until all hosts have reached it.

    coordinator: HOST:PORT of process 0, which listens only on that address if it belongs to its machine. multihost: for
    clusters that JAX detects, using JAX's own connection. program: prefix of the line printed when a host is lost.
    Raises ConfigError for incompatible flags, unusable addresses and hosts that do not join, TrainingError where JAX
    loses a host or runs out of memory.
    """
    explicit = (coordinator, num_processes, process_id)
    if any(value is not None for value in explicit):
        if coordinator is None or num_processes is None or process_id is None:
            raise ConfigError("--coordinator, --num-processes and --process-id go together")
        with explaining_jax(), _joined(program, _address(coordinator), num_processes, process_id):
            yield
    elif multihost:
        with explaining_jax():
            _join_cluster()
            yield
    else:
        with explaining_jax():
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

        is_lost = jax.distributed.is_initialized() and "Gloo" in str(error)
        if not (is_lost or isinstance(error, jax.errors.JaxRuntimeError)):
            raise
        if "RESOURCE_EXHAUSTED" in str(error):
            advice = (
                "pass a smaller --config.batch_size, --config.objective.recompute=True or --config.data.feed=streamed"
            )
            raise TrainingError(f"the devices' memory is too small ({one_line(error)[:200]}); {advice}") from error
        if not jax.distributed.is_initialized():
            raise
        raise TrainingError(_gone(one_line(error)[:200])) from error


def _gone(which: str) -> str:
    return f"lost a host ({which}); start the same command again on all hosts: finished work is kept"


def _join_cluster() -> None:
    import jax

    _was_joined.set()
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM, which is ours
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_S, shutdown_timeout_seconds=SHUTDOWN_S)
    except (ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"--multihost: JAX finds no cluster here ({one_line(error)[:200]}); outside of Slurm, Kubernetes, Open MPI "
            "and TPU pods pass --coordinator, --num-processes and --process-id"
        ) from error


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
    peers = _Peers(program)
    if process == 0:
        service = _free_port()
        local = f"{_LOOPBACK}:{service}"
        _serve(_listen(address), peers, count, service)
    else:
        _connect(address, peers, count, process)
        local = f"{_LOOPBACK}:{_serve_relay(address)}"
    import jax

    _was_joined.set()
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM, which is ours
    jax.distributed.initialize(
        local,
        count,
        process,
        coordinator_bind_address=local,
        heartbeat_timeout_seconds=HEARTBEAT_S,
        shutdown_timeout_seconds=SHUTDOWN_S,
    )
    yield
    jax.distributed.shutdown()  # waits for all; after an exception the process ends without
    peers.leave()


class _Peers:
    """The connections to other processes that show that these are there."""

    def __init__(self, program: str):
        self.program = program
        self.connections: dict[int, socket.socket] = {}
        self.changed = threading.Condition()
        self.has_left = False

    def add(self, process: int, connection: socket.socket) -> bool:
        """Watches a process from now on; False where one of that number is there already."""
        with self.changed:
            if process in self.connections:
                return False
            self.connections[process] = connection
            self.changed.notify_all()
        _start(self._watch, process, connection)
        return True

    def wait_for(self, count: int) -> None:
        """Waits until `count` others are there. Raises ConfigError after JOIN_S."""
        waits = _Waits(lambda: f"{len(self.connections) + 1} of {count + 1} hosts have joined")
        with self.changed:
            while len(self.connections) < count:
                self.changed.wait(waits.seconds())

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
            end_now(f"{self.program}: {_gone(f'process {process} has ended')}", 2)


class _Waits:
    """Says now and then what is waited for."""

    def __init__(self, say: Callable[[], str]):
        self.say, self.start, self.said = say, time.monotonic(), time.monotonic()

    def seconds(self) -> float:
        """For how long to wait before the next look. Raises ConfigError once all was waited."""
        now = time.monotonic()
        if now - self.start > JOIN_S:
            raise ConfigError(f"after {JOIN_S:.0f} s {self.say()}; start the same command on every host")
        if now - self.said > SAY_S:
            self.said = now
            print(f"waiting: {self.say()}", file=sys.stderr, flush=True)
        return 0.2


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


def _serve(server: socket.socket, peers: _Peers, count: int, service: int) -> None:
    """Process 0: answers on the named port, and waits for all others."""

    def answer(connection: socket.socket) -> None:
        try:
            kind = _receive(connection, 1)
            if kind == _JAX:
                _relay(connection, lambda: socket.create_connection((_LOOPBACK, service)))
            elif kind == _ALIVE:
                process, its_count = _HELLO.unpack(_receive(connection, _HELLO.size))
                fits = its_count == count and 0 < process < count
                if fits and peers.add(process, connection):
                    connection.sendall(_WELCOME)
                else:
                    connection.sendall(_REFUSED)
                    connection.close()
            else:
                connection.close()
        except OSError:  # something else than one of ours looked in
            connection.close()

    _start(_accept, server, answer)
    peers.wait_for(count - 1)


def _connect(address: tuple[str, int], peers: _Peers, count: int, process: int) -> None:
    """Another process: shows process 0 that it is there, once that one is."""
    host, port = address
    waits = _Waits(lambda: f"process 0 does not answer at {host}:{port}")
    while True:
        try:
            connection = _dial(address)
            connection.sendall(_ALIVE + _HELLO.pack(process, count))
            answer = _receive(connection, 1)
            break
        except OSError:
            time.sleep(waits.seconds())
    if answer != _WELCOME:
        connection.close()
        raise ConfigError(
            f"process 0 at {host}:{port} rejected --process-id {process} of --num-processes {count}: give each process "
            "a different id and all the same --num-processes"
        )
    peers.add(0, connection)


def _serve_relay(address: tuple[str, int]) -> int:
    """Another process: the local port through which its JAX reaches process 0."""
    server = socket.create_server((_LOOPBACK, 0))

    def dial() -> socket.socket:
        connection = _dial(address)
        connection.sendall(_JAX)
        return connection

    _start(_accept, server, lambda connection: _relay(connection, dial))
    return server.getsockname()[1]


def _dial(address: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(address, timeout=10)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _kept_alive(connection)


def _kept_alive(connection: socket.socket) -> socket.socket:
    """A host that lost its power or its network is noticed before JAX gives it up."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 4), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _accept(server: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    while True:
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _start(answer, _kept_alive(connection))


def _relay(one: socket.socket, dial: Callable[[], socket.socket]) -> None:
    """Passes bytes both ways between a connection and another that `dial` makes."""
    until = time.monotonic() + JOIN_S
    while True:
        try:
            other = dial()
            break
        except OSError:  # JAX of process 0 does not listen yet
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    _start(_pass_on, other, one)
    _pass_on(one, other)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(2**16):
            sink.sendall(data)
    except OSError:
        pass
    time.sleep(LATE_S)  # where a process is gone, `_Peers` ends this one before JAX sees it
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = connection.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise ConnectionResetError
    return data


def _free_port() -> int:
    with socket.create_server((_LOOPBACK, 0)) as probe:
        return probe.getsockname()[1]


def _start(run: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=run, args=arguments, daemon=True).start()
