"""Runs one stage of a run so that it may be retried, killed or called twice.

A stage's manifest is written last, over what was there when the attempt began and nothing else.
Without it the stage did not happen. A stage is done if its manifest was made from the same inputs
and what the manifest names is still there; then the stage returns its manifest and does no work.
An attempt writes into a folder of its own. On a local disk attempts wait for each other; on an
object store two at once cost work: the first to publish counts, and the other takes what is there.
Not for what a stage does: that is in the stage's own file.
"""

import contextlib
import logging
import os
import time
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from pipelines import deletion, storage
from pipelines.alerts.commands import new_cycle_command, stage_command
from pipelines.alerts.compose import begin_again, cycle_of
from pipelines.contracts.alert import Cause, Unresolved
from pipelines.contracts.artifacts import ResolvedRun, RunRequest
from pipelines.contracts.base import Artifact, digest_of
from pipelines.contracts.code_identity import DAG_CODE, environment, require_same_version
from pipelines.contracts.errors import (
    ConfigurationError,
    DataContractError,
    HomefeedError,
    RunInProgressError,
    as_ours,
)
from pipelines.contracts.files import own_temporary_folder, temporary_files_in
from pipelines.contracts.judgement import Promotion
from pipelines.contracts.run_layout import (
    StageFailure,
    StageRecord,
    failure_uri,
    listing_uri,
    manifest_uri,
    stage_lock_uri,
    working_uri,
)
from pipelines.contracts.stage_table import HEAVY, SIDES, TABLE, Stage
from pipelines.cycles.index import keeping_index
from pipelines.metrics.measured import Attempt, measured
from pipelines.places.conditional import Revision
from pipelines.settings import Settings
from pipelines.stages.light import run_uri_of

if TYPE_CHECKING:
    from training.fitting.spec import NodeAddress

log = logging.getLogger(__name__)
Kind = TypeVar("Kind", bound=Artifact)

WAIT_S = 600.0
"""How long an attempt waits for another one on the same disk, in seconds: longer than Airflow takes
to find that a task is gone and to start it again."""


