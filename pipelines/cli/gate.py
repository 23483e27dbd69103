"""`homefeed gate ...`: the data gate's limits, what they find, and a person's word against them.

Tested in tests/pipelines/cli/test_gate.py.
"""

import getpass
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipelines import storage
from pipelines.cli.printing import Commands, say, say_all
from pipelines.contracts.artifacts import ResolvedRun
from pipelines.contracts.run_layout import failure_uri
from pipelines.settings import Settings

app = Commands(help="Try the data gate, and accept what is unusual.", no_args_is_help=True)

Recipe = Annotated[str, typer.Option(help="Recipe whose log and windows are meant.")]
AsOf = Annotated[str, typer.Option(help="Day up to which the log counts, YYYY-MM-DD; its last.")]


@app.command()
def accept(
    run: Annotated[str, typer.Argument(help="URI of the run whose data are meant.")],
    expectation: Annotated[str, typer.Argument(help="Name of the expectation that is not met.")],
    reason: Annotated[str, typer.Option(help="Why the data are right, for the report.")],
    by: Annotated[str, typer.Option(help="Who says so; your login name by default.")] = "",
) -> dict[str, Any]:
    """Accept a shift of one run's data, by name and with a reason."""
    from pipelines.alerts.commands import runnable, stage_command
    from pipelines.log_days.judging import accept_shift
    from pipelines.stages.runner import read_artifact

    resolved = read_artifact(run, "resolve_run", ResolvedRun)
    who = by or getpass.getuser()
    accepted = accept_shift(resolved.run_uri, expectation, who, reason, datetime.now(UTC))
    say(f"{expectation} of {resolved.run_id} is accepted by {accepted.sentence}")
    say("The stage that refused the data takes it into account when it is run again:")
    commands = [
        runnable(stage_command(stage, resolved.run_uri))
        for stage in ("build_snapshot", "check_snapshot")
        if storage.exists(failure_uri(resolved.run_uri, stage))
    ]
    for command in commands:
        say(f"  {command}")
    return {"accepted": accepted, "commands": commands}


@app.command()
def selftest(
    recipe: Recipe = "",
    as_of: AsOf = "",
    defect: Annotated[
        list[str] | None, typer.Option(help="Only this one; may be given several times.")
    ] = None,
) -> dict[str, Any]:
    """Plant every known defect into a copy of the log's last days; say which the gate finds."""
    from pipelines.log_days.trials import NamedTrial, trial_lines, try_defects

    settings, done = Settings(), list[NamedTrial]()

    def trials() -> Iterator[NamedTrial]:
        for each in try_defects(settings, recipe or settings.recipe, as_of, defect or ()):
            done.append(each)
            yield each

    say_all(trial_lines(trials()))  # each is told as it is done
    return {"trials": [each._asdict() | {"trial": each.trial._asdict()} for each in done]}


@app.command()
def calibrate(recipe: Recipe = "", as_of: AsOf = "") -> dict[str, Any]:
    """Hold the log's own past windows against the gate's limits; say how often it would warn."""
    from pipelines.log_days.trials import calibrate_limits, calibration_lines

    settings = Settings()
    found = calibrate_limits(settings, recipe or settings.recipe, as_of)
    say_all(calibration_lines(found))
    return {
        "windows": [window._asdict() for window in found.windows],
        "budget": found.budget,
        "alarm_share": found.alarm_share,
        "factor": found.factor,
    }
