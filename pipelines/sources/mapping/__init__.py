"""Somebody's tables as an event log, by a file that says what is where: `homefeed log import`."""
