"""A past cycle is rebuilt in a folder of its own, and compared with its record digest by digest.

`rebuild` is the door, `past_cycle` reads the record, `findings` says what is equal and `causes`
what has changed since. Nothing of the original is written.
"""
