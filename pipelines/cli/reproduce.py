"""`homefeed reproduce`: rebuild a past cycle from its record, and say what is equal.

Tested in tests/pipelines/reproduction/test_rebuild.py and tests/pipelines/cli/test_reproduce.py.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines import storage
from pipelines.cli.printing import say, say_value
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.reproduction.findings import Finding
    from pipelines.reproduction.rebuild import Outcome

_LAST = "compare_with_champion"


def reproduce(
    run: Annotated[str, typer.Argument(help="URI or path of the run folder, or the run's name.")],
    until: Annotated[str, typer.Option(help="Last stage to rebuild.")] = _LAST,
    into: Annotated[
        str, typer.Option(help="Folder to rebuild in, kept; a new temporary one by default.")
    ] = "",
    event_log: Annotated[
        str, typer.Option(help="Where the event log lies by now, if it was moved.")
    ] = "",
) -> None:
    """Rebuild a past cycle from its record, elsewhere, and say digest by digest what is equal."""
    from pipelines.reproduction.past_cycle import REBUILT, read_cycle
    from pipelines.reproduction.rebuild import choose_folder, rebuild

    if until not in REBUILT:
        raise ConfigurationError(
            f"--until is {until!r}; expected one of {', '.join(REBUILT)}; the other stages move "
            f"the champion or tell people, and are never made again"
        )
    past = read_cycle(run, Settings())
    folder = choose_folder(into, past.run.run_id)
    say(f"rebuilding {past.run_uri}")
    say(f"in {folder}; the original is only read")
    event_log_uri = storage.to_uri(event_log) if event_log else ""
    outcome = rebuild(past, folder, until, say, event_log_uri)
    _show(outcome)
    value = {
        "run_uri": past.run_uri,
        "folder": folder,
        "findings": outcome.findings,
        "changes": outcome.changes,
        "stopped_by": str(outcome.stopped_by or ""),
    }
    say_value(value)
    if outcome.differing:
        what = ", ".join(f"{found.what} ({found.stage})" for found in outcome.differing)
        raise DataContractError(
            f"what was rebuilt of {past.run_uri} is not what its record says: {what}; expected "
            f"equal digests; read above what has changed since; both are there to be compared, "
            f"the rebuilt one in {folder}",
            kind="differs",
        )
    if outcome.stopped_by is not None:
        raise outcome.stopped_by


def _show(outcome: "Outcome") -> None:
    for found in outcome.findings:
        say(_line(found))
        for detail in found.details:
            say(f"  {detail}")
    for line in _explanation(outcome):
        say(line)
    states = [found.state for found in outcome.findings]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    say("; ".join(f"{number} {state}" for state, number in counts.items()))


def _line(found: "Finding") -> str:
    start = f"{found.state:13}  {found.stage:21}  {found.what:31}"
    if found.state == "differs":
        return f"{start}  {_short(found.then)} then, {_short(found.now)} now"
    return f"{start}  {_short(found.then)}".rstrip()


def _short(digest: str) -> str:
    """Return the first digits of a digest, and all that stands before it."""
    said, _, digits = digest.rpartition(" ")
    return f"{said} {digits[:12]}".strip()


def _explanation(outcome: "Outcome") -> Iterator[str]:
    """Yield what has changed since; where nothing has, a difference is told to be unexplained."""
    if outcome.changes:
        effect = "and may be why" if outcome.differing else "without effect on what was rebuilt"
        yield f"not as it was when the cycle ran, {effect}:"
        yield from (f"- {change}" for change in outcome.changes)
    elif outcome.differing:
        yield (
            "data, code, packages, processor and recipe are as the record says, so either the "
            "record is not of what was made, or a computation does not repeat"
        )
