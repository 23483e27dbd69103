"""A simulated world with a known answer, written as an event log. Nothing here knows of models."""
