"""`homefeed log ...`: judge an event log before a cycle is run on it, and look into it.

Tested in tests/pipelines/cli/test_log.py and tests/pipelines/log_check.
"""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines import storage
from pipelines.cli.printing import Commands, say, say_all, say_value
from pipelines.contracts.errors import ConfigurationError, DataContractError
from pipelines.recipes import make_recipe
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.event_log.rules import Severity
    from pipelines.log_check.report import LogReport

app = Commands(help="Judge an event log, and look into it.", no_args_is_help=True)

Location = Annotated[
    str, typer.Argument(help="Path or URI of the event log; HOMEFEED_EVENT_LOG by default.")
]


@app.command()
def init(
    folder: Annotated[str, typer.Argument(help="An empty folder, or one that is missing.")],
) -> dict[str, list[str]]:
    """Write an example adapter, a recipe and a README for tables of your own."""
    from pipelines.log_check.init import write_example

    paths = [str(path) for path in write_example(Path(folder))]
    for path in paths:
        say(f"wrote {path}")
    return {"written": paths}


@app.command()
def check(
    location: Location = "",
    recipe: Annotated[str, typer.Option(help="What the log shall serve; none by default.")] = "",
    html: Annotated[str, typer.Option(help="File for the page with plots.")] = "",
    from_day: Annotated[str, typer.Option("--from", help="First day (YYYY-MM-DD).")] = "",
    to_day: Annotated[str, typer.Option("--to", help="Last day (YYYY-MM-DD), included.")] = "",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read; as many as cores by default.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
) -> None:
    """Say what a log looks like and all that is wrong with it; nothing is built, nothing written.

    The exit code is 65 where a snapshot would be refused or wrong, and 0 otherwise; with --strict
    it is 65 for warnings too.
    """
    from pipelines.event_log.rules import Severity
    from pipelines.log_check.report import lines_of, told_problems
    from pipelines.log_check.run import check_log

    settings = Settings()
    place = location or settings.event_log_location
    first, last = _day(from_day, "--from"), _day(to_day, "--to")
    config = make_recipe(recipe) if recipe else None
    report = check_log(place, config, first, last, workers, settings)
    say_all(lines_of(report))
    if html:
        from pipelines.log_check.page import write_page

        write_page(report, Path(html))
        say(f"page: {Path(html).resolve()}")
    problems = list(told_problems(report))
    say_value(_value_of(report, problems, html))
    kinds = [severity for severity, _ in problems]
    errors, warnings = kinds.count(Severity.ERROR), kinds.count(Severity.WARNING)
    if errors or (strict and warnings):
        raise DataContractError(
            f"the event log at {report.uri} has {errors} errors and {warnings} warnings; expected "
            f"{'neither' if strict else 'no errors'}; mend what is listed above and check again"
        )


def _value_of(
    report: "LogReport", problems: "list[tuple[Severity, str]]", page: str
) -> dict[str, Any]:
    """Return for programs what was found of a log: its size, its days and its problems."""
    days = sorted(report.days)
    return {
        "uri": report.uri,
        "recipe": report.recipe,
        "first_day": days[0] if days else None,
        "last_day": days[-1] if days else None,
        "num_impressions": report.num_rows("impressions"),
        "num_actions": report.num_rows("actions"),
        "num_requests": report.num_requests,
        "num_users": report.num_users,
        "num_pins": report.num_pins,
        "problems": [{"severity": kind, "message": message} for kind, message in problems],
        "page": page,
    }


@app.command()
def show(
    location: Location = "",
    request: Annotated[str, typer.Option(help="Its request_id.")] = "",
    user: Annotated[str, typer.Option(help="Or a user's id, or text: the newest request.")] = "",
    as_of: Annotated[str, typer.Option(help="Day of the cycle that would see it.")] = "",
    recipe: Annotated[str, typer.Option(help="HOMEFEED_RECIPE by default.")] = "",
) -> dict[str, Any]:
    """Show what a model would see of a request: candidates with labels, actions, user, numbers."""
    from pipelines.event_log.log_files import open_event_log
    from pipelines.log_check import one_request

    if bool(request) == bool(user):
        raise ConfigurationError(
            f"--request is {request!r} and --user is {user!r}; expected one of the two; name a "
            f"request or a user"
        )
    settings = Settings()
    config = make_recipe(recipe or settings.recipe)
    event_log = open_event_log(storage.to_uri(location or settings.event_log_location))
    if request:
        user_id, at_ms = one_request.find_request(event_log, request)
    else:
        user_id, at_ms = one_request.find_user(event_log, user), None
    day = _day(as_of, "--as-of")
    end = (
        datetime(day.year, day.month, day.day, tzinfo=UTC)
        if day
        else one_request.as_of_for(event_log, config, at_ms)
    )
    built = one_request.build_one_user(event_log, config, end, user_id)
    row = one_request.request_row(built, request)
    say_all(one_request.lines_of(built, row))
    return one_request.value_of(built, row)


def _day(text: str, option: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} is {text!r}; expected a day such as 2017-06-12; correct it"
        ) from None
