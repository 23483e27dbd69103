"""`homefeed local ...`: what `make retrain` and `make ui` call. Not for production deployments.

Tested in tests/pipelines/local/test_real_airflow.py and test_real_faults.py.
"""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.printing import Commands, say
from pipelines.contracts.errors import ConfigurationError
from pipelines.local.home import LocalHome, default_home
from pipelines.recipes import canonical

app = Commands(help="Airflow and MLflow on this machine.", no_args_is_help=True)

Home = Annotated[str, typer.Option(help="Folder for everything; HOMEFEED_HOME by default.")]
Recipe = Annotated[str, typer.Option(help="Name, module:function or file; of both cycles.")]
AsOf = Annotated[list[str], typer.Option("--as-of", help="A cycle's day; give it once per cycle.")]
Dags = Annotated[str, typer.Option(help="Folder with the DAG file.")]

DEFAULT_DAYS = ["2017-06-12", "2017-06-26"]


@app.command(lasts=True)
def retrain(
    home: Home = "",
    recipe: Recipe = "completejourney",
    as_of: AsOf = DEFAULT_DAYS,
    dags: Dags = "dags",
) -> None:
    """Run two cycles in a real Airflow, one after the other, and say what came out."""
    from pipelines.local.retrain import retrain as run_cycles

    raise typer.Exit(run_cycles(_home(home), _dags(dags), canonical(recipe), tuple(as_of)))


@app.command(lasts=True)
def ui(home: Home = "", dags: Dags = "dags") -> None:
    """Keep the Airflow and MLflow pages up until Ctrl-C; where they are up, say where."""
    from pipelines.local.retrain import keep_up

    keep_up(_home(home), _dags(dags))


@app.command()
def down(home: Home = "") -> dict[str, int]:
    """End whatever an earlier start has left running."""
    from pipelines.local.processes import marks_of, sweep

    number = sweep(marks_of(_home(home).path))
    say(f"ended {number} processes")
    return {"num_ended": number}


def _home(home: str) -> LocalHome:
    return LocalHome(Path(home).expanduser().absolute()) if home else default_home()


def _dags(dags: str) -> Path:
    folder = Path(dags).absolute()
    if not (folder / "homefeed_retrain.py").exists():
        raise ConfigurationError(
            f"no homefeed_retrain.py in {folder}; run this in the repository or give --dags"
        )
    return folder
