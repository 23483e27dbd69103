"""The encoder's layers computed exactly, in few passes over memory, on a CPU.

Others use what this module names and nothing else of the room. `model.encoder_kernel` says whether
the encoder asks for it; without this folder `plain` and `auto` still work.
"""

from training.model.encoder.cpu.door import PADDING_COST, encode, supports

__all__ = ["PADDING_COST", "encode", "supports"]
