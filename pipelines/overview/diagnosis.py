"""What `homefeed doctor` tells, as values and as lines for people.

Not for finding it out (`pipelines.overview.doctor`). Tested in
tests/pipelines/overview/test_doctor.py.
"""

from collections.abc import Iterator

from pydantic import Field

from pipelines.contracts.base import Frozen


class Setting(Frozen):
    """A setting that differs from its default."""

    name: str = Field(description="The environment variable.")
    value: str = Field(description="Its value; a secret in it is '***'.")


class Check(Frozen):
    """One thing that was tried."""

    what: str
    where: str
    is_good: bool
    said: str = Field(description="What was found; where that is wrong, what to change.")


class Version(Frozen):
    """A package that results depend on."""

    package: str
    installed: str = Field(description="'' where it is not installed.")
    tested: str = Field(description="Version in constraints.txt; '' where it names none.")

    @property
    def is_as_tested(self) -> bool:
        """Return whether it is the tested version, as far as that is known."""
        return self.tested in ("", self.installed)


class Disk(Frozen):
    """A disk that something is written to."""

    path: str
    free_gib: float


class Diagnosis(Frozen):
    """What is set, reachable, writable and installed here, and what is wrong."""

    settings: tuple[Setting, ...]
    checks: tuple[Check, ...]
    python: str
    versions: tuple[Version, ...]
    constraints: str = Field(description="File that the versions are held against; '' if none.")
    disks: tuple[Disk, ...]
    wrong: tuple[str, ...] = Field(description="What must be changed, a sentence each.")
    notes: tuple[str, ...] = Field(description="What may be meant so and may not.")


def lines_of(found: Diagnosis) -> Iterator[str]:
    """Yield the lines; one that belongs to the one before it begins with two spaces."""
    yield "settings that differ from their defaults:" if found.settings else "settings: defaults"
    yield from (f"  {each.name}={each.value}" for each in found.settings)
    if found.checks:
        yield "checks:"
    for check in found.checks:
        said = f": {check.said}" if check.is_good else ""
        yield f"  {'good ' if check.is_good else 'wrong'}  {check.what} ({check.where}){said}"
    yield f"versions, against {found.constraints}:" if found.constraints else "versions:"
    yield f"  Python {found.python}"
    for each in found.versions:
        tested = "" if each.is_as_tested else f", tested with {each.tested}"
        yield f"  {each.package} {each.installed or 'is not installed'}{tested}"
    yield from (f"free: {disk.free_gib:.1f} GiB at {disk.path}" for disk in found.disks)
    yield from (f"note: {note}" for note in found.notes)
    yield from (f"wrong: {sentence}" for sentence in found.wrong)
    if not found.wrong:
        yield "nothing is wrong"
