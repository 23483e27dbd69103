"""Damages a file as a bad disk would, or alters a record as somebody who seals it anew."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.contracts.base import digest_of


def sealed(record: dict[str, Any]) -> bytes:
    """Return a record's text with the seal of what it says by now."""
    said = {name: value for name, value in record.items() if name != "seal"}
    return json.dumps(said | {"seal": digest_of(json.dumps(said, sort_keys=True))}).encode()


def flip_a_byte(path: Path) -> None:
    """Change the byte in the middle; the size stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def damage_pages(path: Path, column: str) -> None:
    """Change every bit of a column's pages in a Parquet file; its footer stays as it is."""
    metadata = pq.read_metadata(path)
    found = metadata.row_group(0).column(metadata.schema.names.index(column))
    start = found.dictionary_page_offset or found.data_page_offset
    content = bytearray(path.read_bytes())
    for place in range(start, start + found.total_compressed_size):
        content[place] ^= 0xFF
    path.write_bytes(content)
