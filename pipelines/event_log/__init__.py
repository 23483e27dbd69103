"""Reads the event log, checked, and counts its events. Adapters write it (`pipelines.sources`)."""
