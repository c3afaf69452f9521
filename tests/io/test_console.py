"""Terminal output: names of any bytes on one line each, without control characters on terminals."""

import io
import os
import subprocess
import sys

import pytest

from c2c_jax.cli.main import main
from c2c_jax.io import console
from c2c_jax.io.console import SafeConsole, prepare_streams, printable
from tests.fixtures.programs import ROOT

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
