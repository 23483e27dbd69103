"""Adapter of the Complete Journey retail data. Nothing here knows of models."""
