"""Computes numbers per candidate, from what was known before. `count` and `own` are the doors."""
