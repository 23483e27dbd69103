"""`homefeed ledger`: what was measured online, beside what was expected offline.

Tested in tests/pipelines/cycles/test_ledger.py.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter
from typer import Option

from pipelines import storage
from pipelines.cli.printing import Commands, say
from pipelines.contracts.cycle import Agreement
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.reasons import Interval
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
) -> list[dict[str, Any]]:
    """Enter what was measured of the model that served from --from to --to."""
    from pipelines.cycles import ledger
    from pipelines.cycles.index import refresh_index

    given: Any = {"metric": metric, "lift": lift, "low": low, "high": high}
    given = [given | {"from": start, "to": end, "source": source}]
    try:
        if entries:
            text = sys.stdin.read() if entries == "-" else Path(entries).read_text("utf-8")
            given = json.loads(text)
        found = TypeAdapter(list[ledger.Given]).validate_python(given)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"an entry cannot be used: {error}; expected {', '.join(ledger.FIELDS)} of each"
        ) from None
    settings, added = Settings(), []
    workspace_uri = storage.to_uri(settings.workspace_location)
    for each in found:
        entry = ledger.add(workspace_uri, settings.registered_model, each)
        say(f"{entry.model} against {entry.previous}: {entry.metric} {_told(entry.lift)}")
        added.append(entry.model_dump(mode="json"))
    refresh_index(workspace_uri, settings.registered_model)
    return added


@app.command()
def show() -> dict[str, Any]:
    """Show each entry beside what was expected, and how well that has foretold it."""
    from pipelines.cycles.ledger import account, of_main_metric, read

    settings = Settings()
    pairs = read(storage.to_uri(settings.workspace_location), settings.registered_model)
    for pair in pairs:
        found = pair.measured
        expected = _told(pair.offline) if pair.offline else "nothing"
        say(
            f"{found.start:%Y-%m-%d} to {found.end:%Y-%m-%d}  {found.model} against "
            f"{found.previous}: {found.metric} {_told(found.lift)}, expected {expected}"
        )
    accounts = account(of_main_metric(pairs))
    for each in accounts:
        say(_sentence(each))
    return {"entries": pairs, "agreement": accounts}


def _sentence(of: Agreement) -> str:
    bias = f"; too high by {_told(of.bias)}" if of.bias else ""
    return (
        f"{of.estimator}: of {of.num_clear} clear lifts it had the sign of {of.num_signs}; of "
        f"{of.num} it agreed with {of.num_covered} within both intervals{bias}"
    )


def _told(change: Interval) -> str:
    return f"{change.value:+.2%} ({change.low:+.2%} to {change.high:+.2%})"
