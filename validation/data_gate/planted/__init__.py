"""Functions that spoil an event log, each in one known way, for `validation.data_gate.defects`.

For trying a gate: in tests, in the benchmark and in its self-test. Not for judging, and nothing
here is called in a cycle. A function takes rows and returns other rows; it changes no array in
place, and draws from the generator that it is given.
"""
