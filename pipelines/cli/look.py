"""`homefeed status`, `monitor`, `gc` and `local`: a deployment looked at, cleared, tried.

Tested in tests/pipelines/cli/test_look.py, test_gc.py and tests/pipelines/local.
"""

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from pipelines.cli.printing import Commands, say, say_all, say_value
from pipelines.contracts.alert import AlertReceipt
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.time import parse_instant
from pipelines.local.home import LocalHome
from pipelines.recipes import canonical
from pipelines.registry import tracking
from pipelines.settings import Settings

app = Commands()
local_app = Commands(help="Airflow and MLflow on this machine.", no_args_is_help=True)
alert_app = Commands(help="Whether alerts arrive.", no_args_is_help=True)

Home = Annotated[str, Option(help="Folder for everything; HOMEFEED_HOME by default.")]
Recipe = Annotated[str, Option(help="Name, module:function or file; of both cycles.")]
AsOf = Annotated[list[str], Option("--as-of", help="A cycle's day; give it once per cycle.")]
Dags = Annotated[str, Option(help="Folder with the DAG file.")]
DEFAULT_DAYS = ["2017-06-12", "2017-06-26"]


@app.command()
def status(
    num: Annotated[int, Option(min=1, help="How many cycles and alerts at most.")] = 5,
) -> None:
    """Say what serves, what the last cycles came to, and when the next one is due.

    What can be found out is printed in any case. The exit code is 75 where MLflow or the workspace
    cannot be reached, 78 where a setting is wrong, and 0 otherwise.
    """
    from pipelines.overview.status import lines_of, read_status

    found, errors = read_status(Settings(), datetime.now(UTC), num)
    say_all(lines_of(found))
    say_value(found)
    if errors:
        raise errors[0]


@app.command()
def gc(
    dry_run: Annotated[
        bool, Option("--dry-run", help="Say what would go, and delete nothing.")
    ] = False,
) -> dict[str, Any]:
    """Delete old runs, snapshots, checkpoints, alerts and models that nothing needs any more.

    The record itself stays: history, accepted recipes and snapshots, evidence, versions.
    """
    from rich import filesize

    from pipelines.retention.collect import delete, plan_deletion

    settings, now, rows = Settings(), datetime.now(UTC), list[dict[str, Any]]()
    client = tracking.connect(settings.tracking_uri)
    record, plan = plan_deletion(client, settings, now)
    word = "would go" if dry_run else "gone"
    going = (each for each in plan if not each[1]) if dry_run else delete(client, record, plan)
    say(f"workspace: {record.state.history.workspace_uri}")
    kept = (each for each in plan if each[1])
    for held, why in itertools.chain(kept, going):
        age = (now - held.changed_at).days
        named = {name: getattr(held, name) for name in ("kind", "name", "num_bytes")}
        about = {**named, "age_days": age, "because": why}
        rows.append({"becomes": "kept" if why else word, **about})
        size = "" if held.kind == "model" else f"{filesize.decimal(held.num_bytes)}, "
        said = f"{rows[-1]['becomes']:8}  {held.kind:11}  {held.name}  {size}"
        say(f"{said}{age} days old{why and f'  because {why}'}")
    freed = sum(row["num_bytes"] for row in rows if not row["because"])
    done = "would free" if dry_run else "freed"
    say(f"{done} {filesize.decimal(freed)}; models' space: `mlflow gc`, run on MLflow's server")
    return {"items": rows, "num_bytes": freed}


@app.command()
def monitor() -> None:
    """Score the champion on mature days, say what it loses, and tell people what is wrong."""
    from pipelines.cycles.index import refresh_index
    from pipelines.monitor.watching import watch
    from pipelines.orchestration.schedule import grid_of

    settings, now = Settings(), datetime.now(UTC)
    found, errors = watch(settings, now, grid_of(settings).at_or_before(now))
    refresh_index(settings.workspace_uri, settings.registered_model)
    say(found.sentence)
    say_value(found)
    if errors:
        raise errors[0]


@local_app.command(lasts=True)
def retrain(
    home: Home = "",
    recipe: Recipe = "completejourney",
    as_of: AsOf = DEFAULT_DAYS,
    dags: Dags = "dags",
) -> None:
    """Run two cycles in a real Airflow, one after the other, and say what came out."""
    from pipelines.local.retrain import retrain as run_cycles

    days = tuple(f"{parse_instant(day, '--as-of').astimezone(UTC):%Y-%m-%d}" for day in as_of)
    raise typer.Exit(run_cycles(_home(home), _dags(dags), canonical(recipe), days, say))


@local_app.command(lasts=True)
def ui(home: Home = "", dags: Dags = "dags") -> None:
    """Keep the Airflow and MLflow pages up until Ctrl-C."""
    from pipelines.local.retrain import keep_up

    keep_up(_home(home), _dags(dags), say)


@alert_app.command("test")
def try_transports() -> AlertReceipt:
    """Send an alert through every transport that is set, then what waits; say which took it."""
    from pipelines.alerts.compose import compose_test
    from pipelines.alerts.incidents import deliver_left
    from pipelines.alerts.transports import deliver

    settings = Settings()
    receipt = deliver(compose_test(settings, datetime.now(UTC)), settings)
    deliver_left(settings)
    say(f"taken by: {', '.join(receipt.delivered_to)}")
    return receipt


def _home(home: str) -> LocalHome:
    return LocalHome(Path(home or Settings().home).expanduser().absolute())


def _dags(dags: str) -> Path:
    folder = Path(dags).absolute()
    if not (folder / "homefeed_retrain.py").exists():
        raise ConfigurationError(
            f"no homefeed_retrain.py in {folder}; run this in the repository or give --dags"
        )
    return folder
