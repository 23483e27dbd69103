"""Builds the immutable training and holdout sets of a cycle. Judging them is the data gate's."""
