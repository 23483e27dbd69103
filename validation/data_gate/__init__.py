"""Judges a snapshot before anything is trained on it. Writes no page (`validation.report`)."""
