"""The base of every value that crosses a boundary: frozen, closed, JSON in and JSON out.

Not for behaviour: a contract says what a value is and refuses what it is not.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

SCHEMA_VERSION = 1
"""Of every JSON file that this project writes: its first entry. It grows when a field changes its
meaning or goes."""


class Frozen(BaseModel):
    """An immutable value that refuses unknown fields and numbers that are NaN or infinite.

    JSON has no such numbers, and a comparison with NaN is false whichever way it is asked. What
    cannot be computed is therefore None or recorded with a reason.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )

    def to_record(self) -> bytes:
        """Return the JSON text of a file that holds this value: its schema's version first."""
        record = {"schema_version": SCHEMA_VERSION, **self.model_dump(mode="json")}
        return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def from_record(cls, content: bytes) -> Self:
        """Return the value that a file holds, which `to_record` wrote.

        Raises:
            ValidationError: it is no such value, or one of another schema's version.
        """
        found = TypeAdapter(dict[str, Any]).validate_json(content)
        version = found.pop("schema_version", "missing")
        if version == SCHEMA_VERSION:
            return cls.model_validate_json(json.dumps(found))
        what = PydanticCustomError(
            "schema_version",
            "schema_version is {found}, expected {expected}: another version of this project "
            "wrote the file; go on with that version, or begin with an empty workspace",
            {"found": version, "expected": SCHEMA_VERSION},
        )
        details = InitErrorDetails(type=what, loc=("schema_version",), input=version)
        raise ValidationError.from_exception_data(cls.__name__, [details])

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