def start_run(request: RunRequest, settings: Settings) -> ResolvedRun:
    """Run `resolve_run`, or return the run that was resolved first for this request.

    The same recipe, trigger and day are the same run, whatever has moved since: the champion, the
    settings or the code. Of two processes that ask at once, both get the run of one.

    Raises:
        HomefeedError: as `resolve_run` raises; also written to `failure.json` of the run folder.
    """
    run_uri = run_uri_of(request, settings)
    with _working("resolve_run", run_uri, settings.workspace_uri) as work:
        work.used.recipe, work.used.model = request.recipe, settings.registered_model
        if storage.exists(work.uri):
            log.info("%s was resolved before; going on with it", run_uri)
        else:
            # Two requests of one run differ in their instant.
            work.do([request], digest_of(request.run_id), settings)
    return read_artifact(run_uri, "resolve_run", ResolvedRun)


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
        ConfigurationError: the run was resolved for another folder; the stage is not repeatable.
        HomefeedError: as the stage's function raises; also written to `failure.json`.
    """
    run_uri = storage.to_uri(run_uri)
    run = read_artifact(run_uri, "resolve_run", ResolvedRun)
    if not storage.same_place(run_uri, run.run_uri):
        raise ConfigurationError(
            f"{run_uri} holds a run that was resolved for {run.run_uri}; expected a run in its own "
            f"folder; name {run.run_uri}, or begin a new cycle in that workspace"
        )
    if again and name not in HEAVY:
        raise ConfigurationError(
            f"--again is given for {name}; expected one of {', '.join(HEAVY)}; begin another "
            f"cycle: `{new_cycle_command(run)}`"
        )
    if name == "resolve_run":
        return manifest_uri(run_uri, name)
    node, stage = address_of(name, run, node_rank, rendezvous), TABLE[name]
    if node and node.rank:
        _help(stage, run, node, again)
        return manifest_uri(run_uri, name)
    with (
        keeping_index(name, run.workspace_uri, run.registered_model, run_uri),
        _working(name, run_uri, run.workspace_uri) as work,
    ):
        work.used.recipe = run.config.source or run.config.recipe
        work.used.model = run.registered_model
        require_same_version(os.environ)
        # Looked at before it is asked what is done: what is published after this look counts.
        digest = _input_digest(stage, run_uri)
        inputs = [read_artifact(run_uri, each, kind) for each, kind in stage.inputs.items()]
        if again or not _is_done(stage, run, digest):
            work.do(inputs, digest, Settings(), node)
    return work.uri


def _help(stage: Stage, run: ResolvedRun, node: "NodeAddress", again: bool) -> None:
    """Do a further machine's part of a stage. What machine 0 does about the record stays its own.

    Raises:
        HomefeedError: as the stage's function; also written to `failure.json`, with the machine.
    """
    if not again and _is_done(stage, run, _input_digest(stage, run.run_uri)):
        return
    try:
        require_same_version(os.environ)
        inputs = [read_artifact(run.run_uri, *each) for each in stage.inputs.items()]
        stage.load()(*inputs, output_uri="", node=node)
    except HomefeedError as error:
        told = type(error)(f"machine {node.rank}: {error}", kind=error.kind)
        note_failure(failure_uri(run.run_uri, stage.name), stage.name, told)
        raise


def address_of(
    stage: str, run: ResolvedRun, node_rank: int | None, rendezvous: str
) -> "NodeAddress | None":
    """Return which machine of a stage's training this is; None where there is one machine.

    Raises:
        ConfigurationError: the rank does not fit the run, or is missing; there is no rendezvous.
    """
    from training.fitting.spec import NodeAddress

    if stage not in SIDES or (run.num_nodes == 1 and node_rank in (None, 0)):
        return None
    node = NodeAddress(rank=-1 if node_rank is None else node_rank, rendezvous=rendezvous)
    node.require_one_of(run.num_nodes)
    return node


def _input_digest(stage: Stage, run_uri: str) -> str:
    """Return the digest of all that a stage's artifact depends on.

    Of `build_snapshot` that is also what the event log was, as the stage itself has listed it.
    """
    inputs = dict.fromkeys(("resolve_run", *stage.inputs))
    run, *above = (read_record(run_uri, name).artifact for name in inputs)
    digest = digest_of([stage.name, digest_of(run), above])
    listed = listing_uri(run_uri)
    if stage.name != "build_snapshot" or not storage.exists(listed):
        return digest
    return digest_of([digest, storage.read_bytes(listed).decode(errors="replace")])


def _is_done(stage: Stage, run: ResolvedRun, input_digest: str) -> bool:
    """Return whether the manifest is there, is about these inputs, and names nothing missing."""
    if not storage.exists(manifest_uri(run.run_uri, stage.name)):
        return False
    record, why = read_record(run.run_uri, stage.name), ""
    if record.input_digest != input_digest:
        why = "its inputs have changed"
    elif stage.name == "promote_challenger":
        # Whoever clears the question is asked again, after nobody has approved. What was promoted
        # stays done: a promotion is made once, whatever is answered later.
        from pipelines.registry.moves import read_approval

        known = read_artifact(run.run_uri, stage.name, Promotion)
        asked = known.approval is not None and not known.is_promoted
        if asked and read_approval(run.run_uri) not in (None, known.approval):
            why = "it was answered anew"
    elif stage.name == "build_snapshot":
        from pipelines.stages.build_snapshot import has_log_changed

        why = "the event log has changed" if has_log_changed(run) else ""
    if not why:
        places = read_artifact(run.run_uri, stage.name, stage.gives).places()
        if missing := storage.find_missing(places):
            why = f"{missing[0]} is missing or of another size"
    if why:
        log.warning("%s of %s: %s; it is done again", stage.name, run.run_uri, why)
    else:
        log.info("%s of %s is done already; nothing to do", stage.name, run.run_uri)
    return not why


@dataclass(frozen=True)
class _Work:
    """An attempt at a stage, which nobody else makes on this disk."""

    stage: Stage
    run_uri: str
    workspace_uri: str
    uri: str  # Of the stage's manifest.
    before: Revision  # What was there when the attempt began.
    own: str  # The attempt's name.
    used: Attempt

    def do(
        self,
        inputs: list[Any],
        input_digest: str,
        settings: Settings,
        node: "NodeAddress | None" = None,
    ) -> None:
        """Call the stage's function on its inputs and publish its artifact.

        Where another attempt has published meanwhile, what it has made counts.

        Raises:
            RunInProgressError: what another attempt has published is of other inputs.
        """
        name, self.used.inputs = self.stage.name, inputs
        output_uri = storage.join(self.run_uri, name, f"output-{self.own}")
        extras = {
            "output_uri": output_uri,
            "now": datetime.now(UTC),
            "settings": settings,
            "node": node,
        }
        # Before the work: the code on the disk may be another one when it ends, hours later.
        made_with, started = environment(), time.monotonic()
        also = {each: extras[each] for each in self.stage.also}
        # Libraries make temporary files, and where this process is killed nobody else removes them.
        # A full disk of the workspace keeps no light stage from its work.
        own = own_temporary_folder("scratch").as_uri()
        near = self.workspace_uri if name in HEAVY else own
        with storage.scratch_folder(near) as scratch, temporary_files_in(scratch):
            artifact = self.stage.load()(*inputs, **also)
        run = next((each for each in (*inputs, artifact) if isinstance(each, ResolvedRun)), None)
        if name == "build_snapshot":
            input_digest = _input_digest(self.stage, self.run_uri)  # of the log as it was read
        record = StageRecord(
            stage=name,
            input_digest=input_digest,
            artifact=artifact.model_dump(mode="json"),
            made_with=made_with,
            recipe=run and run.config.recipe_ref,
            wall_s=time.monotonic() - started,
            finished_at=datetime.now(UTC),
            attempt=self.own,
            usage=self.used.used(),
        )
        try:
            storage.write_over(self.uri, record, self.before)
        except RunInProgressError:
            if read_record(self.run_uri, name).input_digest != input_digest:
                raise
            log.info("%s of %s: another attempt has published it meanwhile", name, self.run_uri)
            deletion.remove(output_uri)
            return
        self.used.artifact = artifact
        log.info("%s of %s: done in %.1f s", name, self.run_uri, record.wall_s)


@contextlib.contextmanager
def _working(name: str, run_uri: str, workspace_uri: str) -> Iterator[_Work]:
    """Measure an attempt, say beside the manifest that it works, and note why it fails.

    On a local disk it waits for another one, and removes at its end what attempts have left that
    published nothing or were killed before they could. On a store one of them may be at work, and
    what they leave goes with the run. A promotion waits for nobody there: its entry of the history
    and its manifest are created only if they are absent.

    Raises:
        RunInProgressError: another attempt goes on for longer than `WAIT_S`.
    """
    noted_at, uri = failure_uri(run_uri, name), manifest_uri(run_uri, name)
    own = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}"
    mark, lock_uri = working_uri(run_uri, name, own), stage_lock_uri(run_uri, name)
    with measured(name) as used:
        try:
            with storage.exclusive_lock(lock_uri, f"{name} of {run_uri}", WAIT_S):
                # Where this attempt is killed, what an earlier one left is not the reason.
                deletion.remove(noted_at)
                storage.write_new(mark, b"")
                try:
                    before = storage.look(uri)
                    yield _Work(TABLE[name], run_uri, workspace_uri, uri, before, own, used)
                    if storage.is_local(run_uri):
                        kept = f"output-{read_record(run_uri, name).attempt}"
                        for left in storage.list_names(storage.join(run_uri, name)):
                            if left.startswith(("output-", "working-")) and left != kept:
                                deletion.remove(storage.join(run_uri, name, left))
                    deletion.remove(noted_at)  # of one that waited for this attempt in vain
                finally:
                    with contextlib.suppress(HomefeedError):  # It counts for a week.
                        deletion.remove(mark)
        except Exception as error:
            ours = as_ours(error, run_uri) or error
            note_failure(noted_at, name, ours.with_traceback(error.__traceback__))
            if ours is error:
                raise
            raise ours from error


def note_failure(uri: str, stage: str, error: Exception) -> None:
    """Write down why an attempt failed. A second failure while writing must not hide the first."""
    ours = error if isinstance(error, HomefeedError) else HomefeedError()
    failure = StageFailure(
        stage=stage,
        error_class=type(error).__name__,
        message=str(error),
        exit_code=ours.exit_code,
        occurred_at=datetime.now(UTC),
        acceptable=ours.acceptable,
        docs_uri=ours.docs_uri,
        raised_by=raised_by(error),
        about=ours.about,
    )
    try:
        storage.write_model(uri, failure)
    except HomefeedError as second:
        log.warning("could not note the failure of %s: %s", stage, second)


def is_defect(error: Exception) -> bool:
    """Return whether nobody foresaw an error; Airflow tells by itself what its tasks ended by."""
    return as_ours(error) is None and DAG_CODE not in os.environ


def unresolved(error: Exception, request: RunRequest | None, settings: Settings) -> Unresolved:
    """Return what is told of an error of `resolve_run`; no request: it was not understood."""
    name, more = type(error).__name__, dict[str, Any]()
    if request:
        more = {"next_step": begin_again(request, settings), "cycle": cycle_of(request)}
    ours = {"about": getattr(error, "about", ()), "raised_by": raised_by(error)}
    return Unresolved(
        message=f"{name}: {error}",
        cause=Cause(stage="resolve_run", error_class=name, **ours),
        at=datetime.now(UTC),
        **more,
    )


def raised_by(error: BaseException) -> str:
    """Return the innermost function of ours that raised an error, or ''."""
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] in ("pipelines", "training", "validation"):
            found = f"{module}.{frame.f_code.co_qualname}"
    return found


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
    uri, mend = manifest_uri(run_uri, stage), repair or _repair(run_uri, stage)
    try:
        record = storage.read_model(uri, StageRecord, mend)
    except FileNotFoundError:
        raise ConfigurationError(
            f"run {run_uri} has no manifest of {stage}; expected that stage to have ended; {mend}, "
            f"or name another run"
        ) from None
    if record.stage != stage:
        raise DataContractError(f"{uri} is of {record.stage}; expected that of {stage}; {mend}")
    return record


def read_artifact(run_uri: str, stage: str, kind: type[Kind], repair: str = "") -> Kind:
    """Return a stage's artifact; takes a repair and raises as `read_record` does."""
    artifact = read_record(run_uri, stage, repair).artifact
    try:
        return kind.model_validate(artifact)
    except ValidationError as error:
        raise DataContractError(
            f"{manifest_uri(run_uri, stage)} holds a {kind.__name__} of another version: {error}; "
            f"{repair or _repair(run_uri, stage)}"
        ) from None


def _repair(run_uri: str, stage: str) -> str:
    """Return what a person does about a manifest that cannot be read."""
    if stage == "resolve_run":
        if storage.exists(manifest_uri(run_uri, "promote_challenger")):
            return "put a sound copy back, because what it promoted may serve"
        return "delete it and repeat the command, or clear the task, that began the run"
    run = f"run `{stage_command(stage, run_uri, again=stage in HEAVY)}`"
    return run if stage in HEAVY else f"delete it, if it is there, and {run}"
