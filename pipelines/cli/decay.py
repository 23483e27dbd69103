"""`homefeed decay`: what a model loses with age. Tested in tests/pipelines/decay/test_lab.py."""

from typing import Annotated

from typer import Option

from pipelines import storage
from pipelines.cli.printing import Commands, recipes_like, say
from pipelines.contracts.decay import Decay
from pipelines.contracts.time import parse_instant
from pipelines.recipes import make_recipe
from pipelines.settings import Settings

app = Commands()


@app.command()
def decay(  # noqa: PLR0913, PLR0917 - Typer makes an option of each
    recipe: Annotated[
        str,
        Option(help="Of the models; HOMEFEED_RECIPE by default.", autocompletion=recipes_like),
    ] = "",
    start: Annotated[str, Option("--from", help="First day; the log's by default.")] = "",
    end: Annotated[str, Option("--to", help="Last day; the newest by default.")] = "",
    every: Annotated[int, Option(min=1, help="Days from one model to the next.")] = 14,
    value: Annotated[
        float | None, Option(min=0, help="Of 1 % of the target metric a day, in core-hours.")
    ] = None,
    core_hours: Annotated[
        float | None, Option(min=0, help="Of one cycle; what was measured here by default.")
    ] = None,
    registry: Annotated[
        bool, Option("--registry/--apart", help="Use models of the registry where it has them.")
    ] = True,
    whole: Annotated[
        bool, Option("--whole", help="Score every pair, not lags of 1, 2, 4, 8 ... alone.")
    ] = False,
) -> Decay:
    """Score past models on all later windows: the decay curve, and what each cadence costs."""
    from pipelines.decay.lab import Lab, days_to_measure, folder_of, log_to_mlflow
    from pipelines.event_log.log_files import open_event_log
    from validation.decay.cadence import cheapest
    from validation.report.charts import change_with_interval

    settings = Settings()
    config = make_recipe(recipe or settings.recipe)
    first, last = (
        parse_instant(text, option) if text else None
        for text, option in ((start, "--from"), (end, "--to"))
    )
    event_log = open_event_log(storage.to_uri(settings.event_log_location))
    days = days_to_measure(event_log, config, first, last, every)
    lab = Lab(config, settings, days, uses_registry=registry, is_whole=whole)
    found = lab.report(lab.measure(), core_hours=core_hours, value=value or None)
    for curve in found.curves:
        last_point = curve.points[-1]
        said = f"{curve.metric}, {curve.segment}, stale {curve.stale}"
        say(f"{said}: {change_with_interval(last_point.change)} after {last_point.lag_days} days")
    for each in found.cadences:
        how = f"every {each.days:g} days" if each.days else "never"
        cost = f", costs {each.cost.value:.3f} core-hours a day" if each.cost else ""
        say(f"retrained {how}: loses {100 * each.lost.value:.2f} % a day{cost}")
    best = cheapest(found.cadences)
    if best and best.days and best.chance is not None:
        say(f"cheapest: every {best.days:g} days, in {best.chance:.0%} of curves that fit")
    say(log_to_mlflow(found, settings) or "MLflow does not answer, and has no copy of the page")
    say(storage.join(folder_of(lab.workspace_uri, config), "decay.html"))
    return found
