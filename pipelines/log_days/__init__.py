"""Reads the days of an event log for the data gate and judges them before anything is built."""
