"""How far long work has come: a bar on a terminal, a line in the log now and then elsewhere."""

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)
Item = TypeVar("Item")

SHOWN_AFTER_S, LINE_EVERY_S = 2.0, 15.0


def tracked(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield items; say how many of them are done and how long the others take.

    Args:
        items: One is done when the next one is asked for.
        what: Plural noun.
        total: How many there are, where the items do not know it.
    """
    num = len(items) if isinstance(items, Sized) else total
    # Where standard error is no terminal, the bar hands the items on and is not shown.
    bar = tqdm(items, what, num, leave=False, disable=None, delay=SHOWN_AFTER_S)
    began = told = time.monotonic()
    for number, item in enumerate(bar, start=1):
        yield item
        now = time.monotonic()
        if bar.disable and now - told >= LINE_EVERY_S:
            left = f", about {(now - began) / number * (num - number):.0f} s left" if num else ""
            log.info("%d of %s %s%s", number, num or "?", what, left)
            told = now
