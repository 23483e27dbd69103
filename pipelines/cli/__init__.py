"""The command line `homefeed`. Parses and prints; the work is done by the rooms beside it."""
