"""Runs one stage of a run so that it may be retried, killed or called twice.

A stage's manifest is written last. Without it the stage did not happen. A stage is done if its
manifest was made from the same inputs and what the manifest names is still there; then the stage
returns its manifest and does no work. An attempt works under the stage's lease. Its output folder
and its manifest carry the lease's number, so that an attempt which has lost the lease without
knowing can neither write over what its successor has published nor delete it. Not for what a stage
does: that is in the stage's own file.
"""

import logging
import os
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from pipelines import storage
from pipelines.alerts.commands import stage_command
from pipelines.alerts.next_step import new_cycle_command
from pipelines.contracts.artifacts import ResolvedRun, RunRequest
from pipelines.contracts.base import Artifact, digest_of
from pipelines.contracts.code_identity import environment
from pipelines.contracts.config import RecipeRef
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    LostRaceError,
    RunInProgressError,
)
from pipelines.contracts.run_layout import StageRecord, failure_uri, manifest_uri
from pipelines.contracts.stage_table import REPEATABLE, SIDES, TABLE, Stage
from pipelines.cycles.index import keeping_index
from pipelines.metrics.measured import measured
from pipelines.metrics.recorded import recorded
from pipelines.places.lease import Lease
from pipelines.settings import Settings
from pipelines.stages.attempts import note_failure, noting_failure, only_one, tidy
from pipelines.stages.image_version import require_same_version
from pipelines.stages.nodes import address_of, help_train
from pipelines.stages.promote_challenger import ANSWERED, answered_since
from pipelines.stages.resolve_run import run_uri_of

if TYPE_CHECKING:
    from training.fitting.spec import NodeAddress

log = logging.getLogger(__name__)
Kind = TypeVar("Kind", bound=Artifact)

RESOLVE_WAIT_S = 120.0
"""How long `start_run` waits for another process that resolves the same cycle, in seconds."""


def start_run(request: RunRequest, settings: Settings) -> ResolvedRun:
    """Run `resolve_run`, or return the run that was resolved first for this request.

    The same recipe, trigger and day are the same run, whatever has moved since: the champion, the
    settings or the code. Of two processes that ask at once, the second waits and gets the run of
    the first.

    Raises:
        HomefeedError: as `resolve_run` raises; also written to `failure.json` of the run folder.
    """
    name = "resolve_run"
    run_uri = run_uri_of(request, settings)
    with measured(name) as attempt, only_one(name, run_uri, RESOLVE_WAIT_S) as lease:
        attempt.recipe, attempt.model = request.recipe, settings.registered_model
        attempt.number = lease.number
        if storage.exists(manifest_uri(run_uri, name)):
            log.info("%s was resolved before; going on with it", run_uri)
        else:
            with noting_failure(name, run_uri):
                attempt.artifact = _attempt(
                    TABLE[name], lease, run_uri, [request], request.fingerprint(), settings
                )
    return read_artifact(run_uri, "resolve_run", ResolvedRun)


def is_resolved(request: RunRequest, settings: Settings) -> bool:
    """Return whether `start_run` would find the run of this request, and read no recipe."""
    return storage.exists(manifest_uri(run_uri_of(request, settings), "resolve_run"))


def run_stage(
    name: str,
    run_uri: str,
    again: bool = False,
    node_rank: int | None = None,
    rendezvous: str = "",
) -> str:
    """Run one stage, or find it done, and return its manifest's URI.

    Where a run trains on several machines, each runs its training stages. Machine 0 publishes, and
    the URI that another one returns is that of a manifest which may not be there yet.

    Args:
        name: One of `artifacts.STAGES`; `resolve_run` must have happened already.
        run_uri: The run folder that `start_run` made.
        again: Do the stage's work even if it is done: a person saw that its files are damaged.
        node_rank: Which machine this is, from 0; None where there is one.
        rendezvous: HOST:PORT of machine 0; '' where there is one machine.

    Raises:
        HomefeedError: as the stage's function raises; also written to `failure.json`.
        LostRaceError: another process runs the same stage of the same run.
    """
    run_uri = storage.to_uri(run_uri)
    run = read_record(run_uri, "resolve_run").artifact
    _require_own_folder(run_uri, run["run_uri"])
    if again and name not in REPEATABLE:
        raise ConfigurationError(
            f"--again is given for {name}; expected one of {', '.join(REPEATABLE)}, which make "
            f"files; begin another cycle: `{new_cycle_command(ResolvedRun.model_validate(run))}`"
        )
    if name == "resolve_run":
        return manifest_uri(run_uri, name)
    stage = TABLE[name]
    if node_rank and name in SIDES:
        _help(stage, run_uri, node_rank, rendezvous, again)
        return manifest_uri(run_uri, name)
    with (
        keeping_index(name, run["workspace_uri"], run["registered_model"]),
        measured(name) as attempt,
        only_one(name, run_uri) as lease,
        noting_failure(name, run_uri),
    ):
        attempt.recipe, attempt.model = _reference(run), run["registered_model"]
        attempt.number = lease.number
        node = None
        if name in SIDES:
            resolved = read_artifact(run_uri, "resolve_run", ResolvedRun)
            node = address_of(name, resolved, node_rank, rendezvous)
        require_same_version(os.environ)
        inputs = [read_artifact(run_uri, above, kind) for above, kind in stage.inputs.items()]
        attempt.inputs = inputs
        input_digest = _input_digest(stage, run_uri)
        if not again and _is_done(stage, run_uri, input_digest):
            _tidy_after_kill(name, run_uri, lease.number)
        else:
            attempt.artifact = _attempt(
                stage, lease, run_uri, inputs, input_digest, Settings(), node
            )
    return manifest_uri(run_uri, name)


