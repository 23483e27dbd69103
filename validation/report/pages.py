"""What all pages have in common: their templates, and how heavy they may be."""

import posixpath
import re
from collections.abc import Callable
from functools import cache
from html import escape, unescape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

MAX_BYTES = 290_000
"""Of a page. Where its rows do not fit, the oldest are left out, and the page says so."""


@cache
def environment() -> Environment:
    """Return the template environment of the gates' pages, which escapes every value.

    It is the same one for all pages of a process, because it keeps the templates that it has
    compiled: compiling those of the index takes longer than writing the index.
    """
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # What a browser can open, and never what runs when it is clicked (javascript:, data:).
    made.tests["openable"] = lambda uri: uri.startswith(("http://", "https://"))
    return made


def for_mlflow(page: str, uri: str) -> str:
    """Return a page that lies at a URI as MLflow's frame can show it, which lets no popup through.

    In MLflow 3.17 an http address opens in a new tab, with Ctrl or Cmd held down. A relative one
    leads from the page itself. Of a file, or a place on the page, only the text stays.
    """
    scheme, _, path = uri.partition("://")

    def link(text: str, address: str) -> str:
        shown = escape(address)
        if address.startswith(("http://", "https://")):
            return f'<a href="{shown}" target="_blank" rel="noopener">{text}</a>'
        return f"{text} (<code>{shown}</code>)"

    def changed(found: re.Match[str]) -> str:
        href, text = unescape(found["href"]), found["text"]
        if href.startswith("#"):
            return text
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), href))
        return link(text, href if "://" in href else f"{scheme}://{beside}")

    pattern = r'(?s)<a\b[^>]*?\bhref="(?P<href>[^"]*)".*?>(?P<text>.*?)</a>'
    told = "In MLflow a link opens with Ctrl or Cmd held down, in a new tab."
    note = f"<p><strong>{told}</strong> This is a copy of {link('the page', uri)}.</p>\n"
    return re.sub(pattern, changed, page).replace("<h1", f"{note}<h1", 1)


def within_limit(render: Callable[[int], str], num_rows: int) -> str:
    """Return a page with as many rows as fit.

    Args:
        render: Gives the page with so many rows, the newest of all.
        num_rows: How many there are. One row is shown whatever the page weighs.
    """
    html = render(num_rows)
    while len(html.encode()) > MAX_BYTES and num_rows > 1:
        share = 0.95 * MAX_BYTES / len(html.encode())
        num_rows = max(1, int(num_rows * min(share, 0.95)))
        html = render(num_rows)
    return html
