"""A page that would be too heavy shows fewer rows."""

import pytest

from validation.report.pages import MAX_BYTES, within_limit


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
    assert within_limit(lambda num: letter * 400_000, 3) == letter * 400_000  # one row at least
