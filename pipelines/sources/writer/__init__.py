"""Somebody's tables become an event log; `event_log_writer.EventLogWriter` is the door."""
