"""Judges a challenger against the champion on one holdout. Scores come from `training.bundle`."""
