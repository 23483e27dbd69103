"""`homefeed resolve`, `stage` and `retrain`: a cycle in steps, one step of it, or all of it.

Tested in tests/pipelines/cli/test_main.py.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from pipelines.contracts.artifacts import STAGES, ResolvedRun, RunRequest
from pipelines.contracts.errors import ConfigurationError, HomefeedError, RunInProgressError
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.contracts.time import parse_instant
from pipelines.settings import Settings

app = typer.Typer()

AsOf = Annotated[str, typer.Option(help="Day (YYYY-MM-DD, UTC); rows known before it are used.")]
Promote = Annotated[bool, typer.Option("--promote/--no-promote", help="May the champion move?")]


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(STAGES)}.")],
    run: Annotated[str, typer.Option(help="URI or path of the run folder.")],
    again: Annotated[bool, typer.Option("--again", help="Run it even if it has ended.")] = False,
) -> None:
    """Run one stage of a run, or find it done; print its manifest's URI."""
    from pipelines.stages.runner import run_stage

    if name not in STAGES:
        raise ConfigurationError(f"no stage {name!r}; expected one of {', '.join(STAGES)}")
    typer.echo(run_stage(name, run, again))


@app.command("resolve", help="Fix as_of, champion and configuration of a cycle; print its URI.")
@app.command("retrain", help="Run a whole cycle without Airflow, or what is left of it.")
def begin(
    context: typer.Context,
    as_of: AsOf = "",
    recipe: Annotated[str, typer.Option(help="Recipe name; HOMEFEED_RECIPE by default.")] = "",
    promote: Promote = True,
    devices: Annotated[int, typer.Option(min=1, help="Training processes.")] = 1,
    accelerator: Annotated[Literal["cpu", "gpu"], typer.Option(help="Hardware.")] = "cpu",
    key: Annotated[str, typer.Option(help="Another key is another cycle.")] = "command line",
) -> None:
    """Resolve a cycle, and run the rest of it too if the command is `retrain`."""
    from pipelines.stages.runner import start_run

    settings = Settings()
    request = RunRequest(
        recipe=recipe or settings.recipe,
        as_of=parse_instant(as_of, "--as-of") if as_of else None,
        now=datetime.now(UTC),
        may_promote=promote,
        num_devices=devices,
        accelerator=accelerator,
        trigger=key,
    )
    run = start_run(request, settings)
    if context.info_name == "retrain":
        _finish(run, settings)
    typer.echo(run.run_uri)


def _finish(run: ResolvedRun, settings: Settings) -> None:
    """Run every stage after the first one, and print what came out."""
    from pipelines.alerts.compose import alert_on_failure
    from pipelines.alerts.next_step import after_verdict
    from pipelines.stages.runner import read_artifact, run_stage

    for name in STAGES[1:]:
        try:
            run_stage(name, run.run_uri)
        except RunInProgressError:
            raise  # The other process tells how it ends.
        except HomefeedError as error:
            alert_on_failure(run.run_uri, settings, name, str(error))
            raise
    judgement = read_artifact(run.run_uri, "compare_with_champion", Judgement)
    promotion = read_artifact(run.run_uri, "promote_challenger", Promotion)
    typer.echo(f"{judgement.verdict.decision}: {' '.join(judgement.verdict.reasons)}")
    serving = promotion.champion_after.label if promotion.champion_after else "no model"
    typer.echo(f"serving: {serving}\nverdict page: {judgement.report_uri}")
    step = after_verdict(run, judgement)
    typer.echo("\n".join([step.sentence, *(f"{what}\n  {how}" for what, how in step.commands)]))
