"""Judges an event log before anything is built of it, and shows what a model would see of it."""
