"""Terminal output: names of any bytes on one line each, without control characters on terminals."""

import io
import logging
import os
import subprocess
import sys

import pytest

from c2c_jax.cli.main import main
from c2c_jax.io import console
from c2c_jax.io.console import SafeConsole, log_to_stderr, prepare_streams, printable
from c2c_jax.io.progress import Progress
from tests.fixtures.programs import ROOT
from tests.fixtures.terminal import terminal_stderr

NAME = os.fsdecode(b"caf\xe9 \xe6\x97\xa5")  # a byte that is not UTF-8, and a character that is


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ä 日", "plain ä 日"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J\x9b\x00", "\\x1b[2J\\x9b\\x00"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        (NAME, "caf\\xe9 日"),
        ("\ud800", "\\ud800"),
    ],
)
def test_printable(text, expected):
    assert printable(text) == expected


def test_a_string_is_one_line():
    shown = SafeConsole(file=io.StringIO(), soft_wrap=True, width=10)
    shown.print("left out: a\nb.wav")
    assert shown.file.getvalue() == "left out: a\\nb.wav\n"  # type: ignore[attr-defined]
    with pytest.raises(BrokenPipeError):
        shown.on_broken_pipe()


LOGGER = logging.getLogger("c2c_jax.io.somewhere")


def test_messages_are_escaped_lines_on_stderr(capsys):
    before = (logger := logging.getLogger("c2c_jax")).level, logger.propagate, [*logger.handlers]
    with log_to_stderr():
        LOGGER.info("left out: %s", "a\nb\x1b[2J.wav")
        LOGGER.warning("a [bold]name[/bold] of %d", 10_000)
        LOGGER.debug("hidden")
    captured = capsys.readouterr()
    assert captured.err == "left out: a\\nb\\x1b[2J.wav\na [bold]name[/bold] of 10000\n" and captured.out == ""
    assert (logger.level, logger.propagate, logger.handlers) == before
    LOGGER.info("nobody listens")
    assert capsys.readouterr().err == ""


def test_messages_after_stderr_was_closed(monkeypatch, capsys):
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        with log_to_stderr():
            LOGGER.warning("nobody reads this")
    monkeypatch.undo()
    assert capsys.readouterr().err == ""


def test_messages_that_nobody_reads(monkeypatch, capsys):
    """The caller gets the exception, as from `print`, and later messages go to the new stream alone."""
    read, write = os.pipe()
    os.close(read)
    with monkeypatch.context() as patch, open(write, "w", buffering=1, closefd=False) as stream:
        patch.setattr(sys, "stderr", stream)
        with log_to_stderr(), pytest.raises(BrokenPipeError):
            LOGGER.info("lost")
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)
    with log_to_stderr():
        LOGGER.info("read")
    assert capsys.readouterr().err == "read\n"


def test_messages_appear_above_bars(monkeypatch):
    """The bar is erased before the message is printed, and drawn again below it."""
    with terminal_stderr(monkeypatch) as screen, log_to_stderr(), Progress("sounds") as bar:
        bar.add_task("encoding", total=2)
        bar.refresh()
        start = screen.tell()
        LOGGER.warning("left out: a.wav")
        shown = screen.getvalue()[start:]
    erased, message, below = shown.partition("left out: a.wav\n")
    assert message and "\x1b[2K" in erased and "encoding" not in erased and "0 of 2" in below


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("to", "encoding", "expected"),
    [
        (io.BytesIO, "utf-8", b"caf\xe9 \xe6\x97\xa5"),
        (io.BytesIO, "ascii", b"caf\xe9 \xe6\x97\xa5"),
        (Terminal, "utf-8", b"caf\\udce9 \xe6\x97\xa5"),
        (Terminal, "ascii", b"caf\\udce9 \\u65e5"),
    ],
)
def test_streams_take_every_name(monkeypatch, to, encoding, expected):
    buffer = to()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer, encoding, write_through=True))
    prepare_streams()
    print(NAME, end="")
    print("|", NAME, file=sys.stderr, end="", sep="")
    assert buffer.getvalue() == expected + b"|" + expected
    assert console.stdout_console().is_terminal == (to is Terminal)


PROGRAM = """
import sys
from c2c_jax.cli import main, miniworld
def run(args):
    for _ in range(int(sys.argv[1])): print("x" * 99)
miniworld.run = run
main.program(["miniworld", "show"])
"""


@pytest.mark.parametrize("lines", [1, 10_000], ids=["at the end", "in between"])
def test_nobody_reads(lines):
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(lines)], env=environment, stdout=write, stderr=-1)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_full_disk():
    with open("/dev/full", "w") as full:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", PROGRAM, "1"], env=environment, stdout=full, stderr=-1)
    assert (done.returncode, done.stderr) == (2, b"c2c miniworld: input or output: No space left on device\n")


def test_closed_streams_take_everything(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["miniworld", "show", "--count", "0", "--out", "here"]) == 2
    for stream in (sys.stdout, sys.stderr):
        assert stream.name == os.devnull
        stream.close()
