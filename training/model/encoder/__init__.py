"""The sequence encoder: what a user did lately, seen from each candidate pin.

The room's door is `sequence_encoder`. Nothing here reads files or knows how training goes.
"""
