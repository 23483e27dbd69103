"""The command line `homefeed`. Parses and prints; the work is done by the rooms beside it.

`main` puts it together; every other module holds one group of commands.
"""
