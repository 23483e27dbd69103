"""Reads the event log, checks it and counts its events. Adapters write it (`pipelines.sources`)."""
