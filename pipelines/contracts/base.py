"""The base of every value that crosses a boundary: frozen, closed, JSON in and JSON out.

Not for behaviour: a contract says what a value is and refuses what it is not.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, LiteralString, Self, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


def as_it_was(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a version says that differs from the next one by its missing seal alone."""
    return found


def _seal_of(record: dict[str, Any]) -> str:
    return digest_of(json.dumps(record, sort_keys=True))


class Frozen(BaseModel):
    """An immutable value that refuses unknown fields and numbers that are NaN or infinite.

    JSON has no such numbers, and a comparison with NaN is false whichever way it is asked. What
    cannot be computed is therefore None or recorded with a reason.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )
    upgrades: ClassVar[tuple[Callable[[dict[str, Any]], dict[str, Any]], ...]] = (as_it_was,)
    """What brings a file's content from each version of its schema to the next, the first first.

    One is added when a field changes its meaning or goes. What was written stays as it is, because
    other files name it by the digest of its bytes; it is brought up to date as it is read. A kind
    of file that has none is refused in another version.
    """
    sealed_from: ClassVar[int] = 2
    """The first version whose files carry a seal; one without is refused, unless it is earlier."""

    @classmethod
    def schema_version(cls) -> int:
        """Return the version that is written, the first entry of every JSON file of this kind."""
        return 1 + len(cls.upgrades)

    def to_record(self) -> bytes:
        """Return the JSON text of a file that holds this value, sealed: its version first."""
        record = {"schema_version": self.schema_version(), **self.model_dump(mode="json")}
        record["seal"] = _seal_of(record)
        return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def from_record(cls, content: bytes) -> Self:
        """Return the value that a file holds, which `to_record` wrote.

        Raises:
            ValidationError: it is no such value, was edited, or is of a version that nothing brings
                up to date.
        """
        found = TypeAdapter(dict[str, Any]).validate_json(content)
        version, newest = found.get("schema_version", "missing"), cls.schema_version()
        if isinstance(version, int) and 1 <= version <= newest:
            if version >= cls.sealed_from and found.pop("seal", "") != _seal_of(found):
                raise cls.refusal("seal", "it was edited: its seal does not fit what it says")
            del found["schema_version"]
            for upgrade in cls.upgrades[version - 1 :]:
                found = upgrade(found)
            return cls.model_validate_json(json.dumps(found))
        said = (
            f"schema_version is {version}, expected {newest}: another version of this project "
            f"wrote the file; go on with that version, or begin with an empty workspace"
        )
        raise cls.refusal("schema_version", said, version)

    @classmethod
    def refusal(cls, entry: str, said: str, found: Any = None) -> ValidationError:
        """Return the error that says why an entry of a file makes it no value of this class."""
        what = PydanticCustomError(cast("LiteralString", entry), cast("LiteralString", said))
        details = InitErrorDetails(type=what, loc=(entry,), input=found)
        return ValidationError.from_exception_data(cls.__name__, [details])


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