def _input_digest(stage: Stage, run_uri: str) -> str:
    """Return the digest of all that a stage's artifact depends on, the event log included."""
    digest = _artifact_digest(stage, run_uri)
    if stage.name != "build_snapshot":
        return digest
    from pipelines.stages.log_state import digest_with_log

    return digest_with_log(read_artifact(run_uri, "resolve_run", ResolvedRun), digest)


def _artifact_digest(stage: Stage, run_uri: str) -> str:
    found = {upstream: read_record(run_uri, upstream).artifact for upstream in stage.inputs}
    others = [artifact for upstream, artifact in found.items() if upstream != "resolve_run"]
    run = read_record(run_uri, "resolve_run").artifact
    return digest_of([stage.name, stage.version, digest_of(run), others])


def _help(stage: Stage, run_uri: str, node_rank: int, rendezvous: str, again: bool) -> None:
    """Do a further machine's part of a stage. What machine 0 does about the record stays its own.

    Raises:
        HomefeedError: as `help_train` raises; also written to `failure.json`, with the machine.
    """
    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    node = address_of(stage.name, run, node_rank, rendezvous)
    assert node is not None  # its rank is not 0
    before = storage.look(manifest_uri(run_uri, stage.name)) if again else None
    input_digest = _input_digest(stage, run_uri)

    def is_done() -> bool:
        if before is not None and storage.look(manifest_uri(run_uri, stage.name)) == before:
            return False  # what is there is to be made again
        return _is_done(stage, run_uri, input_digest)

    try:
        require_same_version(os.environ)
        help_train(stage.name, run, node, is_done)
    except HomefeedError as error:
        if not is_done():
            told = type(error)(f"machine {node_rank}: {error}")
            note_failure(failure_uri(run_uri, stage.name), stage.name, told)
        raise


def _require_own_folder(run_uri: str, recorded: str) -> None:
    """Refuse a run folder that was copied: its stages would write into the original.

    Raises:
        ConfigurationError: the run was resolved for another folder.
    """
    if storage.same_place(run_uri, recorded):
        return
    raise ConfigurationError(
        f"{run_uri} holds a run that was resolved for {recorded}; expected a run in its own "
        f"folder, because its stages write there; give --run {recorded}, or begin a new cycle in "
        f"the workspace that you want to write to"
    )


def _reference(run: dict[str, Any]) -> str:
    """Return the reference of the recipe in a run's JSON form, also an older one's."""
    return str(run["config"].get("source") or run["config"]["recipe"])


def _recipe_of(*artifacts: Any) -> RecipeRef | None:
    """Return the recipe of the run that is among the artifacts of a stage."""
    runs = (each for each in artifacts if isinstance(each, ResolvedRun))
    return next((run.config.recipe_ref for run in runs), None)


def _is_done(stage: Stage, run_uri: str, input_digest: str) -> bool:
    """Return whether the manifest is there, is about these inputs, and names nothing missing."""
    if not storage.exists(manifest_uri(run_uri, stage.name)):
        return False
    record = read_record(run_uri, stage.name)
    if why := _what_changed(stage, run_uri, record, input_digest):
        log.warning("%s of %s: %s; it is done again", stage.name, run_uri, why)
        return False
    if missing := storage.find_missing(read_artifact(run_uri, stage.name, stage.gives).places()):
        log.warning(
            "%s of %s was done, but %s is missing or of another size; running it again",
            *(stage.name, run_uri, missing[0]),
        )
        return False
    log.info("%s of %s is done already; nothing to do", stage.name, run_uri)
    return True


