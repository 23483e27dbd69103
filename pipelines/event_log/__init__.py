"""Reads the event log, checked. Writing one is an adapter's work (`pipelines.sources`)."""
