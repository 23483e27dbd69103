"""The encoder's layers computed exactly, in few passes over memory, on a CPU.

Others use what this module names and nothing else of the room; the encoder does wherever it can.
"""

from training.model.encoder.cpu.door import PADDING_COST, encode, supports

__all__ = ["PADDING_COST", "encode", "supports"]
