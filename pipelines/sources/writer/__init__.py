"""Somebody's tables become an event log: checked, sorted, filed by day, published whole.

`event_log_writer.EventLogWriter` is the door. Adapters, which have sorted tables of their own, use
`log_folder`. Not for what the rows mean, nor for reading a log (`pipelines.event_log`).
"""
