"""Why a run for which nobody entered a day found no rows: its log has ended, and long before.

A sample, or a log that nobody writes any more, has rows of its own time only. Tested in
tests/pipelines/orchestration/test_resolving.py.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import RunRequest
from pipelines.contracts.errors import DataContractError, HomefeedError
from pipelines.orchestration.shown.form import champion_on_record, newest_as_of
from pipelines.recipes import make_recipe
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.event_log.log_files import EventLog


def day_to_enter(request: RunRequest, settings: Settings) -> date | None:
    """Return the newest day for which the log has what the recipe needs; None if none would help.

    Args:
        request: What was asked for, and refused for whatever reason.
        settings: Where the event log is.
    """
    from pipelines.event_log.log_files import open_event_log

    try:
        log = open_event_log(storage.to_uri(settings.event_log_location))
        newest = newest_as_of(log.span("impressions")[1])
        is_ended = newest < request.day.date() and not _is_covered(log, request, request.day)
        as_entered = datetime.combine(newest, time(), UTC)
        return newest if is_ended and _is_covered(log, request, as_entered) else None
    except HomefeedError:
        return None  # what was refused says more


def explain(request: RunRequest, newest: date, settings: Settings) -> str:
    """Return why the run found nothing, and what to enter, for a person with the form before them.

    Args:
        request: What was asked for.
        newest: The day to enter.
        settings: Where event log and record are.
    """
    uri = storage.to_uri(settings.event_log_location)
    known = champion_on_record(settings)
    served = ""
    if known is not None and known[1] >= f"{newest}":
        served = (
            f" ({known[0]} serves and was trained as of {known[1]}, so that only newer days can "
            f"give a model that takes its place: switch Promote off to compare without)"
        )
    return (
        f"no as_of was entered, so that this run is as of {request.day:%Y-%m-%d}, and the event "
        f"log at {uri} ends with {newest - timedelta(days=1)}; trigger the cycle anew with "
        f"{newest} as As of in the form, or as_of in the conf{served}; or ingest newer days"
    )


def _is_covered(log: "EventLog", request: RunRequest, as_of: datetime) -> bool:
    from pipelines.snapshot.build import check_covered
    from pipelines.snapshot.plan import plan_of

    try:
        check_covered(log, plan_of(make_recipe(request.recipe), as_of))
    except DataContractError:
        return False
    return True
