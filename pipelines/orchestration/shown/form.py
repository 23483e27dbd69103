"""What the trigger form says beside each option: what fits here and now.

The DAG file asks for it whenever Airflow reads that file, so it is found on this machine's disk,
in a few small reads, and nothing of it can fail: what is not known is said to be. Not for checking
what was entered (`pipelines.orchestration.resolving`).

Airflow makes a new version of the DAG when its text differs and a run has used the last version;
otherwise it writes the last version anew. So while a run goes on, the text stays as it was when the
run began, and a run makes at most one version, whatever comes into the log meanwhile:

    <workspace>/schedule/form.json    what the text says while a run goes on

Every DAG processor must see the same event log and workspace, or none of them: two that say
different things would write the DAG anew in turn.

Tested in tests/pipelines/orchestration/shown/test_form.py.
"""

import json
import logging
import os
import re
import time
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipelines.recipes import RECIPES
from pipelines.recipes.references import EXPECTED
from pipelines.recipes.triggering import choices
from pipelines.settings import Settings

log = logging.getLogger(__name__)

_DAY = re.compile(r"day=(\d{4}-\d{2}-\d{2})")
_LONGEST_S = 4 * 24 * 3600
"""How long the text is held at most, in seconds: longer than a run may take, so that a text that
nobody freed is not shown for ever."""
_MOST_MOVES = 20
"""How many moves of the champion are looked at, newest first; those that were given up say
nothing."""


def about_as_of(settings: Settings) -> str:
    """Return what the option `as_of` means, the days of the event log and the champion's day."""
    return (
        "Use what was known before this day (UTC). Empty: the data interval's end, which is now "
        f"in a run that a person triggers. {_held(settings) or _facts(settings)}"
    )


def hold_text(settings: Settings) -> None:
    """Let the form say what it says now until `free_text`, as a run begins.

    A run that is begun again goes on with the text that is held. Without the file the text follows
    what is on the disk, so that a failure is told and stops nothing.
    """
    place = _place(settings)
    if place is None or _held(settings):
        return
    part = place.with_name(f"{place.name}.part-{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"text": _facts(settings)}))
        part.replace(place)
    except OSError as error:
        log.warning("what the trigger form says may change during this run: %s", error)


def free_text(settings: Settings) -> None:
    """Let the form say what is on the disk again, as a run ends."""
    place = _place(settings)
    try:
        if place is not None:
            place.unlink(missing_ok=True)
    except OSError as error:
        log.warning("the trigger form goes on saying what it said during the run: %s", error)


def about_recipe(settings: Settings) -> str:
    """Return what `recipe` may be, and what each offered recipe is for, as Markdown."""
    # Not as code, whose boxes Airflow's form draws over the lines above and below.
    offered = [f"- **{name}**: {_purpose(name)}" for name in choices(settings.recipe)]
    lead = f"Configuration to run: {EXPECTED}. HOMEFEED_RECIPE_PACKAGES: which packages."
    return "\n".join([lead, "", *offered, "", f"This deployment's own is **{settings.recipe}**."])


def newest_as_of(last_day: date) -> date:
    """Return the newest day that a log with this last day can be asked for."""
    return last_day + timedelta(days=1)


def _place(settings: Settings) -> Path | None:
    workspace = _on_disk(settings.workspace_location)
    return workspace and workspace / "schedule" / "form.json"


def _held(settings: Settings) -> str:
    """Return what the form has to go on saying; '' where nothing holds it."""
    place = _place(settings)
    try:
        if place is None or time.time() - place.stat().st_mtime > _LONGEST_S:
            return ""
        return str(json.loads(place.read_text())["text"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _facts(settings: Settings) -> str:
    return f"{_about_log(settings)} {_about_champion(settings)}"


def _purpose(name: str) -> str:
    made = RECIPES.get(name)
    if made is None:
        return "this deployment's own."
    first = (made.__doc__ or "").strip().splitlines()[0]
    return first.removeprefix("Return ").replace("`", "")


def _about_log(settings: Settings) -> str:
    place = _on_disk(settings.event_log_location)
    if place is None:
        return "Which days the event log has is not known here: it lies in a store."
    days = _days_of_log(place)
    if not days:
        return "Which days the event log has is not known here: none is found."
    newest = newest_as_of(date.fromisoformat(days[-1]))
    return (
        f"The event log has the days {days[0]} to {days[-1]}, so that {newest} is the newest day "
        f"to enter."
    )


def _days_of_log(place: Path) -> list[str]:
    """Return the days that a local log has impressions of, sorted; [] where none can be seen."""
    try:
        names = os.listdir(place / "impressions")
        found = sorted(day[1] for name in names if (day := _DAY.fullmatch(name)))
        date.fromisoformat(found[-1])
    except (OSError, ValueError, IndexError):
        return []
    return found


def _about_champion(settings: Settings) -> str:
    if _on_disk(settings.workspace_location) is None:
        return "Which model serves is not known here: the record lies in a store."
    champion = champion_on_record(settings)
    if champion is None:
        return "No champion is on record here."
    name, day = champion
    return f"The champion is {name}, trained as of {day}: a promotion needs a later day."


def champion_on_record(settings: Settings) -> tuple[str, str] | None:
    """Return label and day (YYYY-MM-DD) of the champion as the newest move on record says, or None.

    Only a record on this machine's disk is read; MLflow is not asked.
    """
    workspace = _on_disk(settings.workspace_location)
    if workspace is None:
        return None
    try:
        folder = workspace / "history" / settings.registered_model
        intents = sorted(folder.glob("*.intent.json"), reverse=True)
        for intent in intents[:_MOST_MOVES]:
            ended = intent.with_name(intent.name.replace(".intent.", ".outcome."))
            if ended.exists() and json.loads(ended.read_text())["is_made"]:
                model = json.loads(intent.read_text())["entry"]["model"]
                return f"{model['name']} v{model['version']}", str(model["as_of"])[:10]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _on_disk(location: str) -> Path | None:
    """Return a place on this machine's disk, None for another one.

    `pipelines.storage` could say so, and takes longer to import than the whole DAG file.
    """
    if "://" not in location:
        return Path(location).expanduser()
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None
