"""Our pages in a headless Chromium, as wide as a desk, as a phone and as a sheet of paper."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page

from pipelines.contracts.artifacts import ExpectationOutcome, Severity
from support import browser
from support.browser import MIN_TEXT_PX, PHONE, WIDE, bottoms_px, show
from support.cycle_pages import make_facts
from support.data_pages import SIZES, write_pages
from support.find_servers import CHROMIUM
from support.outcome_pages import (
    LONG,
    MARKUP,
    OUTCOMES,
    huge_judgement,
    judgement_of,
    write_page_of,
)
from validation.report.cycles_page import render_cycles
from validation.report.data_docs import Subject, finish_data_docs

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM.find() is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def views() -> Iterator[dict[tuple[int, int], Page]]:
    with browser.browser() as started:
        yield {size: browser.open_page(started, size) for size in (WIDE, PHONE)}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    return {name: write_page_of(judgement_of(name), folder / name) for name in OUTCOMES}


@contextmanager
def on_paper(page: Page) -> Iterator[Page]:
    """Show what a page shows now as it is printed on A4 with margins of 1 cm, for a while."""
    size = page.viewport_size
    assert size is not None
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})
    try:
        yield page
    finally:
        page.emulate_media(media="screen")
        page.set_viewport_size(size)


@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_a_verdict_reads_well_at_both_widths(
    pages: dict[str, Path],
    views: dict[tuple[int, int], Page],
    name: str,
    size: tuple[int, int],
) -> None:
    page = show(views[size], pages[name])
    width, height = size
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert browser.outside(page) == []
    assert browser.cut_off(page) == []
    sizes = browser.text_sizes_px(page)
    assert len(sizes) > 20 and min(sizes) >= MIN_TEXT_PX
    # What a reader on call needs stands above the fold: decision, what serves, number, next step.
    on_call = bottoms_px(page, ".word", ".serves", ".title", ".why", ".next")
    assert on_call == sorted(on_call) and on_call[-1] <= height
    assert page.locator(".is-void").count() == (name == "void")
    for scrolls, says_so, has_key in browser.scrollers(page):
        assert scrolls == says_so == (size == PHONE) and has_key
    assert pages[name].stat().st_size <= 100_000


def test_axe_finds_nothing_serious_and_would_find_what_is_wrong(
    pages: dict[str, Path], views: dict[tuple[int, int], Page], tmp_path: Path
) -> None:
    for name, size in (("promote", WIDE), ("reject", PHONE), ("inconclusive", PHONE)):
        assert browser.axe_findings(show(views[size], pages[name])) == []
    wrong = tmp_path / "wrong.html"
    pale = '<html lang="en"><title>x</title><main><h1 style="color:#ccc">pale</h1></main></html>'
    wrong.write_text(pale, "utf-8")
    (found,) = browser.axe_findings(show(views[WIDE], wrong))
    assert found.startswith("color-contrast (serious)")


def test_many_and_long_names_fit_at_both_widths_and_on_paper(
    views: dict[tuple[int, int], Page], tmp_path: Path
) -> None:
    path = write_page_of(huge_judgement(), tmp_path)
    assert path.stat().st_size <= 300_000
    for page in views.values():
        assert browser.outside(show(page, path)) == []
        assert browser.cut_off(page) == []
        assert min(browser.text_sizes_px(page)) >= MIN_TEXT_PX
    with on_paper(views[PHONE]) as paper:
        assert browser.outside(paper) == []
        assert not any(scrolls or says for scrolls, says, _ in browser.scrollers(paper))


def test_a_term_leads_to_its_meaning_without_scripts_and_by_keyboard(
    pages: dict[str, Path], views: dict[tuple[int, int], Page]
) -> None:
    page = show(views[PHONE], pages["promote"])
    page.locator("a.term", has_text="holdout").first.focus()
    page.keyboard.press("Enter")
    meaning = page.locator("#term-holdout")
    assert meaning.evaluate("e => e.getBoundingClientRect().top") < PHONE[1]
    assert page.locator("script").count() == 0


def assert_readable(page: Page, path: Path, size: tuple[int, int], *above: str) -> None:
    """The page is light, nothing lies outside, and its head is above the fold."""
    show(page, path)
    assert path.stat().st_size <= 300_000
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    assert browser.outside(page) == []
    assert max(bottoms_px(page, *above), default=0) <= size[1]


@pytest.mark.parametrize(
    ("num", "name"), [(0, "ranker"), (9, "homefeed_ranker"), (200, LONG + MARKUP)]
)
def test_the_index_reads_well_at_both_widths_and_on_paper(
    views: dict[tuple[int, int], Page], tmp_path: Path, num: int, name: str
) -> None:
    path = tmp_path / "cycles.html"
    path.write_text(render_cycles(make_facts(num, name)), "utf-8")
    for size, page in views.items():
        # What serves and what the newest cycle came to stand above the fold.
        above = (".word", ".serves", ".title") if num < 200 else ()
        assert_readable(page, path, size, *above)
        assert min(browser.text_sizes_px(page)) >= MIN_TEXT_PX
        if num == 9:
            assert browser.axe_findings(page) == []
        page.emulate_media(media="print")
        assert browser.outside(page) == []
        page.emulate_media(media="screen")


@pytest.mark.parametrize("name", SIZES)
def test_the_pages_of_a_log_and_of_a_snapshot_read_well_at_both_widths_and_on_paper(
    views: dict[tuple[int, int], Page], tmp_path: Path, name: str
) -> None:
    for path in write_pages(tmp_path, name).values():
        for size, page in views.items():
            assert_readable(page, path, size, ".verdict, .headline")
            sizes = browser.text_sizes_px(page)
            assert len(sizes) > 20 and min(sizes) >= MIN_TEXT_PX
            assert browser.cut_off(page) == browser.broken_numbers(page) == []
            for scrolls, says_so, has_key in browser.scrollers(page):
                assert scrolls == says_so == (size == PHONE) and has_key
            if name == "usual":  # the same markup again and again takes axe ten seconds a page
                assert browser.axe_findings(page) == []
            assert page.locator("script, link, img").count() == 0
        with on_paper(views[PHONE]) as paper:
            assert browser.outside(paper) == browser.off_paper(paper) == []
            assert not any(scrolls or says for scrolls, says, _ in browser.scrollers(paper))


FOUND = f"""<!DOCTYPE html>
<html>
  <head><title>x</title><meta name="viewport" content="width=device-width"></head>
  <body><div class="container-fluid"><h6>Statistics</h6>
  <table><tr><th>Status</th><th>Expectation</th><th>Observed</th></tr>
  <tr><td>met</td><td><span>{LONG}</span></td><td>{"0123456789" * 9}</td></tr></table></div></body>
