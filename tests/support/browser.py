"""A headless Chromium that looks at our own pages, one page for each width, and axe.

axe is the accessibility checker of the package axe-playwright-python, pinned for tests.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from support.find_servers import CHROMIUM

WIDE, PHONE = (1280, 800), (390, 844)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
MIN_TEXT_PX = 11
SERIOUS = ("serious", "critical")


def _asking(script: str) -> Callable[[Page], Any]:
    return lambda page: page.evaluate(script)


text_sizes_px = _asking("""() =>
  [...document.querySelectorAll('svg text, .chart *, .panels *, .strip *')]
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
  .map(e => parseFloat(getComputedStyle(e).fontSize)
    * (e.getScreenCTM ? e.getScreenCTM().a : 1))""")
"""The size on the screen of each text in a chart."""
outside = _asking("""() => [...document.querySelectorAll('body *')].filter(e =>
  !e.closest('.scroll')
  && e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.outerHTML.slice(0, 120))""")
"""What reaches beyond the right edge of the page, but for tables that scroll."""
off_paper = _asking("""() => [...document.querySelectorAll('table')].filter(e =>
  e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.outerHTML.slice(0, 120))""")
"""The tables that reach beyond the right edge, which no reader of paper can scroll."""
cut_off = _asking("""() => [...document.querySelectorAll('svg text')].filter(e => {
  const own = e.getBoundingClientRect(), around = e.ownerSVGElement.getBoundingClientRect();
  return own.left < around.left - 1 || own.right > around.right + 1; }).map(e => e.textContent)""")
"""Texts of charts that their chart cuts off."""
scrollers = _asking("""() => [...document.querySelectorAll('.scroll')].map(e => [
  e.scrollWidth > e.clientWidth + 1, getComputedStyle(e.nextElementSibling).display !== 'none'
  && e.nextElementSibling.classList.contains('hint'), e.tabIndex === 0])""")
"""Of each table: whether it scrolls, whether it says so, whether a key reaches it."""


@contextmanager
def browser() -> Iterator[Browser]:
    """Give a Chromium."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM.find(), args=FLAGS)
        try:
            yield started
        finally:
            started.close()


def open_page(started: Browser, size: tuple[int, int]) -> Page:
    """Give an empty page of a width and a height."""
    width, height = size
    return started.new_page(viewport={"width": width, "height": height})


def show(page: Page, path: Path) -> Page:
    """Show a file, which fetches nothing else."""
    page.goto(path.as_uri())
    return page


def bottoms_px(page: Page, *selectors: str) -> list[float]:
    """Return how far down the first element of each selector ends."""
    script = "names => names.map(n => document.querySelector(n).getBoundingClientRect().bottom)"
    return page.evaluate(script, list(selectors))


def axe_findings(page: Page) -> list[str]:
    """Return what axe finds that is serious or critical, a line each."""
    script = files("axe_playwright_python") / "axe.min.js"
    page.evaluate(script.read_text("utf-8"))
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']} ({each['impact']}): {each['help']}: {node['html'][:160]}"
        for each in found["violations"]
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]
