"""CSV rows: valid and damaged ones, and how many lines are read for them."""

import csv
import io

import pytest

from c2c_jax.io import rows
from c2c_jax.io.rows import Damage, csv_rows

LONG, UNMATCHED = Damage.LONG, Damage.UNMATCHED


def read(text: str, **options) -> list[tuple[int, list[str] | Damage]]:
    return list(csv_rows(io.BytesIO(text.encode()), 2**16, **options))


def test_a_damaged_row_takes_no_other_with_it():
    text = 'a,b\n1,"x\n\n2,"y\nz"\n' + "w" * 70_000 + '\n3,"never'
    assert read(text) == [
        (1, ["a", "b"]), (2, UNMATCHED), (3, []), (4, ["2", "y\nz"]), (6, LONG), (7, UNMATCHED),
    ]  # fmt: skip


def test_lenient_rows():
    """Text after a closing quote is kept; a row of several lines with another width than the first is damaged."""
    text = 'a,b\n1,"x" y\n2,"x\nz" y\n3,"u\nv",w\n'
    assert read(text, lenient=True) == [
        (1, ["a", "b"]), (2, ["1", "x y"]), (3, ["2", "x\nz y"]), (5, UNMATCHED), (6, ['v"', "w"]),
    ]  # fmt: skip
    assert [records for _, records in read(text)] == [
        ["a", "b"], UNMATCHED, UNMATCHED, ['z" y'], ["3", "u\nv", "w"],
    ]  # fmt: skip


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("line", ['""x', 'x","', 'x"",""","', '"', 'x,"'])
@pytest.mark.parametrize("end", ["", '"y"\n', '"\n'])
def test_quotes_that_stay_open_take_few_reads_of_each_line(monkeypatch, lenient, line, end):
    given, reader = 0, csv.reader

    def counted(lines):
        nonlocal given
        for text_line in lines:
            given += 1
            yield text_line

    monkeypatch.setattr(rows.csv, "reader", lambda lines, **options: reader(counted(lines), **options))
    records = read('a,b\n"\n' + f"{line}\n" * 20_000 + end, lenient=lenient)
    assert len(records) > 2 and given < 100_000
