"""Damages a file as a bad disk would."""

from pathlib import Path


def flip_a_byte(path: Path) -> None:
    """Change the byte in the middle; the size stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
