"""`homefeed ingest`, `log` and `gate`: what is learnt from, from log to snapshot.

Tested in tests/pipelines/cli/test_log.py, test_gate.py and test_main.py.
"""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from pipelines import storage
from pipelines.cli.printing import Commands, Run, say, say_all, say_value
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.errors import DataContractError
from pipelines.contracts.run_layout import failure_uri
from pipelines.contracts.time import parse_instant
from pipelines.recipes import make_recipe
from pipelines.settings import Settings

ingest_app = Commands(help="Write an event log from somebody's data.", no_args_is_help=True)
log_app = Commands(help="Judge an event log, and look into it.", no_args_is_help=True)
gate_app = Commands(help="What the data gate accepts.", no_args_is_help=True)

To = Annotated[str, Option(help="Event log URI to write.")]
Location = Annotated[str, Argument(help="Path or URI of the log; HOMEFEED_EVENT_LOG by default.")]


@ingest_app.command()
def completejourney(to: To) -> dict[str, str]:
    """Write the Complete Journey retail data as an event log."""
    from pipelines.sources.completejourney.adapter import CompleteJourneyAdapter
    from pipelines.sources.publish import ingest

    ingest(CompleteJourneyAdapter(), to)
    say(uri := storage.to_uri(to))
    return {"event_log_uri": uri}


@log_app.command()
def init(
    folder: Annotated[str, Argument(help="An empty folder, or one that is missing.")],
    tables: Annotated[
        list[Path] | None, Option("--from", help="A table of yours; once for each.")
    ] = None,
) -> dict[str, list[str]]:
    """Write a mapping of tables of your own, guessed from them, and a README."""
    from pipelines.log_check.init import write_example

    paths = [str(path) for path in write_example(Path(folder), tables or ())]
    say_all(f"wrote {path}" for path in paths)
    return {"written": paths}


@log_app.command("import")
def import_tables(
    mapping: Annotated[str, Option(help="File that says which table and column is what.")],
    to: Annotated[str, Option(help="Event log to write; event_log beside the mapping.")] = "",
    replace_days: Annotated[
        bool, Option("--replace-days", help="Write days that the log has anew.")
    ] = False,
    late_rows: Annotated[bool, Option("--late-rows", help="Add to days that the log has.")] = False,
) -> dict[str, str]:
    """Write an event log from tables of your own, or add their rows to it, whole or not at all."""
    from pipelines.sources.mapping.load import import_log

    place = to or str(Path(mapping).resolve().parent / "event_log")
    uri = import_log(Path(mapping), place, replace_days, late_rows)
    say(uri)
    return {"event_log_uri": uri}


@log_app.command("check")
def judge_log(
    location: Location = "",
    recipe: Annotated[str, Option(help="What the log shall serve; none by default.")] = "",
    html: Annotated[str, Option(help="File for the page with plots.")] = "",
    from_day: Annotated[str, Option("--from", help="First day (YYYY-MM-DD).")] = "",
    to_day: Annotated[str, Option("--to", help="Last day (YYYY-MM-DD), included.")] = "",
    strict: Annotated[bool, Option("--strict", help="Warnings count as errors.")] = False,
) -> None:
    """Say what a log looks like and all that is wrong with it; with a recipe, try the stages.

    The exit code is 65 where a snapshot would be refused or wrong, and 0 otherwise; with --strict
    it is 65 for warnings too.
    """
    from pipelines.event_log.rules import Severity
    from pipelines.log_check.measuring import check_log
    from pipelines.log_check.report import TABLES, lines_of, told_problems, write_page
    from pipelines.log_check.trial import try_stages

    place = location or Settings().event_log_uri
    config = make_recipe(recipe) if recipe else None
    first, last = (
        parse_instant(text, option).date() if text else None
        for text, option in ((from_day, "--from"), (to_day, "--to"))
    )
    report = check_log(place, config, first, last)
    if config is not None:
        try_stages(report, config)
    say_all(lines_of(report))
    if html:
        write_page(report, Path(html))
        say(f"page: {Path(html).resolve()}")
    problems, names = list(told_problems(report)), ("num_requests", "num_users", "num_pins")
    told = [{"severity": severity, "message": message} for severity, message in problems]
    rows = {f"num_{table}": report.total("rows")[table] for table in TABLES}
    known = {name: getattr(report, name) for name in ("uri", *names)}
    say_value({**known, **rows, "days": sorted(report.days), "problems": told})
    kinds = [severity for severity, _ in problems]
    errors, warnings = kinds.count(Severity.ERROR), kinds.count(Severity.WARNING)
    if errors or (strict and warnings):
        raise DataContractError(
            f"the event log at {report.uri} has {errors} errors and {warnings} warnings; expected "
            f"{'neither' if strict else 'no errors'}; mend what is listed above and check again"
        )


@gate_app.command()
def accept(
    run: Run,
    expectation: Annotated[str, Argument(help="Name of the expectation that is not met.")],
    reason: Annotated[str, Option(help="Why the data are right, for the report.")],
    by: Annotated[str, Option(help="Who says so; your login name by default.")] = "",
) -> dict[str, Any]:
    """Accept a shift of one run's data, by name and with a reason."""
    from pipelines.alerts.commands import stage_command
    from pipelines.log_days.judging import accept_shift
    from pipelines.stages.runner import read_artifact

    resolved = read_artifact(run, "resolve_run", ResolvedRun)
    who = by or getpass.getuser()
    accepted = accept_shift(resolved.run_uri, expectation, who, reason, datetime.now(UTC))
    commands = [
        stage_command(stage, resolved.run_uri)
        for stage in ("build_snapshot", "check_snapshot")
        if storage.exists(failure_uri(resolved.run_uri, stage))
    ]
    say(f"{expectation} of {resolved.run_id} is accepted by {accepted.sentence}")
    say_all(f"run the stage that refused the data again: {command}" for command in commands)
    return {"accepted": accepted, "commands": commands}
