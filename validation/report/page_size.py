"""How heavy a page may be, and what is done where it would be heavier: it shows fewer rows."""

from collections.abc import Callable

MAX_BYTES = 290_000
"""Of a page. Where its rows do not fit, the oldest are left out, and the page says so."""


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
