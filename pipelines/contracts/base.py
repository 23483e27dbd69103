"""The base of every value that crosses a boundary: frozen, closed, JSON in and JSON out.

Not for behaviour: a contract says what a value is and refuses what it is not.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable value that refuses unknown fields and non-finite surprises in its JSON form."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="constants", protected_namespaces=()
    )

    def fingerprint(self) -> str:
        """Return the sha256 (hex, 64 characters) of the canonical JSON form."""
        return digest_of(self.model_dump(mode="json"))


def digest_of(value: Any) -> str:
    """Return the sha256 (hex) of a JSON-able value, independent of key order and white space."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
