"""What became of a cycle in lines for people. Tested in tests/pipelines/cycles/test_text.py."""

from collections.abc import Iterator

from pipelines.contracts.judged.cycle import CycleFacts


def lines_of(cycle: CycleFacts, is_whole: bool = False) -> Iterator[str]:
    """Yield the lines; all but the first begin with two spaces.

    Args:
        cycle: The cycle.
        is_whole: Everything that people are told of the verdict, and not only number and reason.
    """
    name = f"{cycle.as_of:%Y-%m-%d}" if cycle.as_of else cycle.run_id
    yield f"{name}  {cycle.word}: {cycle.happened}"
    if (failure := cycle.failure) is not None:
        yield f"  {failure.error_class}, {failure.occurred_at:%Y-%m-%d %H:%M} UTC"
    if (outcome := cycle.outcome) is not None:
        page = f"Verdict page: {cycle.page_uri}"
        told = outcome.lines() if is_whole else (outcome.number, outcome.why, page)
        yield from (f"  {line}" for line in told)
        if cycle.promoted is not None:
            yield f"  this cycle promoted {cycle.promoted or 'nothing'}"
        elif failure is None:
            yield f"  has not ended; the next stage is {cycle.next_stage}"
    yield f"  run folder: {cycle.run_uri}"
