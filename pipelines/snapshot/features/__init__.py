"""Numbers per candidate from what was known before the request. `count` and `own` are the doors."""
