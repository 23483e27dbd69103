"""A past cycle is rebuilt in a folder of its own, and compared with its record digest by digest.

`rebuild` is the door, `comparing` reads the record, which is never written, and says what is equal.
"""