def _what_changed(stage: Stage, run_uri: str, record: StageRecord, input_digest: str) -> str:
    """Say in which inputs a manifest differs; '' where the difference changes nothing."""
    if record.input_digest == input_digest:
        return answered_since(run_uri, record.artifact) if stage.name == ANSWERED else ""
    if stage.name != "build_snapshot":
        return "its inputs have changed"
    from pipelines.stages.log_state import what_changed

    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    return what_changed(run, record.input_digest, _artifact_digest(stage, run_uri))


def _attempt(
    stage: Stage,
    lease: Lease,
    run_uri: str,
    inputs: Sequence[Any],
    input_digest: str,
    settings: Settings,
    node: "NodeAddress | None" = None,
) -> Artifact:
    """Call the stage's function, publish its artifact and return it.

    Raises:
        LostRaceError: another process has published the stage meanwhile; what it has stays.
    """
    before = storage.look(manifest_uri(run_uri, stage.name))
    output = f"output-{lease.number:08d}-{uuid.uuid4().hex[:8]}"
    extras = {
        "output_uri": storage.join(run_uri, stage.name, output),
        "now": datetime.now(UTC),
        "settings": settings,
        "node": node,
    }
    log.info("%s of %s: starting", stage.name, run_uri)
    # Before the work: the code on the disk may be another one when it ends, hours later.
    made_with, started = environment(), time.monotonic()
    with recorded(stage.name, inputs) as recording:
        artifact = stage.load()(*inputs, **{name: extras[name] for name in stage.also})
    record = StageRecord(
        stage=stage.name,
        input_digest=input_digest,
        artifact=artifact.model_dump(mode="json"),
        made_with=made_with,
        recipe=_recipe_of(*inputs, artifact),
        wall_s=time.monotonic() - started,
        finished_at=datetime.now(UTC),
        lease=lease.number,
        usage=recording.usage,
    )
    try:
        storage.write_over(manifest_uri(run_uri, stage.name), record.sealed(), before)
    except RunInProgressError as error:
        raise LostRaceError(str(error)) from error
    tidy(stage.name, run_uri, output, lease.number)
    log.info("%s of %s: done in %.1f s", stage.name, run_uri, record.wall_s)
    return artifact


def _tidy_after_kill(stage: str, run_uri: str, number: int) -> None:
    """Remove what an attempt could not, which was killed just after it had written its manifest."""
    published = read_record(run_uri, stage).lease
    if published:  # Of a manifest from before there were leases, the folder has no number either.
        tidy(stage, run_uri, f"output-{published:08d}-", number)


def read_record(run_uri: str, stage: str, repair: str = "") -> StageRecord:
    """Return a stage's manifest.

    Args:
        run_uri: The run folder.
        stage: The stage.
        repair: What a person should do where the manifest is missing or cannot be read; '': what
            whoever works on the cycle does, which writes into its folder.

    Raises:
        ConfigurationError: the stage has not happened in this run.
        DataContractError: the manifest is damaged.
    """
    how = f"run `{stage_command(stage, run_uri)}`"
    if stage == "resolve_run":
        how = "run `homefeed resolve --as-of YYYY-MM-DD` (it prints the run's URI)"
    uri, mend = manifest_uri(run_uri, stage), repair or _repair(run_uri, stage)
    try:
        record = storage.read_model(uri, StageRecord, mend)
    except FileNotFoundError:
        raise ConfigurationError(
            f"run {run_uri} has no manifest of {stage}; expected that stage to have ended; "
            f"{repair or f'{how} first, or correct --run'}"
        ) from None
    if record.stage != stage or not record.is_sound():
        raise DataContractError(
            f"{uri} was edited or is of another stage ({record.stage}): its seal does not fit what "
            f"it says; expected it as {stage} wrote it; {mend}"
        )
    return record


def _repair(run_uri: str, stage: str) -> str:
    """Return what a person does about a manifest that cannot be read."""
    if stage in REPEATABLE:
        return f"run `{stage_command(stage, run_uri, again=True)}`"
    if stage == "resolve_run":
        return "delete it and repeat the command, or clear the task, that began the run"
    return f"delete it and run `{stage_command(stage, run_uri)}`"


def _of_other_code(run_uri: str, stage: str) -> str:
    return (
        f"{_repair(run_uri, stage)}; where HOMEFEED_ANCHOR_IMAGE or HOMEFEED_ANCHOR_COMMAND names "
        f"older code, unset it"
    )


def read_artifact(run_uri: str, stage: str, kind: type[Kind], repair: str = "") -> Kind:
    """Return a stage's artifact; takes a repair and raises as `read_record` does."""
    artifact = read_record(run_uri, stage, repair).artifact
    try:
        return kind.model_validate(artifact)
    except ValidationError as error:
        raise DataContractError(
            f"{manifest_uri(run_uri, stage)} holds a {kind.__name__} of another version: {error}; "
            f"{repair or _of_other_code(run_uri, stage)}"
        ) from None
