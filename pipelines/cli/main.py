"""The command line `homefeed`. Prints for people; a stage prints its manifest's URI last.

Exit codes are those of `pipelines.contracts.errors`: 65 data, 75 try again, 77 refused, 78
configuration, 70 anything unforeseen.
"""

import logging
import signal
import sys
from datetime import UTC, datetime
from types import FrameType
from typing import Annotated, Literal, NoReturn

import typer

from pipelines.cli.local import app as local_app
from pipelines.cli.train import PASS_ON, train
from pipelines.contracts.artifacts import STAGES
from pipelines.contracts.errors import ConfigurationError, HomefeedError
from pipelines.contracts.judgement import Judgement, Promotion
from pipelines.settings import Settings
from pipelines.sources.world.parameters import WorldParameters, make_parameters

log = logging.getLogger(__name__)
app = typer.Typer(
    help="Retrain the Homefeed ranker, and ask what serves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a plain traceback: it ends up in Airflow's task log
)
ingest_app = typer.Typer(help="Write an event log from somebody's data.", no_args_is_help=True)
app.add_typer(ingest_app, name="ingest")
app.add_typer(local_app, name="local")
app.command(context_settings=PASS_ON)(train)

_WORLD = WorldParameters()

AsOf = Annotated[str, typer.Option(help="Day (YYYY-MM-DD, UTC); rows known before it are used.")]
Recipe = Annotated[str, typer.Option(help="Recipe name; HOMEFEED_RECIPE by default.")]
Devices = Annotated[int, typer.Option(min=1, help="Training processes.")]
Accelerator = Annotated[str, typer.Option(help="'cpu' or 'gpu'.")]
Promote = Annotated[bool, typer.Option("--promote/--no-promote", help="May the champion move?")]


def _day(text: str, option: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} is {text!r}; expected a day such as 2017-06-12"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@ingest_app.command("completejourney")
def ingest_completejourney(
    to: Annotated[str, typer.Option(help="Event log URI to write.")],
) -> None:
    """Write the Complete Journey retail data as an event log."""
    from pipelines import storage
    from pipelines.sources.completejourney.adapter import CompleteJourneyAdapter
    from pipelines.sources.publish import ingest

    ingest(CompleteJourneyAdapter(), to)
    typer.echo(storage.to_uri(to))


@ingest_app.command("world")
def ingest_world(  # noqa: PLR0913 - one option each
    to: Annotated[str, typer.Option(help="Event log URI to write.")],
    num_users: Annotated[int, typer.Option(help="Users.")] = _WORLD.num_users,
    num_pins: Annotated[int, typer.Option(help="Pins.")] = _WORLD.num_pins,
    num_days: Annotated[int, typer.Option(help="Days with events.")] = _WORLD.num_days,
    start: Annotated[str, typer.Option(help="First day (YYYY-MM-DD).")] = str(_WORLD.start),
    seed: Annotated[int, typer.Option(help="The same one gives the same log.")] = _WORLD.seed,
) -> None:
    """Write a simulated world whose best possible ranking is known."""
    from pipelines import storage
    from pipelines.sources.publish import ingest
    from pipelines.sources.world.adapter import WorldAdapter

    ingest(WorldAdapter(make_parameters(num_users, num_pins, num_days, start, seed)), to)
    typer.echo(storage.to_uri(to))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(STAGES)}.")],
    run: Annotated[str, typer.Option(help="URI or path of the run folder.")],
) -> None:
    """Run one stage of a run, or find it done; print its manifest's URI."""
    from pipelines.stages.runner import run_stage

    if name not in STAGES:
        raise ConfigurationError(f"no stage {name!r}; expected one of {', '.join(STAGES)}")
    typer.echo(run_stage(name, run))


def _accelerator(text: str) -> Literal["cpu", "gpu"]:
    if text in ("cpu", "gpu"):
        return text  # type: ignore[return-value]  # narrowed by the line above
    raise ConfigurationError(f"--accelerator is {text!r}; expected 'cpu' or 'gpu'")


