"""Tables of days and rows of bars: how they are cut, and what is said."""

import pytest

from validation.report.bar_rows import Bar, BarRow, bar_rows
from validation.report.day_tables import COLUMNS_PER_TABLE, MAX_NAME, DayRow, day_tables
from validation.report.page_size import MAX_BYTES, within_limit


def rows_of(num_columns: int) -> list[DayRow]:
    counts = tuple((number, number / 100) for number in range(num_columns))
    return [DayRow(f"2017-01-0{day}", ("7",), counts) for day in (1, 2)]


def test_forty_columns_are_cut_into_tables_and_none_is_lost() -> None:
    names = [f"action_{number}" for number in range(40)]
    tables = day_tables(names, rows_of(40))
    assert [name for table in tables for name in table.names] == names
    assert [table.span for table in tables][:: len(tables) - 1] == [
        "columns 1 to 6 of 40",
        "columns 37 to 40 of 40",
    ]
    for day in (0, 1):
        cells = [cell for table in tables for cell in table.rows[day].counts]
        assert cells == list(rows_of(40)[day].counts)
        assert all(table.rows[day].always == ("7",) for table in tables)
    assert max(len(table.names) for table in tables) == COLUMNS_PER_TABLE


@pytest.mark.parametrize("num", [0, 1, COLUMNS_PER_TABLE])
def test_few_columns_are_one_table(num: int) -> None:
    (table,) = day_tables(["a"] * num, rows_of(num))
    assert (table.span, len(table.names), len(table.rows)) == ("", num, 2)


def test_of_a_long_name_beginning_and_end_are_shown() -> None:
    (table,) = day_tables(["x" * MAX_NAME, "begins_" + "x" * 90 + "_ends"], rows_of(2))
    assert table.names[0] == "x" * MAX_NAME
    assert table.names[1].startswith("begins_") and table.names[1].endswith("_ends")
    assert len(table.names[1]) <= MAX_NAME


def test_the_longest_bar_of_all_has_the_whole_width() -> None:
    rows = bar_rows(["0", "1+"], {"ours": [10.0, 40.0], "theirs": [80.0, 20.0]}, "{:.0f} %".format)
    assert rows[0] == BarRow("0", (Bar(12.5, "ours"), Bar(100.0, "theirs")), "10 %, 80 %")
    assert rows[1].numbers == "40 %, 20 %"
    (nothing,) = bar_rows(["0"], {"ours": [0.0]}, str)
    assert nothing.bars == (Bar(0.0, "ours"),)


@pytest.mark.parametrize("letter", ["x", "\N{EURO SIGN}"])
def test_a_page_that_would_be_too_heavy_has_fewer_rows(letter: str) -> None:
    asked: list[int] = []

    def render(num: int) -> str:
        asked.append(num)
        return letter * 1000 * num

    assert within_limit(render, 20) == letter * 20_000
    bytes_per_row = len((letter * 1000).encode())
    page = within_limit(render, 5000)
    most = MAX_BYTES // bytes_per_row
    assert 0.9 * most <= asked[-1] <= most and len(page.encode()) <= MAX_BYTES
    assert len(asked) <= 4


def test_one_row_is_shown_whatever_it_weighs() -> None:
    assert within_limit(lambda num: "x" * 400_000, 3) == "x" * 400_000
