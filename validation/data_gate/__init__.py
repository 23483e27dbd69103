"""Judges a snapshot before anything is trained on it, and lets Great Expectations write its pages.

The look of the pages, and the overview before them, are made in `validation.report`.
"""
