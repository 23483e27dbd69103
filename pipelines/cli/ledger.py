"""`homefeed ledger`: what was measured online, beside what was expected offline.

Tested in tests/pipelines/cycles/test_ledger.py.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from pipelines import storage
from pipelines.cli.printing import Commands, say
from pipelines.contracts.cycle import Agreement
from pipelines.contracts.errors import ConfigurationError
from pipelines.contracts.reasons import Interval
from pipelines.contracts.time import parse_instant
from pipelines.settings import Settings

app = Commands(no_args_is_help=True, help="What promotions brought online, and were expected to.")
_FIELDS = ("metric", "lift", "low", "high", "from", "to")


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
    from pipelines.cycles.index import refresh_index
    from pipelines.cycles.ledger import add as enter

    if entries:
        given = _read(entries)
    else:
        values = (metric, lift, low, high, start, end)
        given = [dict(zip(_FIELDS, values, strict=True)) | {"source": source}]
    settings, added = Settings(), []
    workspace_uri = storage.to_uri(settings.workspace_location)
    for each in given:
        if missing := [name for name in _FIELDS if each.get(name) in (None, "")]:
            raise ConfigurationError(f"an entry lacks {', '.join(missing)}; expected all of them")
        lifts = _number(each, "low"), _number(each, "lift"), _number(each, "high")
        began, ended = (parse_instant(str(each[name]), f"--{name}") for name in ("from", "to"))
        told = str(each["metric"]), lifts, (began, ended), str(each.get("source", ""))
        entry = enter(workspace_uri, settings.registered_model, *told)
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


def _read(place: str) -> list[dict[str, Any]]:
    try:
        text = sys.stdin.read() if place == "-" else Path(place).read_text("utf-8")
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--entries {place} cannot be read: {error}") from None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ConfigurationError(
            f"--entries {place} holds no list of objects; expected {', '.join(_FIELDS)} of each"
        )
    return found


def _number(entry: dict[str, Any], name: str) -> float:
    try:
        return float(entry[name])
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"{name} is {entry[name]!r}; expected a number; 0.012 is +1.2 %"
        ) from None
