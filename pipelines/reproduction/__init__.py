"""A past cycle is rebuilt in a folder of its own, and compared with its record digest by digest.

`rebuild` is the door. `past_cycle` reads the record, `scratch` and `own_registry` make the places,
`findings` says what is equal, `causes` what has changed since. Nothing of the original is written.
"""