def _resolve(
    as_of: str, recipe: str, promote: bool, devices: int, accelerator: str, key: str
) -> str:
    from pipelines.stages.resolve_run import RunRequest, resolve_run

    settings = Settings()
    request = RunRequest(
        recipe=recipe or settings.recipe,
        as_of=_day(as_of, "--as-of") if as_of else None,
        now=datetime.now(UTC),
        may_promote=promote,
        num_devices=devices,
        accelerator=_accelerator(accelerator),
        trigger=key,
    )
    return resolve_run(request, settings).run_uri


@app.command()
def resolve(  # noqa: PLR0913 - one option each
    as_of: AsOf = "",
    recipe: Recipe = "",
    promote: Promote = True,
    devices: Devices = 1,
    accelerator: Accelerator = "cpu",
    key: Annotated[str, typer.Option(help="Another key is another cycle.")] = "command line",
) -> None:
    """Fix as_of, champion and configuration of a cycle; print the run's URI."""
    typer.echo(_resolve(as_of, recipe, promote, devices, accelerator, key))


@app.command()
def retrain(  # noqa: PLR0913 - one option each
    as_of: AsOf = "",
    recipe: Recipe = "",
    promote: Promote = True,
    devices: Devices = 1,
    accelerator: Accelerator = "cpu",
    key: Annotated[str, typer.Option(help="Another key is another cycle.")] = "command line",
) -> None:
    """Run a whole cycle without Airflow. Called again, it goes on where it stopped."""
    from pipelines.alerts.compose import alert_on_failure
    from pipelines.stages.runner import read_artifact, run_stage

    run_uri = _resolve(as_of, recipe, promote, devices, accelerator, key)
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
    typer.echo(f"serving: {serving}\nverdict page: {judgement.report_uri}\n{run_uri}")


@app.command()
def serving(
    at: Annotated[str, typer.Option(help="Instant (ISO 8601, UTC); now by default.")] = "",
) -> None:
    """Say which model was serving at an instant."""
    from pipelines import storage
    from pipelines.registry import history

    settings = Settings()
    instant = _day(at, "--at") if at else datetime.now(UTC)
    workspace_uri = storage.to_uri(settings.workspace_location)
    entry = history.serving_at(workspace_uri, settings.registered_model, instant)
    typer.echo(f"{entry.model.label} (as_of {entry.model.as_of:%Y-%m-%d}), since {entry.moved_at}")


@app.command("history")
def show_history() -> None:
    """List every move of the champion, oldest first."""
    from pipelines import storage
    from pipelines.registry import history

    settings = Settings()
    workspace_uri = storage.to_uri(settings.workspace_location)
    for _, entry in history.read(workspace_uri, settings.registered_model):
        typer.echo(
            f"{entry.moved_at:%Y-%m-%dT%H:%M:%SZ}  {entry.kind:9}  {entry.model.label} "
            f"(as_of {entry.model.as_of:%Y-%m-%d})  {entry.reason}"
        )


@app.command()
def rollback(
    to_version: Annotated[str, typer.Option(help="Version; the one before by default.")] = "",
    reason: Annotated[str, typer.Option(help="For the history.")] = "rolled back by hand",
) -> None:
    """Point the champion back at an earlier version."""
    from pipelines.registry import promotion, tracking

    settings = Settings()
    client = tracking.connect(settings.tracking_uri)
    now = datetime.now(UTC)
    entry = promotion.rollback(client, settings, to_version or None, now, reason)
    typer.echo(f"champion: {entry.model.label} (was {entry.previous and entry.previous.label})")


def _end_on_sigterm(number: int, frame: FrameType | None) -> NoReturn:
    # SystemExit unwinds: scratch folders are removed and child processes are told
    raise SystemExit(128 + number)


def _log_to_stderr() -> None:
    """Show our own progress; libraries only when they warn (some log hundreds of lines)."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for package in ("pipelines", "training", "validation"):
        logging.getLogger(package).setLevel(logging.INFO)


def main() -> None:
    """Entry point: run the command line and turn our errors into exit codes."""
    _log_to_stderr()
    signal.signal(signal.SIGTERM, _end_on_sigterm)
    try:
        app(standalone_mode=True)
    except HomefeedError as error:
        typer.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
        sys.exit(error.exit_code)
    except Exception:
        log.exception("unforeseen error; this is a defect, or a library's way to report one")
        sys.exit(HomefeedError.exit_code)


if __name__ == "__main__":
    main()
