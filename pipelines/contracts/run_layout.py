"""The small JSON files that say what happened: what is in them, and where they lie, as URIs.

`pipelines.contracts.artifacts` draws the whole workspace. Not for reading or writing the files:
that is `pipelines.storage`. Tested in tests/pipelines/stages/test_runner.py.
"""

from collections.abc import Callable
from typing import Any

from pydantic import AwareDatetime, Field

from pipelines.contracts.base import Frozen, digest_of
from pipelines.contracts.code_identity import Environment
from pipelines.contracts.config import RecipeRef
from pipelines.contracts.upgrades import from_version_1

MANIFEST = "manifest.json"
"""Written last: a folder without this file is unfinished."""
VERDICT_PAGE = "verdict.html"
"""The page of a comparison, in the stage's output folder."""
DOCS_ARTIFACT = "data_gate/data_docs.html"
"""The Data Docs of the snapshot, among the artifacts of the challenger's MLflow run."""
CYCLE_INDEX = "cycles.html"
"""The index of all cycles, in the workspace."""


def _of_stage(name: str) -> Callable[[str, str], str]:
    return lambda run_uri, stage: f"{run_uri.rstrip('/')}/{stage}/{name}"


def _of_run(path: str) -> Callable[[str], str]:
    return lambda run_uri: f"{run_uri.rstrip('/')}/{path}"


manifest_uri = _of_stage(MANIFEST)
"""Where a stage's manifest lies, which holds a `StageRecord`, of a run's URI and a stage."""
failure_uri = _of_stage("failure.json")
"""Where a stage's last failure lies, which holds a `StageFailure`."""
stage_lock_uri = _of_stage("stage")
"""The place whose lock an attempt of a stage holds on a local disk."""
listing_uri = _of_run("build_snapshot/event_log.json")
"""Where a run says what the event log's files were when its snapshot was built."""
judged_log_uri = _of_run("build_snapshot/log")
"""The folder in which a run says how it found the days of its event log."""
approval_uri = _of_run("promote_challenger/approval.json")
"""Where a run keeps a person's answer, an `Approval`."""
snapshot_manifest_uri = _of_run(MANIFEST)
"""Where a snapshot's manifest lies, which holds a `Snapshot`, of the snapshot's URI."""


def working_uri(run_uri: str, stage: str, attempt: str) -> str:
    """Return where an attempt says that it works; a killed one leaves that."""
    return f"{run_uri.rstrip('/')}/{stage}/working-{attempt}"


def accepted_shift_uri(run_uri: str, expectation: str) -> str:
    """Return where a person says that a run's data may be as they are, in an `AcceptedShift`."""
    return f"{run_uri.rstrip('/')}/accepted_shifts/{expectation}.json"


class AcceptedShift(Frozen):
    """A person's word that the data of one run are right though an expectation is not met."""

    expectation: str
    by: str = Field(min_length=1)  # Who says so.
    reason: str = Field(min_length=1)  # Why, for whoever reads the report later.
    accepted_at: AwareDatetime

    @property
    def sentence(self) -> str:
        """Who and why, in one line."""
        return f"{self.by}, {self.accepted_at:%Y-%m-%d %H:%M} UTC: {self.reason}"


class StageFailure(Frozen):
    """Why a stage's last attempt failed; for the alert and for whoever looks."""

    stage: str
    error_class: str
    message: str
    exit_code: int
    occurred_at: AwareDatetime
    # Expectations that a person may accept, after which it goes on.
    acceptable: tuple[str, ...] = ()
    docs_uri: str = ""  # Data Docs of a refusal; '' for other failures.
    raised_by: str = ""  # Function of ours that raised it; '' unknown.
    about: tuple[str, ...] = ()  # What the error is about, if it says.


class StageUsage(Frozen):
    """What an attempt of a stage used, its child processes included. Not part of any digest."""

    cpu_s: float = Field(ge=0)  # User and system time.
    gpu_s: float = Field(default=0, ge=0)  # GPUs held, times seconds.
    # Resident memory of all its processes at once; shared pages once.
    peak_memory_bytes: int = Field(ge=0)
    # Read by system calls, also from the page cache; None: the kernel does not count. What was
    # mapped into memory is not in it.
    read_bytes: int | None = Field(default=None, ge=0)
    # Written by system calls; None: not counted.
    written_bytes: int | None = Field(default=None, ge=0)


def _manifest_from_version_1(found: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest of version 1 as version 2 has it, sealed anew if its seal was right."""
    made: dict[str, Any] = from_version_1(found)
    return made | {"seal": _early_seal(made) if found["seal"] == _early_seal(found) else ""}


def _manifest_from_version_2(found: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest of version 2 without its seal, which covered a part of what it says."""
    if found.pop("seal", "") != _early_seal(found):
        raise StageRecord.refusal("seal", "it was edited: its seal does not fit what it says")
    return found


def _early_seal(found: dict[str, Any]) -> str:
    names = ("stage", "input_digest", "artifact", "made_with", "recipe")
    return digest_of([found.get(name) for name in names])


class StageRecord(Frozen):
    """`manifest.json` of a stage: the artifact and the input it belongs to."""

    upgrades = (_manifest_from_version_1, _manifest_from_version_2)
    sealed_from = 3
    stage: str
    input_digest: str  # Digest of everything the artifact depends on.
    artifact: dict[str, Any]  # JSON form of the stage's artifact.
    made_with: Environment | None = None  # None: nobody said.
    recipe: RecipeRef | None = None  # The run's, where it has one.
    wall_s: float = Field(ge=0)  # Seconds of the attempt that published it.
    finished_at: AwareDatetime
    attempt: str = ""  # Of its writer, whose other files lie in `output-<attempt>`.
    usage: StageUsage | None = None  # Of that attempt; None where it could not be measured.
