"""The base of every value that crosses a boundary: frozen, closed, JSON in and JSON out.

Not for behaviour: a contract says what a value is and refuses what it is not.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable value that refuses unknown fields and numbers that are NaN or infinite.

    JSON has no such numbers, and a comparison with NaN is false whichever way it is asked. What
    cannot be computed is therefore None or recorded with a reason.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )

    def fingerprint(self) -> str:
        """Return the sha256 (hex, 64 characters) of the canonical JSON form."""
        return digest_of(self.model_dump(mode="json"))


class Artifact(Frozen):
    """What a stage gives. Its JSON form is the stage's manifest; files it owns lie beside it."""

    def places(self) -> dict[str, int | None]:
        """Return the URIs of what the artifact owns, with the size in bytes where it is known.

        The stage is done only while all of it is there. The default is that it owns nothing.
        """
        return {}


def digest_of(value: Any) -> str:
    """Return the sha256 (hex) of a JSON-able value, independent of key order and white space.

    Raises:
        ValueError: the value holds NaN or infinity, which JSON does not know.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the sha256 (hex) of a file's content, which is never in memory as a whole."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
