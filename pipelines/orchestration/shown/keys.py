"""XCom keys under which a task leaves words for whoever hears of the run's end."""

FAILURE_KEY = "failure"
"""Under which `resolve_run` leaves why it failed, for the alert: message and next step."""
NOTE_KEY = "run_note"
"""Under which a task leaves its part of the run's note: paragraphs of Markdown."""
