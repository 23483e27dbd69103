"""XCom keys under which a task leaves words for whoever hears of the run's end."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

FAILURE_KEY = "failure"
"""Under which `resolve_run` leaves why it failed, for the alert: message, next step and instant."""
NOTE_KEY = "run_note"
"""Under which a task leaves its part of the run's note: paragraphs of Markdown."""


def broke_at(left: Mapping[str, Any]) -> datetime | None:
    """Return the instant of a failure that a run without a folder has left; None: not known."""
    return datetime.fromisoformat(left["at"]) if "at" in left else None
