"""`homefeed decay`: what a model loses with age. Tested in tests/pipelines/decay/."""

from typing import Annotated

from typer import Option

from pipelines import storage
from pipelines.cli.printing import Commands, recipes_like, say, say_all
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
    from validation.report.decay_page import sentences

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
    say_all(sentences(found))
    say(log_to_mlflow(found, lab.settings) or "MLflow does not answer, and has no copy of the page")
    say(storage.join(folder_of(lab.workspace_uri, lab.recipe), "decay.html"))
    return found
