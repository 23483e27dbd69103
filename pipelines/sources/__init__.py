"""Source adapters: turn somebody's data into the event log, and read it back checked."""
