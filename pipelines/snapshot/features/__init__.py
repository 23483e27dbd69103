"""Numbers per candidate from what was known before it was shown: `count` is the door, with `own`."""
