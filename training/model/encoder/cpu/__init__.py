"""The encoder's layers computed exactly, in few passes over memory, on a CPU."""
