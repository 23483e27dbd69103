"""Says in the stage's log how far Spark is, as the pool of one machine does.

Not for Spark's own page, which says more and is gone when the stage ends. Tested in
tests/pipelines/snapshot/spark/test_progress.py.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

log = logging.getLogger(__name__)
EVERY_S = 60.0
"""How often it is said, in seconds; a pass may take hours."""


@contextlib.contextmanager
def telling(tracker: Any, what: str) -> Iterator[None]:
    """Say from time to time, while the block runs, how many tasks are done.

    Args:
        tracker: Spark's StatusTracker.
        what: plural noun for what the tasks are about.
    """
    is_over = threading.Event()

    def tell() -> None:
        while not is_over.wait(EVERY_S):
            # What ends the block ends it with an error of its own.
            with contextlib.suppress(Exception):
                for done, total in progress_of(tracker):
                    log.info("%d of %d tasks for %s", done, total, what)

    thread = threading.Thread(target=tell, name="progress of Spark", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(timeout=EVERY_S)


def progress_of(tracker: Any) -> list[tuple[int, int]]:
    """Return how many tasks are done, and how many there are, of each stage of Spark that runs."""
    stages = [tracker.getStageInfo(each) for each in sorted(tracker.getActiveStageIds())]
    # A stage may have ended between the two questions.
    return [(each.numCompletedTasks, each.numTasks) for each in stages if each is not None]
