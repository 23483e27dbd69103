"""`homefeed resolve`, `stage` and `retrain`: a cycle in steps, one step of it, or all of it.

Tested in tests/pipelines/cli/test_main.py.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from pipelines.cli.options import parse_instant
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.settings import Settings

app = typer.Typer()

AsOf = Annotated[str, typer.Option(help="Day (YYYY-MM-DD, UTC); rows known before it are used.")]
Recipe = Annotated[str, typer.Option(help="Recipe name; HOMEFEED_RECIPE by default.")]
Devices = Annotated[int, typer.Option(min=1, help="Training processes.")]
Accelerator = Annotated[str, typer.Option(help="'cpu' or 'gpu'.")]
Promote = Annotated[bool, typer.Option("--promote/--no-promote", help="May the champion move?")]
Key = Annotated[str, typer.Option(help="Another key is another cycle.")]


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(STAGES)}.")],
    run: Annotated[str, typer.Option(help="URI or path of the run folder.")],
    again: Annotated[bool, typer.Option("--again", help="Do its work even if it is done.")] = False,
) -> None:
    """Run one stage of a run, or find it done; print its manifest's URI."""
    from pipelines.stages.runner import run_stage

    if name not in STAGES:
        raise ConfigurationError(f"no stage {name!r}; expected one of {', '.join(STAGES)}")
    typer.echo(run_stage(name, run, again))


@app.command()
def resolve(  # noqa: PLR0913 - one option each
    as_of: AsOf = "",
    recipe: Recipe = "",
    promote: Promote = True,
    devices: Devices = 1,
    accelerator: Accelerator = "cpu",
    key: Key = "command line",
) -> None:
    """Fix as_of, champion and configuration of a cycle; print the run's URI."""
    typer.echo(_start(as_of, recipe, promote, devices, accelerator, key))


@app.command()
def retrain(  # noqa: PLR0913 - one option each
    as_of: AsOf = "",
    recipe: Recipe = "",
    promote: Promote = True,
    devices: Devices = 1,
    accelerator: Accelerator = "cpu",
    key: Key = "command line",
) -> None:
    """Run a whole cycle without Airflow. Called again, it goes on where it stopped."""
    from pipelines.alerts.compose import alert_on_failure
    from pipelines.alerts.next_step import after_verdict
    from pipelines.stages.runner import read_artifact, read_run, run_stage

    run_uri = _start(as_of, recipe, promote, devices, accelerator, key)
    for name in STAGES[1:]:
        try:
            run_stage(name, run_uri)
        except HomefeedError:
            alert_on_failure(run_uri, Settings())
            raise
    judgement = read_artifact(run_uri, "compare_with_champion", Judgement)
    promotion = read_artifact(run_uri, "promote_challenger", Promotion)
    typer.echo(f"{judgement.verdict.decision}: {' '.join(judgement.verdict.reasons)}")
    serving = promotion.champion_after.label if promotion.champion_after else "no model"
    typer.echo(f"serving: {serving}\nverdict page: {judgement.report_uri}")
    challenger = judgement.comparison.challenger_model.label
    step = after_verdict(read_run(run_uri), judgement.verdict, challenger)
    typer.echo("\n".join([step.sentence, *(f"{what}\n  {how}" for what, how in step.commands)]))
    typer.echo(run_uri)


def _start(as_of: str, recipe: str, promote: bool, devices: int, accelerator: str, key: str) -> str:
    """Resolve the cycle that the options ask for; return the URI of its run folder."""
    from pipelines.stages.resolve_run import RunRequest
    from pipelines.stages.runner import start_run

    settings = Settings()
    request = RunRequest(
        recipe=recipe or settings.recipe,
        as_of=parse_instant(as_of, "--as-of") if as_of else None,
        now=datetime.now(UTC),
        may_promote=promote,
        num_devices=devices,
        accelerator=_parse_accelerator(accelerator),
        trigger=key,
    )
    return start_run(request, settings).run_uri


def _parse_accelerator(text: str) -> Literal["cpu", "gpu"]:
    if text in ("cpu", "gpu"):
        return text  # type: ignore[return-value]  # narrowed by the line above
    raise ConfigurationError(f"--accelerator is {text!r}; expected 'cpu' or 'gpu'")
