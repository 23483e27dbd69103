"""`homefeed ledger`: what was measured online, beside what was expected offline.

Tested in tests/pipelines/cycles/test_ledger.py.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter
from typer import Option

from pipelines.cli.printing import Commands, say, say_all
from pipelines.contracts.cycle import Lift, MeasuredLift
from pipelines.contracts.errors import ConfigurationError
from pipelines.settings import Settings

app = Commands(no_args_is_help=True, help="What promotions brought online, and were expected to.")


@app.command()
def add(
    metric: Annotated[str, Option(help="What was measured, such as repin_volume.")] = "",
    lift: Annotated[float | None, Option(help="Relative change; 0.012 is +1.2 %.")] = None,
    low: Annotated[float | None, Option(help="Lower end of its 95 % interval.")] = None,
    high: Annotated[float | None, Option(help="Upper end.")] = None,
    start: Annotated[str, Option("--from", help="Start (ISO 8601, UTC).")] = "",
    end: Annotated[str, Option("--to", help="End.")] = "",
    source: Annotated[str, Option(help="Who measured, and how.")] = "",
    entries: Annotated[
        str, Option(help="JSON file with a list of such entries; - is standard input.")
    ] = "",
) -> list[MeasuredLift]:
    """Enter what was measured of the model that served from --from to --to."""
    from pipelines.cycles import ledger
    from pipelines.cycles.index import refresh_index

    given: Any = {"metric": metric, "lift": lift, "low": low, "high": high}
    given = [given | {"from": start, "to": end, "source": source}]
    try:
        if entries:
            text = sys.stdin.read() if entries == "-" else Path(entries).read_text("utf-8")
            given = json.loads(text)
        found = TypeAdapter(list[Lift]).validate_python(given)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"an entry cannot be used: {error}; expected {', '.join(Lift.model_fields)} of each"
        ) from None
    settings = Settings()
    where = settings.workspace_uri, settings.registered_model
    added = [ledger.add(*where, each) for each in found]
    say_all(
        f"{each.model} against {each.previous}: {each.metric} {each.change.in_percent}"
        for each in added
    )
    refresh_index(*where)
    return added


@app.command()
def show() -> dict[str, Any]:
    """Show each entry beside what was expected, and how well that has foretold it."""
    from pipelines.cycles.ledger import account, of_main_metric, read

    settings = Settings()
    entries = read(settings.workspace_uri, settings.registered_model)
    for each in entries:
        expected = each.offline.in_percent if each.offline else "nothing"
        say(
            f"{each.start:%Y-%m-%d} to {each.end:%Y-%m-%d}  {each.model} against {each.previous}: "
            f"{each.metric} {each.change.in_percent}, expected {expected}"
        )
    accounts = account(of_main_metric(entries))
    say_all(each.sentence for each in accounts)
    return {"entries": entries, "agreement": accounts}
