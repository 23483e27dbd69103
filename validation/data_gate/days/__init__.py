"""What each day of an event log looks like, in numbers, and how far a day is from the days before.

Not for the rows of a snapshot (`validation.data_gate.snapshot_profile`), nor for reading an event
log: whoever has its rows hands them in.
"""
