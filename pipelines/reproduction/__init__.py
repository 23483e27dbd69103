"""A past cycle is rebuilt in a folder of its own, and compared with its record digest by digest.

`rebuild` is the door, `past_cycle` reads the record, `comparing` says what is equal and what has
changed since. Nothing of the original is written.
"""
