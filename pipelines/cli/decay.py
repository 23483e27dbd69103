"""`homefeed decay` and `backtest`: what age costs, what other gates would have promoted.

Tested in tests/pipelines/decay/.
"""

from typing import TYPE_CHECKING, Annotated

from typer import Option

from pipelines.cli.printing import Commands, recipes_like, say, say_all
from pipelines.contracts.decay import Backtest, Decay
from pipelines.contracts.time import parse_instant
from pipelines.recipes import make_recipe
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.decay.lab import Lab

app = Commands()
_HELP = "Of the models; HOMEFEED_RECIPE by default."
OfRecipe = Annotated[str, Option("--recipe", help=_HELP, autocompletion=recipes_like)]
From = Annotated[str, Option("--from", help="First day; the log's by default.")]
To = Annotated[str, Option("--to", help="Last day; the newest by default.")]
Every = Annotated[int, Option(min=1, help="Days from one model to the next.")]
Registry = Annotated[
    bool, Option("--registry/--apart", help="Use models of the registry where it has them.")
]


@app.command()
def decay(  # noqa: PLR0913, PLR0917 - Typer makes an option of each
    recipe: OfRecipe = "",
    start: From = "",
    end: To = "",
    every: Every = 14,
    value: Annotated[
        float | None, Option(min=0, help="Of 1 % of the target metric a day, in core-hours.")
    ] = None,
    core_hours: Annotated[
        float | None, Option(min=0, help="Of one cycle; what was measured here by default.")
    ] = None,
    registry: Registry = True,
    whole: Annotated[
        bool,
        Option("--whole", help="Score all pairs and users, not lags of 1, 2, 4 ... and a share."),
    ] = False,
    warm: Annotated[
        bool, Option("--warm", help="Also train models that begin with the weights of the last.")
    ] = False,
) -> Decay:
    """Score past models on all later windows: the decay curve, and what each cadence costs."""
    from pipelines.decay.lab import log_to_mlflow
    from validation.report.decay_page import sentences

    lab = _lab(recipe, start, end, every, registry)
    lab.is_whole, lab.starts_warm = whole, warm
    found = lab.report(lab.measure(), core_hours=core_hours, value=value or None)
    say_all(sentences(found))
    say(log_to_mlflow(found, lab.settings) or "MLflow does not answer, and has no copy of the page")
    say((lab.folder / "decay.html").as_uri())
    return found


@app.command()
def backtest(  # noqa: PLR0913, PLR0917 - Typer makes an option of each
    recipe: OfRecipe = "",
    start: From = "",
    end: To = "",
    every: Every = 14,
    gate: Annotated[
        list[str] | None,
        Option(
            envvar="HOMEFEED_GATES",
            help="Recipe file that changes model_gate alone; again and again.",
        ),
    ] = None,
    registry: Registry = True,
) -> Backtest:
    """Replay cycles as of then by several gates: what each would have promoted, what that cost."""
    from pipelines.decay import backtest as room

    lab = _lab(recipe, start, end, every, registry)
    gates = {"as it is": lab.recipe} | {name: make_recipe(name) for name in gate or ()}
    found = room.backtest(lab, gates)
    for each in found.gates:
        for cycle in each.cycles:
            came = f", which came to {cycle.came.in_percent}" if cycle.came else ""
            say(f"{each.name}  {cycle.as_of:%Y-%m-%d}: {cycle.decision}{came}")
        say(each.sentence)
    return found


def _lab(recipe: str, start: str, end: str, every: int, registry: bool) -> "Lab":
    from pipelines.decay.lab import Lab, days_to_measure
    from pipelines.event_log.log_files import open_event_log

    settings = Settings()
    config = make_recipe(recipe or settings.recipe)
    first, last = (
        parse_instant(text, option) if text else None
        for text, option in ((start, "--from"), (end, "--to"))
    )
    event_log = open_event_log(settings.event_log_uri)
    days = days_to_measure(event_log, config, first, last, every)
    return Lab(config, settings, days, uses_registry=registry)
