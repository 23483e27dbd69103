"""Writes the index of all cycles beside the runs: `<workspace>/cycles.html`.

The page is a function of what the workspace holds, without a clock, and is put in place whole. Who
has written it renders it once more, and writes again where that differs: so of stages that end at
once the last one to write has seen the news of all. Tested in tests/pipelines/cycles/test_index.py.
"""

import contextlib
import logging
from collections.abc import Iterator

from pipelines import storage
from pipelines.contracts.cycle import IndexFacts, ServingSpan
from pipelines.contracts.run_layout import CYCLE_INDEX
from pipelines.cycles.reading import newest_cycles, run_names
from pipelines.plain_text import one_line
from pipelines.registry.history import load
from pipelines.settings import Settings

log = logging.getLogger(__name__)

TELLING = ("compare_with_champion", "promote_challenger", "alert")
"""Stages after whose end the index has something new to tell."""
MAX_CYCLES = 260
"""Ten years of fortnights. The index tells of the newest; older ones are in the run folders."""
_TURNS = 5
"""How often the index is written at most, because the workspace has changed meanwhile."""


def write_index(workspace_uri: str, settings: Settings) -> str:
    """Write the index anew and return its URI.

    Where the workspace changes all the time, whoever changes it writes the index after that.

    Raises:
        HomefeedError: the storage failed.
    """
    from validation.report.cycles_page import render_cycles

    uri = storage.join(workspace_uri, CYCLE_INDEX)
    page = render_cycles(read_index(workspace_uri, settings))
    for _ in range(_TURNS):
        storage.write_bytes(uri, page.encode())
        written, page = page, render_cycles(read_index(workspace_uri, settings))
        if page == written:
            break
    return uri


def read_index(workspace_uri: str, settings: Settings) -> IndexFacts:
    """Return all that the index tells.

    Raises:
        HomefeedError: the list of runs or the history cannot be read.
    """
    names = run_names(workspace_uri)
    known = load(workspace_uri, settings.registered_model)
    spans = [
        ServingSpan(
            model=entry.model.label,
            as_of=entry.model.as_of,
            since=entry.moved_at,
            kind=entry.kind,
            reason=one_line(entry.reason),
        )
        for entry in known.in_time
    ]
    return IndexFacts(
        workspace_uri=workspace_uri,
        registered_model=settings.registered_model,
        cycles=newest_cycles(workspace_uri, names, settings, MAX_CYCLES),
        num_cycles=len(names),
        champions=tuple(reversed(spans)),
        problem=f"Damaged or gone: {', '.join(known.damaged)}." if known.damaged else "",
    )


@contextlib.contextmanager
def keeping_index(stage: str, workspace_uri: str, registered_model: str) -> Iterator[None]:
    """Write the index anew when a stage has ended that changes what it tells, or has failed.

    The block runs the stage. What keeps the index from being written is told and reddens no stage.
    """
    try:
        yield
    except Exception:
        refresh_index(workspace_uri, registered_model)
        raise
    if stage in TELLING:
        refresh_index(workspace_uri, registered_model)


def refresh_index(workspace_uri: str, registered_model: str) -> None:
    """Write the index anew; what keeps it from being written is told, and is no error."""
    try:
        write_index(workspace_uri, Settings(registered_model=registered_model))
    except Exception as error:  # The stage's own end is what people must learn of.
        log.warning(
            "the index of all cycles in %s was not written anew (%s: %s); nothing else is "
            "affected, and the next cycle or `homefeed open cycles` writes it",
            *(workspace_uri, type(error).__name__, error),
        )
