"""`train_anchor`: make the accepted recipe fresh, where the run's recipe is another one.

    <run>/train_anchor/training/    work folder with checkpoints, kept between attempts
    <output_uri>/bundle/            the bundle, as the challenger's

With it a cycle tells apart what a change of recipe is worth (challenger against fresh anchor) and
what fresh data is worth (fresh anchor against champion). The champion itself would not do: its age
flatters the challenger. Where only the code differs, this stage tells what the code is worth, if it
is run by the accepted code: in an image of its own, or by a command line of its own
(`pipelines.orchestration.operators`). Not for which recipe is accepted: see
`pipelines.registry.history`.
"""

import logging
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.contracts.artifacts import (
    AnchorWhy,
    DataReport,
    FreshAnchor,
    ResolvedRun,
    Snapshot,
)
from pipelines.contracts.code_identity import code_digest
from pipelines.contracts.config import RunConfig
from pipelines.contracts.errors import (
    DataContractError,
    DataGateFailedError,
    OwnFunctionError,
    SnapshotDamagedError,
)
from pipelines.contracts.files import temporary_files_in
from pipelines.snapshot.counterpart import snapshot_to_train
from pipelines.stages.train_challenger import require_accepted, train_side

if TYPE_CHECKING:
    from training.fitting.spec import NodeAddress

log = logging.getLogger(__name__)


def train_anchor(
    run: ResolvedRun,
    snapshot: Snapshot,
    report: DataReport,
    output_uri: str,
    node: "NodeAddress | None" = None,
) -> FreshAnchor:
    """Train the accepted recipe on the challenger's rows, or say why there is nothing to do.

    An accepted recipe that the data does not allow any more, or whose own function is gone, is no
    failure of the cycle: the challenger is still judged, nothing is promoted, and people are told
    to name another. Every other failure is one, as it is of `train_challenger`: it may pass, or a
    person mends it.

    Raises:
        DataGateFailedError: the report does not accept this snapshot.
        SnapshotDamagedError: a file of the snapshot is missing or was altered.
        HomefeedError: as `train_challenger` raises.
    """
    require_accepted(report, snapshot, run.run_uri)
    accepted = run.standing.anchor
    why, reason = _decide(run, accepted)
    if accepted is None or why not in (AnchorWhy.OTHER_CODE, AnchorWhy.OTHER_RECIPE):
        problem = run.standing.problem if accepted is None else ""
        return FreshAnchor(trained=None, snapshot=None, why=why, reason=reason, problem=problem)
    try:
        own = snapshot_to_train(run, snapshot, accepted)
        if own.digest != snapshot.digest:
            _require_sound(run, own, accepted)
        made = run.model_copy(update={"config": accepted})
        repair = "delete its folder: it is built again when the stage is run again"
        trained = train_side(made, own, "anchor", output_uri, repair, node)
    except SnapshotDamagedError:
        raise
    except (DataContractError, OwnFunctionError) as error:
        log.warning("the accepted recipe %r cannot be made: %s", accepted.reference, error)
        return FreshAnchor(
            trained=None,
            snapshot=None,
            why=AnchorWhy.NOT_POSSIBLE,
            reason="The accepted recipe could not be trained.",
            problem=f"The accepted recipe {accepted.reference!r} cannot be made any more "
            f"({type(error).__name__}: {error}), so nothing is promoted; mend what that says and "
            f"start a new cycle, or name a recipe that can be made: "
            f"`homefeed anchor set --recipe NAME --reason ...`.",
        )
    return FreshAnchor(
        trained=trained, code_digest=code_digest(), snapshot=own, why=why, reason=reason
    )


def _decide(run: ResolvedRun, accepted: RunConfig | None) -> tuple[AnchorWhy, str]:
    """Return what the challenger and the fresh anchor differ in, or why none is made; and say so.

    It is made where the recipe differs, or the code is the accepted one and not the run's.
    """
    if accepted is None:
        return AnchorWhy.NOT_ACCEPTED, "No recipe is accepted yet."
    if run.champion is None:
        said = "No model serves that the accepted recipe could be held against."
        return AnchorWhy.NOTHING_SERVES, said
    known, ours = run.standing.anchor_code_digest, code_digest()
    if accepted.recipe_digest != run.config.recipe_digest:
        by = "" if ours == run.code_digest else f" by code {ours[:12]}"
        return AnchorWhy.OTHER_RECIPE, (
            f"The run's recipe differs from the accepted one, {accepted.reference!r}, which was "
            f"trained on the same rows{by}."
        )
    todays = run.code_digest or ours
    if known in ("", todays):
        said = "The run's recipe is the accepted one, so the challenger is the fresh anchor."
        return AnchorWhy.SAME, said
    if known == ours:
        return AnchorWhy.OTHER_CODE, (
            f"The run's recipe is the accepted one, trained by other code. The accepted code "
            f"({ours[:12]}) trained it on the same rows, so the change of code is judged alone."
        )
    at_hand = "not at hand" if ours == todays else f"not that of HOMEFEED_ANCHOR_CODE ({ours[:12]})"
    return AnchorWhy.CODE_NOT_AT_HAND, (
        f"The run's recipe is the accepted one, trained by other code ({todays[:12]}, "
        f"accepted {known[:12]}). The accepted code is {at_hand}, so what the change of code is "
        f"worth is not known; it was judged against the champion alone."
    )


def _require_sound(run: ResolvedRun, own: Snapshot, accepted: RunConfig) -> None:
    """Judge the accepted recipe's own snapshot as the data gate judged the run's, but for shift.

    Raises:
        DataGateFailedError: a critical expectation is not met.
    """
    from validation.data_gate.gate import judge_snapshot

    with (
        storage.scratch_folder(run.workspace_uri) as scratch,
        temporary_files_in(scratch),
        storage.local_copy(own.uri) as found,
    ):
        outcomes = judge_snapshot(own, found, None, accepted.data_gate, scratch)
    broken = [outcome for outcome in outcomes if outcome.stops_the_cycle]
    if broken:
        raise DataGateFailedError(
            f"the data gate refused snapshot {own.digest[:12]}, on which the accepted recipe would "
            f"be trained: "
            + "; ".join(f"{o.name}: found {o.observed}, expected {o.expected}" for o in broken)
        )
