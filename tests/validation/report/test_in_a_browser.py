"""Our pages in a headless Chromium, as wide as a desk, as a phone and as a sheet of paper."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from pipelines.contracts.artifacts import ExpectationOutcome, Severity
from support import browser
from support.browser import MIN_TEXT_PX, PHONE, WIDE, bottoms_px, show
from support.cycle_pages import make_facts
from support.data_pages import SIZES, write_page
from support.find_servers import CHROMIUM
from support.outcome_pages import (
    LONG,
    MARKUP,
    OUTCOMES,
    huge_judgement,
    judgement_of,
    write_page_of,
)
from validation.report.charts import by_day
from validation.report.cycles_page import render_cycles
from validation.report.data_docs import Line, Subject, finish_data_docs

Views = dict[tuple[int, int], Page]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM.find() is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def views() -> Iterator[Views]:
    with browser.browser() as started:
        yield {size: browser.open_page(started, size) for size in (WIDE, PHONE)}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    return {name: write_page_of(judgement_of(name), folder / name) for name in OUTCOMES}


def assert_reads_well(
    views: Views, path: Path, *above: str, is_long: bool = False, fewest: int = 21
) -> None:
    """The page is light, nothing lies outside, is cut off or tiny, and its head is above the fold.

    What scrolls sideways, which is on a phone alone, says so and has a key. Axe takes ten seconds a
    page for the same markup again and again, so a long page is not shown to it.
    """
    assert path.stat().st_size <= 300_000
    for size, page in views.items():
        show(page, path)
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        assert browser.outside(page) == browser.cut_off(page) == []
        sizes = browser.text_sizes_px(page)
        assert len(sizes) >= fewest and min(sizes, default=MIN_TEXT_PX) >= MIN_TEXT_PX
        bottoms = bottoms_px(page, *above)
        assert bottoms == sorted(bottoms) and max(bottoms, default=0) <= size[1]
        for scrolls, says_so, has_key in browser.scrollers(page):
            assert scrolls == says_so == (size == PHONE) and has_key
        assert page.locator("script, link, img").count() == 0
        assert is_long or browser.axe_findings(page) == []


def unfold(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")


def assert_prints_well(page: Page) -> None:
    """What a page shows now is printed on A4 with margins of 1 cm."""
    size = page.viewport_size
    assert size is not None
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})
    try:
        assert browser.outside(page) == browser.off_paper(page) == []
        assert not any(scrolls or says for scrolls, says, _ in browser.scrollers(page))
    finally:
        page.emulate_media(media="screen")
        page.set_viewport_size(size)


ON_CALL = (".word", ".title", ".serves", ".why", ".next")
"""What a reader on call needs: decision, what serves, number, next step."""


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_verdict_reads_well(pages: dict[str, Path], views: Views, name: str) -> None:
    assert pages[name].stat().st_size <= 100_000
    is_long = name not in ("promote", "reject", "inconclusive")
    assert_reads_well(views, pages[name], *ON_CALL, is_long=is_long)
    assert views[WIDE].locator(".is-void").count() == (name == "void")
    # Before anything is unfolded.
    for size, most in ((WIDE, 3000), (PHONE, 5000)):
        assert views[size].evaluate("document.documentElement.scrollHeight") <= most


def test_axe_would_find_what_is_wrong(views: Views, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.html"
    pale = '<html lang="en"><title>x</title><main><h1 style="color:#ccc">pale</h1></main></html>'
    wrong.write_text(pale, "utf-8")
    (found,) = browser.axe_findings(show(views[WIDE], wrong))
    assert found.startswith("color-contrast (serious)")


def test_many_and_long_names_fit_on_screens_and_on_paper(views: Views, tmp_path: Path) -> None:
    path = write_page_of(huge_judgement(), tmp_path)
    assert_reads_well(views, path, is_long=True)
    assert_prints_well(views[PHONE])
    for view in views.values():
        unfold(show(view, path))
        assert view.locator(".ranked").count() == 10
        assert browser.outside(view) == browser.cut_off(view) == []


@pytest.mark.parametrize(
    ("num", "name"), [(0, "ranker"), (9, "homefeed_ranker"), (200, LONG + MARKUP)]
)
def test_the_index_reads_well(views: Views, tmp_path: Path, num: int, name: str) -> None:
    path = tmp_path / "cycles.html"
    path.write_text(render_cycles(make_facts(num, name)), "utf-8")
    # What serves and what the newest cycle came to stand above the fold.
    above = (".word", ".serves", ".title") if num < 200 else ()
    assert_reads_well(views, path, *above, is_long=num != 9, fewest=1)
    assert_prints_well(views[PHONE])


@pytest.mark.parametrize("name", SIZES)
def test_the_page_of_a_log_reads_well(views: Views, tmp_path: Path, name: str) -> None:
    path = write_page(tmp_path, name)
    assert_reads_well(views, path, ".verdict, .headline", is_long=name != "usual")
    assert_prints_well(views[PHONE])


FOUND = f"""<!DOCTYPE html>
<html><head><title>x</title><meta name="viewport" content="width=device-width"></head>
  <body><div class="container-fluid"><h6>Statistics</h6>
  <table><tr><th>Status</th><th>Expectation</th><th>Observed</th></tr>
  <tr><td>met</td><td><span>{LONG}</span></td><td>{"0123456789" * 9}</td></tr></table></div></body>
</html>"""
"""What Great Expectations writes, in its structure."""
REFUSED = ExpectationOutcome(
    name="label_rate_of_save",
    description=f"Saves per impression stay within 30 % of the last accepted snapshot. {LONG}",
    severity=Severity.CRITICAL,
    is_met=False,
    observed="-67 %",
    expected=f"within 30 % {MARKUP}",
    partitions=tuple(f"2017-03-0{day}" for day in range(1, 10)),
)


def test_the_data_docs_of_a_refused_snapshot_read_well_at_both_widths(
    views: Views, tmp_path: Path
) -> None:
    page = tmp_path / "data_docs" / "validations" / "examples" / "found.html"
    page.parent.mkdir(parents=True)
    page.write_text(FOUND, "utf-8")
    others = ({"severity": Severity.WARNING}, {"is_met": True})
    outcomes = (REFUSED, *(REFUSED.model_copy(update=update) for update in others))
    drawn = by_day(MARKUP, {"ours": [(736_000 + day, 1e6 * day) for day in range(40)]})
    lines = [Line(name, LONG, 1.5 - n / 999, n % 2 == 0, drawn)
             for n, name in enumerate((LONG, MARKUP) * 500)]  # fmt: skip
    subject = Subject("snapshot of 2017-03-02", "it may not be trained on", {"Rows": "9"},
                      tuple(lines), {"ours": "now", "theirs": LONG})  # fmt: skip
    finish_data_docs(tmp_path / "data_docs", subject, outcomes)
    path = tmp_path / "data_docs" / "index.html"
    assert_reads_well(views, path, ".word", fewest=0)
    for size, view in views.items():
        unfold(show(view, path))
        assert (
            browser.outside(view) == browser.cut_off(view) == []
            and view.get_by_text("more do not fit on a page").is_visible()
        )
        show(view, next(tmp_path.rglob("found.html")))
        assert view.evaluate("document.documentElement.scrollWidth") == size[0]
        assert browser.outside(view) == [] and browser.axe_findings(view) == []
