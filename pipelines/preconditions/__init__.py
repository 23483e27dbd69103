"""What can be known before anything is built: whether recipe, machines, log and champion fit.

`resolve_run` refuses what does not, and `homefeed recipe check` lists it; both walk the questions
of `cycle`. Nothing is built or judged here, and only single columns of the log are read.
"""
