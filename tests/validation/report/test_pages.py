"""A page that would be too heavy shows fewer rows; in MLflow its links are others."""

import pytest

from validation.report.pages import MAX_BYTES, for_mlflow, within_limit


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


def test_in_mlflows_frame_what_cannot_be_opened_is_text() -> None:
    out, file = 'target="_blank" rel="noopener"', '<a href="file:///w/a%20&lt;b">Docs</a>'
    for place, shown in {
        "http://a/pages/runs": f'<a href="http://a/pages/cycles.html" {out}>All</a>',
        "s3://b/w/runs": "All (<code>s3://b/w/cycles.html</code>)",
    }.items():
        links = f'<a class="x" href="http://h?a&amp;b">X</a>, <a href="#term">cycle</a>, {file}'
        html = f'<h1>A</h1>{links}, <a href="../../../../cycles.html">All</a>'
        page = for_mlflow(html, f"{place}/r/compare_with_champion/output-1/verdict.html")
        links = f'<a href="http://h?a&amp;b" {out}>X</a>, cycle, Docs (<code>file:///w/a%20&lt;b'
        assert page.endswith(f"<h1>A</h1>{links}</code>), {shown}")
        assert f"{place}/r/compare_with_champion/output-1/verdict.html" in page
