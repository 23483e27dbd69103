"""The command line `homefeed`, put together from its groups of commands.

Commands print for people; a stage prints its manifest's URI last. Exit codes are those of
`pipelines.contracts.errors`: 65 data, 75 try again, 77 refused, 78 configuration, 70 anything
unforeseen, 64 wrong usage.
"""

import contextlib
import logging
import os
import signal
import sys
from typing import Annotated, Any

import typer
from tqdm.contrib.logging import logging_redirect_tqdm
from typer.core import TyperGroup

from pipelines.cli import champion, cycle, data, decay, ledger, look, recipe, serve, world
from pipelines.cli.printing import OPTION, Commands, SafeFormatter, complain, say
from pipelines.contracts.code_identity import code_version
from pipelines.contracts.errors import ConfigurationError, HomefeedError, as_ours
from pipelines.contracts.processes import collect_seldom
from pipelines.settings import Settings

log = logging.getLogger(__name__)
WRONG_USAGE = 64
GROUPS = {
    "Run": ("retrain", "status", "local", "resolve", "stage", "reproduce"),
    "Model": ("history", "rollback", "serve", "serving", "ledger", "promote", "recipe", "anchor"),
    "Ask": ("explain", "decay", "backtest"),
    "Data": ("ingest", "log", "gate", "world"),
    "Operate": ("monitor", "alert", "gc"),
}
"""The commands as the help shows them, the common ones first."""


class Grouped(TyperGroup):
    """The commands in the order and under the headings of `GROUPS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the help."""
        return [name for names in GROUPS.values() for name in names]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command with its heading."""
        found = super().get_command(ctx, cmd_name)
        heading = next((group for group, names in GROUPS.items() if cmd_name in names), None)
        if found is not None:
            setattr(found, "rich_help_panel", heading)  # noqa: B010  # Typer's rich help reads it.
        return found


app = Commands(
    cls=Grouped,
    help="Retrain the Homefeed ranker, and ask what serves.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # Airflow's task log gets a plain traceback
)
for group in (cycle.app, champion.app, serve.app, decay.app, look.app):
    app.add_typer(group)
app.add_typer(champion.history_app, name="history")
app.add_typer(ledger.app, name="ledger")
app.add_typer(recipe.anchor_app, name="anchor")
app.add_typer(recipe.app, name="recipe")
app.add_typer(data.ingest_app, name="ingest")
app.add_typer(world.app, name="world")
app.add_typer(data.log_app, name="log")
app.add_typer(data.gate_app, name="gate")
app.add_typer(look.local_app, name="local")
app.add_typer(look.alert_app, name="alert")


def _say_version(is_asked: bool) -> None:
    if is_asked:
        say(code_version())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Say the version.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    """Take what stands before a command."""


def main() -> None:
    """Run the command line and turn our errors into exit codes."""
    from training.environment import wait_briefly

    collect_seldom()
    # Our own progress is shown; libraries only when they warn (some log hundreds of lines).
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for package in ("pipelines", "training", "validation"):
        logging.getLogger(package).setLevel(logging.INFO)
    # Links to MLflow's runs would come between what a command prints.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    wait_briefly(os.environ)  # before anything loads OpenMP
    # SystemExit unwinds the stack, which removes scratch folders and ends child processes.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with contextlib.suppress(ConfigurationError):  # The command says what is wrong with it.
        os.umask(int(Settings().umask, 8))
    try:
        with logging_redirect_tqdm():  # so that no line breaks a bar
            app(standalone_mode=True)
    except SystemExit as end:
        # Click ends with 2 where it does not understand the command line.
        sys.exit(WRONG_USAGE if end.code == 2 else end.code)
    except Exception as error:
        ours, as_json = as_ours(error), OPTION in sys.argv
        if ours is None:
            log.exception("unforeseen error; this is a defect, or a library's way to report one")
        code = (ours or HomefeedError).exit_code
        if ours or as_json:
            complain(ours or error, code, as_json)
        sys.exit(code)
