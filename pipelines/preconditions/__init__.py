"""What can be known before anything is built: whether recipe, event log and champion fit together.

`resolve_run` refuses what does not, and `homefeed recipe check` lists it. Nothing is built or
judged here, and only single columns of the log are read.
"""
