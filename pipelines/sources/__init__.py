"""Source adapters and a writer: turn somebody's data into the event log."""
