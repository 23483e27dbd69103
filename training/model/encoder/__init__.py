"""The sequence encoder: what a user did lately, seen from each candidate pin."""
