"""Starts the processes of a training, waits for them and tells how they ended."""