</html>"""
"""What Great Expectations writes, in its structure."""


def test_the_data_docs_of_a_refused_snapshot_read_well_at_both_widths(
    views: dict[tuple[int, int], Page], tmp_path: Path
) -> None:
    docs = tmp_path / "data_docs"
    (docs / "validations" / "examples").mkdir(parents=True)
    (docs / "validations" / "examples" / "found.html").write_text(FOUND, "utf-8")
    refused = ExpectationOutcome(
        name="label_rate_of_save",
        description=f"Saves per impression stay within 30 % of the last accepted snapshot. {LONG}",
        severity=Severity.CRITICAL,
        is_met=False,
        observed="-67 %",
        expected=f"within 30 % {MARKUP}",
        partitions=tuple(f"2017-03-0{day}" for day in range(1, 10)),
    )
    warned = refused.model_copy(update={"severity": Severity.WARNING})
    met = refused.model_copy(update={"is_met": True})
    subject = Subject("snapshot of 2017-03-02", "it may not be trained on", (("Rows", "9"),), "So.")
    path = finish_data_docs(docs, subject, (refused, warned, met))
    for size, page in views.items():
        assert_readable(page, path, size, ".word")
        for scrolls, says_so, has_key in browser.scrollers(page):
            assert scrolls == says_so == (size == PHONE) and has_key
        assert browser.axe_findings(page) == []
        show(page, next(docs.rglob("found.html")))
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        assert browser.outside(page) == [] and browser.axe_findings(page) == []
