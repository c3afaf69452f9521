"""Status lines without a terminal, and estimates of the remaining time."""

import pytest

from c2c_jax.io import progress
from c2c_jax.io.progress import Progress, phase, time_left
from tests.fixtures.terminal import terminal_stderr


def at(bar: Progress, seconds: float) -> None:
    """Sets the clock to a number of seconds after the tasks began."""
    for task in bar.tasks:
        task.start_time = 0.0
    bar.get_time = lambda: seconds  # type: ignore[method-assign]
    for task in bar.tasks:
        task._get_time = lambda: seconds


def test_line():
    bar = Progress("sounds")
    assert bar.status_line() == ""
    seeing = bar.add_task("seeing", total=10)
    hearing = bar.add_task("hearing", total=20_000)
    at(bar, 10.0)
    assert bar.status_line() == "hearing 0 of 20,000 sounds"
    bar.advance(hearing, 500)
    assert bar.status_line() == "hearing 500 of 20,000 sounds, 50/s"  # 2.5 %: no estimate yet
    bar.advance(hearing, 1_500)
    assert bar.status_line() == "hearing 2,000 of 20,000 sounds, 200/s, 1:30 left"
    bar.advance(seeing, 4)
    assert bar.status_line() == "seeing 4 of 10 sounds, 0.4/s, 0:15 left"
    bar.advance(seeing, 6)
    assert bar.status_line() == ""  # finished


def test_line_of_unknown_length():
    bar = Progress()
    bar.begin("hashing")
    bar.begin("reading captions")
    at(bar, 12.0)
    assert bar.status_line() == "reading captions for 12 s"
    bar.advance(bar.task_ids[0], 3_600)
    assert bar.status_line() == "reading captions 3,600, 300/s" and len(bar.tasks) == 1


@pytest.mark.parametrize(
    ("done", "total", "seconds", "expected"),
    [
        (1, 100, 60.0, ""),
        (3, 100, 4.9, ""),
        (3, 100, 6.0, "3:14"),
        (50, 100, 3600.0, "1:00:00"),
        (50, None, 60.0, ""),
        (0, 100, None, ""),
        (100, 100, 60.0, "0:00"),
    ],
)
def test_time_left(done, total, seconds, expected):
    assert time_left(done, total, seconds) == expected


def test_lines_come_while_one_step_takes_long(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0.001)
    shown = ""
    with phase("loading"):
        while "loading for" not in shown:
            shown += capsys.readouterr().err
    silent = Progress(quiet=True)
    assert not silent._prints_lines and silent.disable
    with terminal_stderr(monkeypatch):
        assert not (bar := Progress())._prints_lines and not bar.disable


def test_counted():
    bar = Progress()
    bar.begin("reading", total=3)
    assert list(bar.counted("abc")) == ["a", "b", "c"]
