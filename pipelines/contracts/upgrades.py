"""Files of earlier schema versions, brought to the version that follows.

Each function takes a file's JSON value and returns it as the next version writes it. They are named
by the class that a file is read with (`Frozen.upgrades`); what has none is refused in another
version. Not for recipes that people write: what is wrong in one is told with its line.
"""

from datetime import datetime, timedelta
from typing import Any

_SLOW = "Serving check: latency p99 is {found:.3g} ms, beyond the {limit:.3g} ms allowed."
"""What version 1 said of wall time. Its other sentences are today's, or wait for facts alone."""


def from_version_1(found: Any) -> Any:
    """Return a value of version 1, whose intervals came from a bootstrap over users alone.

    What was not known then is None, and days are those of the holdout.
    """
    if isinstance(found, list):
        return [from_version_1(each) for each in found]
    if not isinstance(found, dict):
        return found
    made = {name: from_version_1(value) for name, value in found.items()}
    if "num_resamples" in made:  # options of the model gate
        made |= {"seed": made.pop("bootstrap_seed", 11)}
        del made["num_resamples"]
    if "bootstrap_seed" in made and "holdout" in made:  # a comparison
        start, end = (datetime.fromisoformat(made["holdout"][name]) for name in ("start", "end"))
        made["num_days"] = round((end - start) / timedelta(days=1))
        del made["bootstrap_seed"]
    made.pop("max_latency_p99_ms", None)  # option of the serving check
    if "verdict" in made:
        made.pop("tries", None)
    if made.get("why") == "code_not_at_hand":
        made["why"] = "code_not_run"
    return made | _reason_of_version_1(made) if {"code", "facts"} <= made.keys() else made


def _reason_of_version_1(reason: dict[str, Any]) -> dict[str, Any]:
    """Return code and facts of a reason of a verdict, so that it says what it said."""
    code = reason["code"]
    facts: dict[str, Any] = reason["facts"]
    if code == "serving_latency":
        return {"code": "on_record", "facts": {"text": _SLOW.format(**facts)}}
    if code == "serving_figures":
        facts = {"processor_p99_ms": None} | facts
    if code == "tested_coverage":
        facts = {name: fact for name, fact in facts.items() if name != "most"}
    if code.startswith(("target_", "recipe_")) and "baseline_level" in facts:
        facts = {"difference": None, "days": None, "users": None} | facts
        if isinstance(facts.get("low"), float):
            facts["low"] = [facts["low"], 0.95]
    return {"facts": facts}
