"""Watches the champion between two cycles: daily scores, what they say, and who is told."""
